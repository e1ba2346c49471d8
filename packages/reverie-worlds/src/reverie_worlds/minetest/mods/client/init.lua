-- Client side: at each frame a line of the log tells where the player is and what could be known by looking around:
--
--   POSE x y z yaw pitch eye_x eye_y eye_z ground liquid light loaded ray ... drop ...
--
-- x y z: the feet, in nodes, at the frame that is about to be drawn.  yaw (left of east), pitch (up): radians, of
-- this frame too.  eye: where the camera was at the frame before.  ground, liquid: 0 or 1.  light: 0 to 15, -1 unknown.
-- loaded: how many nodes of a coarse grid around are known.  ray: free nodes ahead in RAYS; drop: how far down the
-- ground is at DROPS ahead.

local RAY_LENGTH = 12
local RAYS = {} -- degrees to the left, height above the feet: a fan at the knee, one at the eye
for _, height in ipairs({ 0.6, 1.6 }) do
	for _, yaw in ipairs({ 60, 30, 0, -30, -60 }) do
		table.insert(RAYS, { yaw = math.rad(yaw), height = height })
	end
end
local DROPS = { 1.5, 3 } -- nodes ahead
local DROP_LENGTH = 8
local GRID_STEP, GRID_SIZE = 12, 4 -- from -GRID_SIZE to GRID_SIZE steps, half as high
local GRID_EVERY = 4 -- frames

local frame, loaded = 0, 0

local function free_length(from, to)
	local hit = minetest.raycast(from, to, false, false)()
	return vector.distance(from, hit and hit.intersection_point or to)
end

local function ahead(pos, yaw, distance, height)
	return vector.new(pos.x + math.cos(yaw) * distance, pos.y + height, pos.z + math.sin(yaw) * distance)
end

local function count_loaded(pos)
	local count = 0
	for x = -GRID_SIZE, GRID_SIZE do
		for z = -GRID_SIZE, GRID_SIZE do
			for y = -GRID_SIZE / 2, GRID_SIZE / 2 do
				if minetest.get_node_or_nil(vector.offset(pos, x * GRID_STEP, y * GRID_STEP, z * GRID_STEP)) then
					count = count + 1
				end
			end
		end
	end
	return count
end

minetest.register_globalstep(function()
	local camera, player = minetest.camera, minetest.localplayer
	local eye = camera and camera:get_pos()
	if not eye or not player then
		return
	end
	frame = frame + 1
	local pos = player:get_pos()
	if frame % GRID_EVERY == 0 then
		loaded = count_loaded(pos)
	end
	local yaw = camera:get_look_horizontal()
	local facts = {
		pos.x, pos.y, pos.z, yaw, camera:get_look_vertical(), eye.x, eye.y, eye.z,
		player:is_touching_ground() and 1 or 0,
		player:is_in_liquid_stable() and 1 or 0,
		minetest.get_node_light(vector.offset(pos, 0, 1, 0)) or -1,
		loaded,
	}
	for _, ray in ipairs(RAYS) do
		local from = vector.offset(pos, 0, ray.height, 0)
		table.insert(facts, free_length(from, ahead(pos, yaw + ray.yaw, RAY_LENGTH, ray.height)))
	end
	for _, distance in ipairs(DROPS) do
		local from = ahead(pos, yaw, distance, 1.2)
		table.insert(facts, free_length(from, vector.offset(from, 0, -1.2 - DROP_LENGTH, 0)) - 1.2)
	end
	for i, number in ipairs(facts) do
		facts[i] = string.format("%.9g", number)
	end
	minetest.log("action", "POSE " .. table.concat(facts, " "))
end)
