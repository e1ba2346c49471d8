-- Server side: carries out the controller's orders.  `arrive`, one an episode: stand the player on a good spot of the
-- map, set time of day and weather, give something to build with.  For captures: `look`, hold the player in the air with
-- the eyes at a pose; `ground`, tell where one can stand.
--
-- Orders come in the file `order.json` of the world's folder (see reverie_worlds/minetest/world.py); what happened is told in
-- lines of the log: REVERIE {"order": 3, "x": ..., ...}, or REVERIE {"order": 3, "error": "..."}.

local ORDER_FILE = minetest.get_worldpath() .. "/order.json"
local MAX_PLACES = 40 -- places of the map that are tried
local PLACE_RADIUS = 18 -- around a place, spots within so many nodes are considered
local SPOTS = 60 -- spots of a place that are looked at
local SKY = 16 -- nodes above a spot that must be free
local EYE_HEIGHT = 1.5
local DIRECTIONS = 16
local SIGHT = 12 -- nodes
local OPEN_DIRECTIONS = 6 -- a good spot sees so far in at least so many directions

local done = 0

local function say(facts)
	minetest.log("action", "REVERIE " .. minetest.write_json(facts))
end

-- The hand digs quickly, but not at once: the cracks are seen.
minetest.override_item("", {
	range = 5,
	tool_capabilities = {
		full_punch_interval = 0.5,
		max_drop_level = 3,
		groupcaps = {
			crumbly = { times = { 1.1, 0.8, 0.6 }, uses = 0, maxlevel = 3 },
			choppy = { times = { 1.0, 0.8, 0.6 }, uses = 0, maxlevel = 3 },
			cracky = { times = { 1.3, 1.0, 0.8 }, uses = 0, maxlevel = 3 },
			snappy = { times = { 0.4, 0.3, 0.2 }, uses = 0, maxlevel = 3 },
			oddly_breakable_by_hand = { times = { 0.8, 0.6, 0.4 }, uses = 0 },
		},
	},
})

-- What is dug is gone, and what is placed is not used up: an episode's end is like its beginning.
minetest.handle_node_drops = function() end
minetest.register_on_placenode(function()
	return true
end)

local function is_free(pos)
	local about = minetest.registered_nodes[minetest.get_node(pos).name]
	return about and not about.walkable and about.liquidtype == "none" and about.damage_per_second == 0
end

-- Open sky above, and firm ground that is not the top of a tree.
local function is_spot(ground)
	local feet = vector.offset(ground, 0, 1, 0)
	local name = minetest.get_node(ground).name
	if minetest.get_item_group(name, "leaves") > 0 or minetest.get_item_group(name, "tree") > 0 then
		return false
	end
	for up = 0, SKY do
		if not is_free(vector.offset(feet, 0, up, 0)) then
			return false
		end
	end
	return true
end

-- The directions (degrees, Minetest's yaw) in which one could see for SIGHT nodes from `feet`.
local function open_directions(feet)
	local open = {}
	for i = 0, DIRECTIONS - 1 do
		local yaw, free = 2 * math.pi * i / DIRECTIONS, true
		for distance = 1, SIGHT do
			local x, z = -math.sin(yaw) * distance, math.cos(yaw) * distance
			free = free and is_free(vector.round(vector.offset(feet, x, EYE_HEIGHT, z)))
		end
		if free then
			table.insert(open, math.deg(yaw))
		end
	end
	return open
end

-- The uppermost ground of a column near `place`; nil where that is water, lava or unknown.
local function ground_at(place, dx, dz)
	for dy = PLACE_RADIUS, -PLACE_RADIUS, -1 do
		local pos = vector.offset(place, dx, dy, dz)
		if not is_free(pos) then
			local about = minetest.registered_nodes[minetest.get_node(pos).name]
			return about and about.walkable and pos or nil
		end
	end
end

-- The best of some random spots around `place`: feet and open directions; nil if there is none.  Each spot is judged by
-- itself, for a place is not generated alike to the last flower in each run.
local function choose_spot(place, rng)
	local best, best_open
	for _ = 1, SPOTS do
		local dx, dz = rng:next(-PLACE_RADIUS, PLACE_RADIUS), rng:next(-PLACE_RADIUS, PLACE_RADIUS)
		local ground = ground_at(place, dx, dz)
		if ground and is_spot(ground) then
			local open = open_directions(vector.offset(ground, 0, 1, 0))
			if #open >= OPEN_DIRECTIONS and (not best or #open > #best_open) then
				best, best_open = vector.offset(ground, 0, 0.5, 0), open
			end
		end
	end
	return best, best_open
end

local function apply(player, order)
	player:hud_set_flags({
		hotbar = false, healthbar = false, crosshair = false, breathbar = false,
		minimap = false, minimap_radar = false, wielditem = false,
	})
	minetest.set_timeofday(order.time)
	player:set_clouds(order.clouds)
	player:set_sky(order.sky)
	player:set_sun({ sunrise_visible = true, visible = order.sun })
	player:set_moon({ visible = order.sun })
	player:override_day_night_ratio(order.daylight)
	player:get_inventory():set_list("main", { order.block .. " 99" })
	minetest.set_player_privs(player:get_player_name(), { interact = true })
	player:set_physics_override({ gravity = 1, speed = 1, jump = 1 })
end

local function arrive(order, feet, open, rng)
	local player = minetest.get_connected_players()[1]
	local yaw = open[rng:next(1, #open)] + rng:next(-1000, 1000) / 100
	apply(player, order)
	player:set_pos(feet)
	player:set_look_horizontal(math.rad(yaw))
	player:set_look_vertical(0)
	say({ order = order.id, x = feet.x, y = feet.y, z = feet.z, yaw = yaw })
end

-- Generate the map around `middle`, then call `continue`.
local function emerge(middle, reach, height, continue)
	local low, high = vector.offset(middle, -reach, -height, -reach), vector.offset(middle, reach, height, reach)
	minetest.emerge_area(low, high, function(_, _, left)
		if left == 0 then
			continue()
		end
	end)
end

local function try_places(order, rng, left)
	local x, z = rng:next(-order.reach, order.reach), rng:next(-order.reach, order.reach)
	local y = minetest.get_spawn_level(x, z)
	if left == 0 then
		return say({ order = order.id, error = "no place to stand in " .. MAX_PLACES .. " tries" })
	end
	if not y then
		return try_places(order, rng, left - 1)
	end
	local place = vector.new(x, y, z)
	-- all that is looked at, or the choice would depend on what was generated before
	emerge(place, PLACE_RADIUS + SIGHT, PLACE_RADIUS + SKY, function()
		local feet, open = choose_spot(place, rng)
		if feet then
			emerge(feet, order.range, 32, function()
				arrive(order, feet, open, rng)
			end)
		else
			try_places(order, rng, left - 1)
		end
	end)
end

local function look(order)
	local player, feet = minetest.get_connected_players()[1], vector.new(order.x, order.y, order.z)
	emerge(feet, order.range, 32, function()
		-- who flies through things neither sinks in water nor is pushed out of what is near
		minetest.set_player_privs(player:get_player_name(), { fly = true, noclip = true })
		player:set_physics_override({ gravity = 0, speed = 0, jump = 0 })
		player:add_velocity(vector.multiply(player:get_velocity(), -1))
		player:set_pos(feet)
		player:set_look_horizontal(math.rad(order.yaw))
		player:set_look_vertical(math.rad(order.pitch))
		say({ order = order.id, x = feet.x, y = feet.y, z = feet.z })
	end)
end

-- The feet of one who stands at each of the places asked for, false where nobody can.
local function ground(order)
	local middle, heights = vector.new(order.x, order.y, order.z), {}
	emerge(middle, order.reach, PLACE_RADIUS + 2, function()
		for i, point in ipairs(order.points) do
			local under = ground_at(middle, point[1], point[2])
			local stands = under and is_free(vector.offset(under, 0, 1, 0)) and is_free(vector.offset(under, 0, 2, 0))
			heights[i] = stands and under.y + 0.5
		end
		say({ order = order.id, heights = heights })
	end)
end

minetest.register_globalstep(function()
	local file = io.open(ORDER_FILE)
	if not file then
		return
	end
	local text = file:read("*a")
	file:close()
	local order = minetest.parse_json(text)
	if order and order.id ~= done and #minetest.get_connected_players() == 1 then
		done = order.id
		if order.kind == "look" then
			look(order)
		elseif order.kind == "ground" then
			ground(order)
		else
			try_places(order, PcgRandom(order.seed), MAX_PLACES)
		end
	end
end)
