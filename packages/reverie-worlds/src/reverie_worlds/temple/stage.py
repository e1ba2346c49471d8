"""The stage of the temple world: builds the legs in sight, draws runner, coins, fire, air, abyss and far mountains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reverie.types import Frames, Pose
from reverie_worlds.panda.renderer import Panda, import_panda
from reverie_worlds.temple import effects, shaders
from reverie_worlds.temple.biomes import Biome
from reverie_worlds.temple.camera import ChaseCamera, StillCamera
from reverie_worlds.temple.figure import OUTFITS, Figure
from reverie_worlds.temple.mesh import VERTEX, Drawn, Floats, Shapes, bake_torches, quad_indices
from reverie_worlds.temple.runner import Runner
from reverie_worlds.temple.scenery import build_leg, torches
from reverie_worlds.temple.textures import make_array_texture, make_layers
from reverie_worlds.temple.track import Leg

SHADOW_RADIUS_M = 30.0
SHADOW_STEP_M = 8.0
"""The shadow map is drawn again when the runner has come so far."""

FLAMES_SEEN_M = 55.0
COINS_SEEN_M = 48.0
BRANCH_SEEN_M = 25.0
"""The way not taken stays until the runner is so far from its corner."""

ABYSS_TILE_M = 11.0


class LegOnStage:
    """A leg's node, and what of it moves: flames and coins in the world's axes."""

    def __init__(self, leg: Leg, biome: Biome, first: bool, parent: Any, cutout: Any) -> None:
        core = import_panda()
        stretches = build_leg(leg, biome, first)
        spots = torches(stretches)
        self.node = core.NodePath("leg")
        for stretch in stretches:
            solid, leaves = stretch.solid.vertices, stretch.leaves.vertices
            bake_torches(solid, spots)
            bake_torches(leaves, spots)
            Drawn("solid", solid, stretch.solid.indices).path.reparentTo(self.node)
            if len(leaves):
                path = Drawn("leaves", leaves, stretch.leaves.indices).path
                path.setShader(cutout)
                path.setTwoSided(True)
                path.reparentTo(self.node)
        self.node.setPosHpr(*leg.start, -90.0 * leg.heading, 0, 0)
        self.node.reparentTo(parent)
        flames = [(*leg.at(s, x, z), size, jet) for stretch in stretches for x, s, z, size, jet in stretch.flames]
        self.flames = np.array(flames, np.float32).reshape(-1, 5)
        self.coins = np.array([leg.at(c.s, c.x, c.z) for c in leg.coins], np.float32).reshape(-1, 3)


class Stage:
    """Draws the world of one Panda screen; `open` begins an episode, `picture` shows the runner as it is."""

    def __init__(self, screen: Panda) -> None:
        self._screen = screen
        core = import_panda()

        def compiled(vertex: str, fragment: str, name: str = "") -> Any:
            define = f"#version 330\n#define {name}\n" if name else "#version 330\n"
            sources = [source.replace("#version 330\n", define, 1) for source in (vertex, fragment)]
            return core.Shader.make(core.Shader.SLGLSL, *sources)

        bins = core.CullBinManager.getGlobalPtr()
        if bins.findBin("near_first") < 0:
            bins.addBin("near_first", core.CullBinManager.BTFrontToBack, 15)
        self._lit = compiled(shaders.LIT_VERTEX, shaders.LIT_FRAGMENT)
        self._cutout = compiled(shaders.LIT_VERTEX, shaders.LIT_FRAGMENT, "CUTOUT")
        self._abyss_shader = compiled(shaders.ABYSS_VERTEX, shaders.ABYSS_FRAGMENT)
        self._glow_shader = compiled(shaders.GLOW_VERTEX, shaders.GLOW_FRAGMENT)
        self._mountain_shader = compiled(shaders.MOUNTAIN_VERTEX, shaders.MOUNTAIN_FRAGMENT)
        self._scene: Any = None
        self._materials: dict[tuple[str, float], Any] = {}
        self._legs: dict[int, LegOnStage] = {}

    def open(self, runner: Runner, biome: Biome, seed: int) -> None:
        """Build the place for a runner who is about to start."""
        self._clear()
        rng = np.random.default_rng([seed, 0x57A6E])
        self._biome, self._time_s, self._sparks = biome, 0.0, []
        screen = self._screen
        screen.set_light(biome.light)
        self._scene = screen.root.attachNewNode("scene")
        self._scene.setShader(self._lit)
        self._scene.setBin("near_first", 0)  # what is hidden is not worked out
        self._scene.setShaderInput(
            "materials", make_array_texture(make_layers(rng, biome.moss, biome.mossy, biome.abyss))
        )
        self._scene.setShaderInput("mist", (*biome.mist, biome.mist_per_m))
        self._scene.setShaderInput("torch", (*biome.torch, 1.0))
        self._figure = Figure(OUTFITS[int(rng.integers(len(OUTFITS)))])
        self._figure.reset(runner)
        self._coins = effects.CoinBatch()
        self._air = effects.Air(rng, biome.air)
        self._make_movers()
        self._make_far(rng)
        self._shadow_at = (math.inf, math.inf)
        self._first = runner.leg.seed
        self._sync_legs(runner)

    def close(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._legs = {}
        if self._scene is not None:
            self._scene.removeNode()
        self._scene = None

    def picture(self, runner: Runner, camera: ChaseCamera) -> Frames:
        """The frame, `(1, H, W, 3)`; moves what moves by itself by one frame."""
        self._time_s += 0.04
        self._sync_legs(runner)
        self._place(camera)
        self._draw_runner(runner)
        self._draw_coins(runner)
        self._draw_glows(runner, camera)
        self._shadows(runner)
        picture = self._screen.render()
        return self._veil(picture, runner.veil) if runner.veil > 0 else picture

    @property
    def runner_nodes(self) -> list[Any]:
        """The nodes of the runner and its shadow."""
        return [self._runner_node.path, self._shadow_node.path]

    def empty_picture(self, place: Runner, pose: Pose, base_z: float) -> Frames:
        """The frame from `pose` without the runner, coins and motes, `(1, H, W, 3)`.

        place: a runner that stands on the leg that is looked at; base_z: height of the floor there, metres.
        """
        for drawn in (self._runner_node, self._shadow_node, self._coin_node, self._mote_node):
            drawn.path.hide()
        x, y, z, yaw, pitch, roll = (float(number) for number in pose)
        camera = StillCamera((x, y, z), yaw, pitch, base_z)
        self._sync_legs(place)
        self._place(camera)
        self._screen.place_camera(camera.position, yaw, pitch, roll)
        self._draw_glows(place, camera)
        self._shadows(place)
        return self._screen.render()

    # -- set-up

    def _make_movers(self) -> None:
        """The nodes whose vertices are new in each frame."""
        core, scene = import_panda(), self._scene
        blank = np.zeros(self._figure.num_vertices, VERTEX)
        self._runner_node = Drawn("runner", blank, self._figure.indices, moves=True)
        self._shadow_node = Drawn("shadow", blank, self._figure.indices, moves=True)
        self._coin_node = Drawn("coins", self._coins.vertices.reshape(-1), self._coins.indices, moves=True)
        self._glows = effects.Quads(effects.MAX_GLOWS, "flame")
        self._motes = effects.Quads(effects.MAX_MOTES, "blob")
        self._glow_node = Drawn("glows", self._glows.end(), quad_indices(effects.MAX_GLOWS), moves=True)
        self._mote_node = Drawn("motes", self._motes.end(), quad_indices(effects.MAX_MOTES), moves=True)
        for drawn in (self._runner_node, self._shadow_node, self._coin_node, self._glow_node, self._mote_node):
            drawn.path.reparentTo(scene)
            self._screen.cast_no_shadow(drawn.path)
        blend = core.ColorBlendAttrib
        bright = self._biome.air in ("embers", "fireflies")
        for drawn, adds, order in (
            (self._shadow_node, False, 5),
            (self._mote_node, bright, 20),
            (self._glow_node, True, 30),
        ):
            path = drawn.path
            path.setShader(self._glow_shader)
            if adds:
                path.setAttrib(blend.make(blend.MAdd, blend.OIncomingAlpha, blend.OOne))
            else:
                path.setTransparency(core.TransparencyAttrib.MAlpha)
            path.setBin("fixed", order)
            path.setDepthWrite(drawn is self._shadow_node)

    def _make_far(self, rng: np.random.Generator) -> None:
        """The abyss below and the mountains around; both move along with the camera."""
        shapes = Shapes(rng)
        size = 230.0
        corners = [(-size, -size, 0), (size, -size, 0), (size, size, 0), (-size, size, 0)]
        shapes.add(corners, (0, 0, 1), (1, 1, 1), np.zeros((4, 2)), "abyss", [0, 1, 2, 0, 2, 3])
        self._abyss = Drawn("abyss", shapes.vertices, shapes.indices, moves=True).path
        self._abyss.setShader(self._abyss_shader)
        self._abyss.setBin("fixed", -5)
        light = self._biome.light
        level = (
            np.array(light.sun) * light.sun_direction[2] * 0.8
            + 0.5 * np.array(light.zenith)
            + 0.5 * np.array(light.horizon)
        )
        thin = math.exp(-0.45 * self._biome.depth_m * self._biome.mist_per_m)
        self._abyss.setShaderInput("abyss_light", (*(float(c) for c in level), thin))
        self._mountains = _mountains(rng)
        self._mountains.setShader(self._mountain_shader)
        rock = np.array(self._biome.rock) ** 2 * (np.array(light.zenith) + 0.25 * np.array(light.sun))
        self._mountains.setShaderInput("ridge", (*(float(c) for c in rock * 0.7), 0.42))
        self._mountains.setTwoSided(True)
        for node in (self._abyss, self._mountains):
            node.reparentTo(self._scene)
            self._screen.cast_no_shadow(node)

    def _sync_legs(self, runner: Runner) -> None:
        """Build what comes into reach, drop what is behind."""
        wanted = [runner.previous] if runner.previous else []
        if runner.previous and runner.s < BRANCH_SEEN_M:
            wanted += runner.previous.children.values()
        wanted.append(runner.leg)
        for way in runner.leg.exits:
            child = runner.leg.child(way)
            wanted += [child, *(child.child(turn) for turn in child.exits)]
        keep = {leg.seed: leg for leg in wanted}
        for seed in [seed for seed in self._legs if seed not in keep]:
            self._legs.pop(seed).node.removeNode()
        for seed, leg in keep.items():
            if seed not in self._legs:
                self._legs[seed] = LegOnStage(leg, self._biome, seed == self._first, self._scene, self._cutout)
                self._shadow_at = (math.inf, math.inf)

    # -- each frame

    def _place(self, camera: ChaseCamera | StillCamera) -> None:
        x, y, _ = camera.position
        biome, base = self._biome, camera.base_z
        self._screen.place_camera(camera.position, camera.yaw, camera.pitch)
        self._screen.drift_clouds(0.0015 * self._time_s, 0.0008 * self._time_s)
        self._scene.setShaderInput("place", (base - 1.2, 0.0, 0.0, 0.0))
        flow = [speed * self._time_s for speed in biome.drift]
        gloss = {"water": 0.75, "ice": 0.35}.get(biome.abyss, 0.0)
        self._abyss.setShaderInput("flow", (*flow, ABYSS_TILE_M, gloss))
        self._abyss.setPos(x, y, base - biome.depth_m)
        self._mountains.setPos(x, y, base - 8.0)

    def _draw_runner(self, runner: Runner) -> None:
        body, shadow = self._figure.pose(runner, self._biome.light.sun_direction)
        self._runner_node.update(body)
        self._shadow_node.update(shadow)

    def _draw_coins(self, runner: Runner) -> None:
        places = []
        here = np.array(runner.place[:2], np.float32)
        for seed, leg in self._legs.items():
            near = np.abs(leg.coins[:, :2] - here).max(axis=1, initial=0.0) < COINS_SEEN_M if len(leg.coins) else []
            places += [leg.coins[i] for i in np.flatnonzero(near) if (seed, int(i)) not in runner.collected]
        array = np.array(places, np.float32).reshape(-1, 3)
        order = np.argsort(np.abs(array[:, :2] - here).sum(1), kind="stable")
        self._coin_node.update(self._coins.place(array[order], self._time_s))

    def _draw_glows(self, runner: Runner, camera: ChaseCamera | StillCamera) -> None:
        yaw = math.radians(camera.yaw)
        right = np.array([math.cos(yaw), -math.sin(yaw), 0.0], np.float32)
        up = np.array([0.0, 0.0, 1.0], np.float32)
        eye = np.array(camera.position, np.float32)
        ahead = np.array([math.sin(yaw), math.cos(yaw), 0.0], np.float32)
        self._motes.begin(right, up)
        self._air.put(self._motes, (eye + 6.0 * ahead).astype(np.float32), self._time_s)
        self._mote_node.update(self._motes.end())
        self._glows.begin(right, up)
        self._sparks = [(x, y, z, age + 1) for x, y, z, age in self._sparks if age < 5]
        self._sparks += [(*place, 0) for place in runner.picked]
        if self._sparks:
            places, sizes, colours = effects.sparks(self._sparks)
            self._glows.put(places, sizes, sizes, colours, "blob")
        effects.put_flames(self._glows, self._flames_near(eye), self._time_s)
        self._glow_node.update(self._glows.end())

    def _flames_near(self, eye: Floats) -> Floats:
        flames = np.concatenate([leg.flames for leg in self._legs.values()])
        away = np.linalg.norm(flames[:, :3] - eye, axis=1)
        order = np.argsort(away, kind="stable")
        return flames[order[away[order] < FLAMES_SEEN_M]][:50]

    def _shadows(self, runner: Runner) -> None:
        x, y, z = runner.place
        if math.dist((x, y), self._shadow_at) < SHADOW_STEP_M:
            return
        self._shadow_at = (x, y)
        fx, fy = runner.leg.forward
        self._screen.cast_shadows((x + 20.0 * fx, y + 20.0 * fy, z), SHADOW_RADIUS_M)

    def _veil(self, picture: Frames, share: float) -> Frames:
        """Mist closes over the frame."""
        light = self._biome.light
        linear = (0.5 * np.array(self._biome.mist) + 0.5 * np.array(light.horizon)) * light.exposure
        colour = 255.0 * np.sqrt(np.clip(linear, 0, 1))
        return (picture * (1.0 - share) + colour * share + 0.5).astype(np.uint8)


def _mountains(rng: np.random.Generator) -> Any:
    """Two ridges of mountains on the horizon, as a ring of quads; a vertex's red is how solid it is."""
    shapes = Shapes(rng)
    count = 72
    angle = 2 * np.pi * np.arange(count + 1) / count
    for radius, high, solid in ((225.0, 62.0, 0.55), (185.0, 34.0, 1.0)):
        rise = np.zeros(count + 1)
        for waves in (3, 7, 13, 29):
            rise += np.sin(waves * angle + rng.uniform(0, 6.28)) / waves**0.7
        tall = high * np.clip(0.55 + 0.42 * rise, 0.08, None)
        around = np.stack([np.cos(angle), np.sin(angle)], 1) * radius
        low = np.column_stack([around, np.full(count + 1, -10.0)])
        top = np.column_stack([around, tall])
        i = np.arange(count)
        a, b = i, i + 1
        triangles = np.stack([a, b, b + count + 1, a, b + count + 1, a + count + 1], 1)
        shade = np.repeat([0.25 * solid, solid], count + 1)[:, None] * np.ones(3)
        shapes.add(np.concatenate([low, top]), (0, 0, 1), shade, np.zeros((2 * count + 2, 2)), "plain", triangles)
    return Drawn("mountains", shapes.vertices, shapes.indices, moves=True).path
