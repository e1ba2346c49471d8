"""Minetest's voxel worlds as a World: any map generator and seed, any time of day, in four weathers.

The game runs under the lock-step shim, with a mod on its server side, which carries out an order at each reset, and one
on its client side, which sends the pose (`minetest_mods/`).  It draws 448x256, averaged down to 224x128, with nothing
but the landscape in the frame: no hot bar, crosshair, outline or hand.  Episodes whose numbers share an eighth are
played in one running world, at places far apart, and a place is never seen with the marks of an earlier visit.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import Action, ActionSpace, Frames, Geometry, Pose
from reverie.worlds import guardian
from reverie_worlds.geometry import NO_BODY, check_pose, linear_depth, perspective, sample_cells
from reverie_worlds.lockstep import STEP_NS, LockstepGame
from reverie_worlds.minetest.scenery import Scenery, check_maps, choose_scenery
from reverie_worlds.shrink import Shrinker

RESOLUTION = (128, 224)
DRAWN = (192, 336)
"""(H, W) that the game draws, for smooth edges."""
FOV_DEG = 103.6
"""Horizontal: Minetest's own 72 degrees are those of the height."""

DEGREES_PER_PX = 0.05
"""Rotation for one pixel of mouse motion.  The rest of a rotation is carried to the next frame."""

MAX_PX = (DRAWN[1] // 2 - 2, DRAWN[0] // 2 - 2)
"""The mouse starts each frame in the middle of the window, and cannot leave it."""

CLIP_M = (0.1, 2000.0)
"""The game's clipping planes, metres."""

VIEW_RANGE = 48
"""Nodes; further away is fog.  The time that a frame takes grows with its square."""

EYE_HEIGHT = 1.47
STAIR_SMOOTHING = math.exp(-23 * STEP_NS * 1e-9)
"""The camera follows a player who goes up a step by this much of the way less in each frame."""

ACTION_SPACE = ActionSpace(("forward", "back", "left", "right", "jump", "crouch", "attack", "use"), mouse=True)
KEYS = {"forward": "w", "back": "s", "left": "a", "right": "d", "jump": "space", "crouch": "Shift_L"}
BUTTONS = {"attack": 1, "use": 3}

MODS = Path(__file__).parent / "mods"
NUM_RAYS, NUM_DROPS = 10, 2

EPOCH_S = 1_700_000_000
"""From this the clouds take their shapes."""

MAX_STARTS = 6
"""The game picks a port by chance, and ends if it is taken."""

JOIN_SECONDS = 90.0
ARRIVE_SECONDS = 180.0
AROUND_FRAMES = 10
SKY_FRAMES = 140
"""The colours of the sky go over to those of another weather by two hundredths a frame."""

MAX_SETTLE_FRAMES = 500
STILL_FRAMES = 12
STILL_LEVELS = 0.4
"""Water and leaves move a little; more change than this, of 255, and something is still being loaded."""

SETTLE_PAUSE_S = 0.01
LOAD_PAUSE_S = 0.03
"""Real time between frames while the map loads: it does so in other threads, which need the core."""

_SETTINGS = {
    "screen_w": DRAWN[1],
    "screen_h": DRAWN[0],
    "fps_max": 1000,
    "fps_max_unfocused": 1000,
    "vsync": "false",
    "pause_on_lost_focus": "false",
    "fov": 72,
    "mouse_sensitivity": DEGREES_PER_PX,
    "viewing_range": VIEW_RANGE,
    "fog_start": 0.5,
    "mip_map": "true",
    "leaves_style": "simple",  # the outsides of trees only: half the triangles of a forest
    "enable_shaders": "true",
    "enable_3d_clouds": "true",
    "cloud_radius": 10,
    "view_bobbing_amount": 0,
    "fall_bobbing_amount": 0,
    "node_highlighting": "none",
    "show_debug": "false",
    "enable_minimap": "false",
    "enable_sound": "false",
    "enable_damage": "false",
    "enable_weather": "false",
    "creative_mode": "false",
    "time_speed": 0,
    "enable_client_modding": "true",
    "free_move": "true",  # and noclip: of players with these privileges, who are held in the air
    "noclip": "true",
    "csm_restriction_flags": 0,
    "num_emerge_threads": 1,
    "max_block_send_distance": VIEW_RANGE // 16 + 2,
    "max_simultaneous_block_sends_per_client": 200,
    "server_map_save_interval": 1_000_000,
    "mg_flags": "nocaves,nodungeons,light,decorations,biomes,noores",
    "mgflat_spflags": "lakes,hills",
    "debug_log_level": "none",
}

_WORLD = """gameid = minetest
backend = dummy
player_backend = dummy
auth_backend = files
mod_storage_backend = dummy
load_mod_reverie_server = true
"""
"""The map is kept in memory."""


class MinetestWorld:
    """A walk through Minetest landscapes.

    `reset(seed)` alone decides world, light and weather, and where a place is looked for; the game does not grow the
    same trees each time, so that the place found is usually, not always, the same.

    maps: map generators (`v7`, `valleys`, `carpathian`, `flat`, `fractal`), or single worlds (`v7/1234`); None for all
    generators.  heldout: play only held-out worlds (seeds that ten divides).  place: the number of one place, with its
    world, light and weather; every episode begins there, in what earlier ones of the same process have built.
    Raises WorldError if the game is missing, does not start, or stops.
    """

    fov_deg = FOV_DEG
    pixel_aspect = 1.0
    finished = False
    action_space = ACTION_SPACE
    resolution = RESOLUTION
    block_frames = 1

    def __init__(self, maps: tuple[str, ...] | None = None, heldout: bool = False, place: int | None = None) -> None:
        self.maps = check_maps(tuple(maps) if maps is not None else None, heldout)
        self.heldout = heldout
        self.place = place
        self.scenery: Scenery | None = None
        self._game: LockstepGame | None = None
        self._visited: set[int] = set()
        self._orders = 0
        self._carry = (0.0, 0.0)
        self._is_explored = False
        self._shrink = Shrinker(RESOLUTION)

    @property
    def map(self) -> str:
        """The map generator of this episode."""
        return self.scenery.generator if self.scenery else ""

    @property
    def episode_info(self) -> dict[str, Any]:
        """World seed, time of day (`time` in words, `time_of_day` from 0 to 1, noon 0.5) and weather."""
        scenery = self._here()
        place = {} if self.place is None else {"place": self.place}
        return {
            "world_seed": scenery.world_seed,
            "time": scenery.time,
            "time_of_day": scenery.time_of_day,
            "weather": scenery.weather,
            **place,
        }

    @property
    def pose(self) -> Pose:
        """The camera's pose `(6,)`, see `reverie.types.POSE_NAMES`; a node is a metre."""
        self._here()
        x, height, z = self._feet or (0.0, 0.0, 0.0)
        yaw, pitch = np.degrees(self._look)  # the game counts from east to the left
        return np.array([x, z, height + self._eye_lift, (90.0 - yaw) % 360.0, pitch, 0.0], np.float32)

    def geometry(self) -> Geometry:
        """Reads the depth of the last frame; nothing of the player is drawn."""
        self._here()
        buffer = sample_cells(self._running().read_depth())
        return Geometry(linear_depth(buffer, perspective(*CLIP_M)), NO_BODY)

    @property
    def hints(self) -> Mapping[str, Any]:
        """Describes the landscape around the player, for a policy to steer by.

        knee, eye: free nodes (at most 12) at 60 and 30 degrees left, ahead, 30 and 60 right, at those heights.
        drop: how far down the ground is 1.5 and 3 nodes ahead (at most 8).  ground, liquid: the player stands, swims.
        light: 0 to 15.
        """
        self._here()
        half = NUM_RAYS // 2
        return {
            "knee": self._rays[:half],
            "eye": self._rays[half:NUM_RAYS],
            "drop": self._rays[NUM_RAYS:],
            "ground": self._on_ground,
            "liquid": self._in_liquid,
            "light": self._light,
        }

    def reset(self, seed: int) -> Frames:
        """Go to the world, place and light that belong to `seed`; `(1, H, W, 3)`."""
        scenery = choose_scenery(seed if self.place is None else self.place, self.maps, self.heldout)
        if not self._can_go_on(scenery):
            self._start(scenery)
        self.scenery, self._carry, self._is_explored = None, (0.0, 0.0), False
        self._visited.add(scenery.place_seed)
        self._arrive(scenery)
        self._settle()
        self.scenery = scenery
        return self._shrink(self._running().frame)[None]

    def step(self, action: Action) -> Frames:
        """One frame under `action`, `(1, H, W, 3)`."""
        self.action_space.check(action)
        self._now()
        keys = [KEYS[key] for key in KEYS if key in action.keys]
        buttons = [BUTTONS[key] for key in BUTTONS if key in action.keys]
        dx, dy = self._mouse_px(action.mouse)
        self._turn(dx, dy, keys, buttons)
        return self._shrink(self._running().frame)[None]

    def look_from(self, pose: Pose) -> tuple[Frames, Geometry]:
        """Shows the landscape from `pose`: the frame `(1, H, W, 3)` and its geometry.

        The player is held in the air there, without roll.  Takes about a second, for the map around must be drawn.  The
        episode does not go on from there: call `reset` before the next `step`.
        """
        x, y, z, yaw, pitch, _ = check_pose(pose)
        self._here()
        self._is_explored = True
        order = {"kind": "look", "x": x, "y": z - EYE_HEIGHT, "z": y, "yaw": -yaw, "pitch": -pitch}
        self._carry_out({**order, "range": VIEW_RANGE}, "the player could not be carried there")
        for _ in range(AROUND_FRAMES):  # until the server has begun to send what is in view
            self._idle(math.inf, "")
        self._wait_until_still(lambda: True, 0.05)
        return self._shrink(self._running().frame)[None], self.geometry()

    def standpoints(self, step_m: float, reach_m: float) -> npt.NDArray[np.float32]:
        """Places on a grid round the player's where one can stand, `(n, 3)` metres, at the height of the eyes."""
        if not (step_m > 0 and reach_m >= 0):
            raise WorldError(f"standpoints need a positive step and a reach, got {step_m:g} and {reach_m:g} m")
        self._here()
        east, height, north = (math.floor(number + 0.5) for number in self._feet or (0.0, 0.0, 0.0))
        across = [round(number) for number in np.arange(-reach_m, reach_m + step_m / 2, step_m)]
        points = [(a, b) for a in across for b in across]
        order = {"kind": "ground", "x": east, "y": height, "z": north, "reach": math.ceil(reach_m) + 1}
        heights = self._carry_out({**order, "points": points}, "the ground was not told")["heights"]
        found = [
            (east + a, north + b, feet + EYE_HEIGHT)
            for (a, b), feet in zip(points, heights, strict=True)
            if feet is not False
        ]
        return np.array(found, np.float32).reshape(-1, 3)

    def close(self) -> None:
        """End the game; safe to call twice."""
        if self._game is not None:
            self._game.close()
            self._log.close()
        self._game, self.scenery = None, None

    def _here(self) -> Scenery:
        """The scenery of the episode, explored or not."""
        if self.scenery is None:
            raise WorldError("step before reset; call reset(seed) first")
        return self.scenery

    def _now(self) -> Scenery:
        if self._is_explored:
            raise WorldError("step after look_from; call reset(seed) first")
        return self._here()

    def _running(self) -> LockstepGame:
        assert self._game is not None
        return self._game

    def _mouse_px(self, turn: tuple[float, float]) -> tuple[int, int]:
        """(pitch, yaw) in degrees to whole pixels right and down; the remainders wait for the next frame."""
        pitch, yaw = turn[0] + self._carry[0], turn[1] + self._carry[1]
        dx, dy = round(yaw / DEGREES_PER_PX), round(-pitch / DEGREES_PER_PX)
        self._carry = (pitch + dy * DEGREES_PER_PX, yaw - dx * DEGREES_PER_PX)
        return dx, dy

    def _turn(self, dx: int, dy: int, keys: Sequence[str] = (), buttons: Sequence[int] = ()) -> None:
        """One frame.  A turn too wide for the window is made in several rendered frames within the frame's time."""
        parts = max(1, math.ceil(abs(dx) / MAX_PX[0]), math.ceil(abs(dy) / MAX_PX[1]))
        for part in range(parts):
            share = (_part(dx, part, parts), _part(dy, part, parts))
            self._advance(keys, share, buttons, STEP_NS // parts)

    def _can_go_on(self, scenery: Scenery) -> bool:
        """The running game has this world, and the place is untouched, or the only one that is asked for."""
        if self._game is None or (self.place is None and scenery.place_seed in self._visited):
            return False
        return self._world == (scenery.generator, scenery.world_seed)

    def _start(self, scenery: Scenery) -> None:
        """Start the game in the world of `scenery`, and wait until the player has joined."""
        self.close()
        for attempt in range(MAX_STARTS):
            try:
                self._start_once(scenery)
                return
            except WorldError as error:
                if "Failed to bind" not in str(error) or attempt == MAX_STARTS - 1:
                    raise

    def _start_once(self, scenery: Scenery) -> None:
        home = guardian.make_folder("reverie-minetest-")
        self._world_folder = _write_home(home, scenery)
        command = ["minetest", "--go", "--gameid", "minetest", "--config", str(home / "minetest.conf")]
        command += ["--world", str(self._world_folder)]
        env = {"MESA_SHADER_CACHE_DIR": str(_shader_cache()), "LOCKSTEP_TIME_S": str(EPOCH_S)}
        height, width = DRAWN
        self._game = LockstepGame(
            command,
            (width, height),
            home=home,
            env=env,
            matrices=False,
            log_chatter="POSE ",
            epoch_s=EPOCH_S + secrets.randbelow(10_000_000),  # the game takes the number of its port from this
        )
        self._log = LogReader(self._game.log)
        self._world = (scenery.generator, scenery.world_seed)
        self._visited.clear()
        self._feet: tuple[float, float, float] | None = None
        self._eye_lift = EYE_HEIGHT
        self._answer: dict[str, Any] = {}
        until = time.monotonic() + JOIN_SECONDS
        while self._feet is None:
            self._idle(until, "the player did not join the game")

    def _arrive(self, scenery: Scenery) -> None:
        """Have the server mod carry the player to a good spot."""
        name = f"{scenery.generator}/{scenery.world_seed}"
        self._carry_out(scenery.order(self._orders + 1, VIEW_RANGE), f"no spot was found in world {name}")
        if "error" in self._answer:
            error = self._answer["error"]
            self.close()
            raise WorldError(f"minetest: {error} of {scenery.generator}/{scenery.world_seed}; choose another seed")

    def _carry_out(self, order: Mapping[str, Any], complaint: str) -> dict[str, Any]:
        """Have the server mod carry out an order: its answer.  Raises WorldError with `complaint` if none comes."""
        self._orders += 1
        scratch = self._world_folder / "order.json.part"
        scratch.write_text(json.dumps({**order, "id": self._orders}))
        os.replace(scratch, self._world_folder / "order.json")
        until = time.monotonic() + ARRIVE_SECONDS
        while self._answer.get("order") != self._orders:
            self._idle(until, complaint)
        return self._answer

    def _settle(self) -> None:
        """Wait until the player stands there, and the landscape all around is loaded, drawn and lit."""
        for _ in range(4):  # the server sends what is in view
            self._turn(round(90.0 / DEGREES_PER_PX), 0)
            for _ in range(AROUND_FRAMES):
                self._idle(math.inf, "")
        for _ in range(SKY_FRAMES):
            self._idle(math.inf, "", 0.0)
        self._wait_until_still(lambda: self._on_ground, 2.0)

    def _wait_until_still(self, is_fine: Callable[[], bool], away_m: float) -> None:
        """Wait until the player is where the server mod put it, and what is seen is loaded and drawn."""
        answer, still, known = self._answer, 0, -1
        for _ in range(MAX_SETTLE_FRAMES):
            before = self._running().frame
            self._idle(math.inf, "", SETTLE_PAUSE_S, blind=False)
            x, y, z = self._feet or (0.0, 0.0, 0.0)
            there = math.dist((x, y, z), (answer["x"], answer["y"], answer["z"])) < away_m and is_fine()
            changed = np.abs(self._running().frame.astype(np.int16) - before).mean()
            still = still + 1 if there and self._loaded == known and changed < STILL_LEVELS else 0
            known = self._loaded
            if still >= STILL_FRAMES:
                return

    def _idle(self, until: float, complaint: str, pause_s: float = LOAD_PAUSE_S, blind: bool = True) -> None:
        """One frame of nothing, with real time for what the game does in other threads."""
        if time.monotonic() > until:
            log = self._running().log_text()[-300:].replace("\n", " | ")
            self.close()
            raise WorldError(f"minetest: {complaint}; {log}")
        self._advance(blind=blind)
        if pause_s:
            time.sleep(pause_s)

    def _advance(
        self,
        keys: Sequence[str] = (),
        mouse_px: tuple[int, int] = (0, 0),
        buttons: Sequence[int] = (),
        dt_ns: int = STEP_NS,
        blind: bool = False,
    ) -> None:
        game = self._running()
        try:
            game.step(keys, mouse_px, buttons, dt_ns=dt_ns, blind=blind)
        except WorldError:
            self.close()
            raise
        for line in self._log.lines():
            _, mark, text = line.partition("POSE ")
            if mark:
                self._take_pose([float(number) for number in text.split()], dt_ns)
            elif (at := line.find("REVERIE {")) >= 0:
                self._answer = json.loads(line[at + len("REVERIE ") :])

    def _take_pose(self, numbers: list[float], dt_ns: int) -> None:
        if len(numbers) != 12 + NUM_RAYS + NUM_DROPS:
            raise WorldError(f"minetest: the client mod told {len(numbers)} numbers, expected 24; is the mod changed?")
        x, y, z, yaw, pitch, *self._eye_before, ground, liquid, light, loaded = numbers[:12]
        before = self._feet[1] + self._eye_lift - EYE_HEIGHT if self._feet else y
        self._feet, self._look = (x, y, z), (yaw, pitch)
        self._on_ground, self._in_liquid = ground > 0, liquid > 0
        self._light, self._loaded = int(light), int(loaded)
        self._rays = numbers[12:]
        # as Minetest's Camera::update: a step up is climbed smoothly
        behind = math.exp(-23 * dt_ns * 1e-9) * (y - before) if self._on_ground and y > before else 0.0
        self._eye_lift = EYE_HEIGHT - behind


class LogReader:
    """The lines that a growing file has got since the last look."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._rest = b""

    def close(self) -> None:
        self._file.close()

    def lines(self) -> list[str]:
        """Whole lines only."""
        *whole, self._rest = (self._rest + (self._file.read() or b"")).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


def _part(whole: int, index: int, count: int) -> int:
    """Share number `index` of `count` whole shares that make up `whole`."""
    return whole * (index + 1) // count - whole * index // count


def _write_home(home: Path, scenery: Scenery) -> Path:
    """Everything that the game reads, in the folder `home`; returns the world's folder."""
    world = home / "world"
    shutil.copytree(MODS / "server", world / "worldmods" / "reverie_server")
    (world / "world.mt").write_text(_WORLD)
    client = home / ".minetest" / "clientmods"
    shutil.copytree(MODS / "client", client / "reverie_client")
    (client / "mods.conf").write_text("load_mod_reverie_client = true\n")
    settings = _SETTINGS | {"mg_name": scenery.generator, "fixed_map_seed": scenery.world_seed}
    (home / "minetest.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    return world


def _shader_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesa_shader_cache"
