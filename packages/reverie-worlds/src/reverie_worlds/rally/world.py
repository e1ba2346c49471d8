"""Driving over natural terrain: the tracks of Trigger Rally as a World, in lock-step.

Each episode gets a level file of its own: a track's terrain, a weather, a start on its line or elsewhere on its roads,
and no checkpoints, so that no race ends and no rings are drawn.  The game is kept running; a reset rewrites the file
and starts the race again, and what is left of the menus is one key.  All files lie in a private folder that the game
searches before its own data: there the other tracks are hidden (it starts in half a second then) and all cars but one.

The game's axes are x east, y north, z up, in metres.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import Action, ActionSpace, Frames, Geometry, Pose
from reverie.worlds import guardian
from reverie_worlds.geometry import camera_pose, cell_points, linear_depth, sample_cells
from reverie_worlds.lockstep import STEP_NS, LockstepGame
from reverie_worlds.rally.tracks import LEVEL_NAME, GameData, Route, Track, level_xml
from reverie_worlds.shrink import Shrinker

RESOLUTION = (128, 224)
"""(H, W) of the frames."""

FOV_DEG = 92.8
"""Horizontal field of view, degrees: 2 atan(0.6 * 224 / 128)."""

KEYS = {"forward": "Up", "back": "Down", "left": "Left", "right": "Right", "handbrake": "space"}
"""Our names of keys and the game's."""

ACTION_SPACE = ActionSpace(tuple(KEYS), mouse=False)

VIEWS = {"chase": 0, "bonnet": 3}
"""Presses of the camera key for each view."""

CAR_FROM_CAMERA = {"chase": (0.0, -1.6, -5.0), "bonnet": (0.0, -0.85, 0.0)}
"""Position of the car relative to the camera: right, up, back, metres."""

DEPTH_RANGE = np.float32(0.999)
"""The part of the depth buffer that the land and the car take; the sky lies behind it."""

CAR_BOX = {
    "chase": ((-1.35, -2.05, 2.7), (1.35, -0.3, 7.6)),
    "bonnet": ((-1.35, -1.2, 0.0), (1.35, -0.3, 2.2)),
}
"""The box that holds the car: its two corners right, up and ahead of the camera, metres."""

DRAWN = (192, 336)
"""(H, W) that the game draws; averaged down, so that leaves shimmer less."""

TILE_M = 64.0
"""The ground is drawn for three tiles of about this size in each direction; the game draws them all, visible or not."""

OWN_WEATHER = 0.7
"""The share of episodes with their track's own weather; the others have another track's."""

OWN_START = 0.35
"""The share of episodes that begin at their track's start; the others begin at a corner of it."""

LONG_NS = 150_000_000
"""The game takes a step of more than 100 ms for one of exactly 100: so how long it loads makes no difference."""

COUNTDOWN_STEPS = 26
SETTLE_STEPS = 8
"""In the first three seconds the game ignores the player; then the car comes to rest and the camera behind it."""

MAX_LOAD_STEPS = 40
NEAR_START_M = 30.0
AHEAD_M = (8.0, 16.0, 30.0, 50.0, 80.0)
"""Distances along the route of the points in the hints, metres."""

STUCK_FRAMES = 125
STUCK_M = 1.5
STUCK_PUSHES = 0.7
"""An episode ends where the car has not come so far in so many frames with a pedal held for this part of them."""

LIFT_FRAMES = 12
LIFT_M = 0.3
"""The game lifts a car that lies on its roof straight up and turns it over, and ignores the player: an end too."""

DROWNED_FRAMES = 50
RACES_PER_PROCESS = 30
"""The game never unloads an image."""

BROKEN: dict[str, str] = {}
"""Tracks that are left out, with the reason."""


class TriggerRallyWorld:
    """A drive over one of the game's tracks.  `reset(seed)` alone decides track, car, weather and start.

    maps: names such as `maps/xing` or `events/02-alps/lake`; None for all of the split.  heldout: play only the
    held-out tracks.  view: `chase`, from behind the car, or `bonnet`.  place: a number that decides track, car and
    weather; seeds then decide the start alone.
    Raises WorldError if the game is missing or does not start, and for an unknown or refused track or view.
    """

    fov_deg = FOV_DEG
    pixel_aspect = 1.0
    action_space = ACTION_SPACE
    resolution = RESOLUTION
    block_frames = 1

    def __init__(
        self,
        maps: tuple[str, ...] | None = None,
        heldout: bool = False,
        view: str = "chase",
        place: int | None = None,
    ) -> None:
        if view not in VIEWS:
            raise WorldError(f"unknown view {view!r}; Trigger Rally has {', '.join(VIEWS)}")
        self._data = GameData()
        self.maps = choose_tracks(self._data.tracks, tuple(maps) if maps is not None else None, heldout)
        self.heldout = heldout
        self.view = view
        self.place = place
        self.map = ""
        self.episode_info: dict[str, Any] = {}
        self.finished = False
        self._seed = 0
        self._game: LockstepGame | None = None
        self._races = 0
        self._car = ""
        self._shrink = Shrinker(RESOLUTION)

    @property
    def pose(self) -> Pose:
        """The camera's pose `(6,)`, see `reverie.types.POSE_NAMES`."""
        camera = self._camera.astype(np.float64)
        return camera_pose(camera[:3, 3], camera[:3, 0], camera[:3, 1], -camera[:3, 2])

    def geometry(self) -> Geometry:
        """Reads the depth of the last frame; the body is the car, a box that the camera keeps at its distance."""
        if self._game is None or self._game.projection is None:
            raise WorldError("geometry before reset; call reset(seed) first")
        depth = linear_depth(sample_cells(self._game.read_depth()) / DEPTH_RANGE, self._game.projection)
        low, high = CAR_BOX[self.view]
        points = cell_points(depth, FOV_DEG)
        inside = (points > np.array(low)) & (points < np.array(high))
        return Geometry(depth, np.logical_and.reduce(inside, axis=-1))

    @property
    def camera(self) -> npt.NDArray[np.float32]:
        """Exact camera pose: `(4, 4)` float32 from its coordinates (right, up, back) to the world's."""
        return self._camera.copy()

    @property
    def hints(self) -> Mapping[str, Any]:
        """Describes the car and its route, for a policy to steer by.

        speed: m/s, negative backwards.  ahead: for each of AHEAD_M metres along the route, (angle, distance) of that
        point from the car: degrees to the right of its course, and metres.  off_route_m: distance from the route.
        """
        car, speed, course = self._motion()
        ways, off = self._route.ahead(float(car[0]), float(car[1]), AHEAD_M)
        angles = (np.degrees(np.arctan2(-ways[:, 1], ways[:, 0])) - course + 180.0) % 360.0 - 180.0
        return {"speed": speed, "ahead": np.stack([angles, np.hypot(*ways.T)], axis=1), "off_route_m": off}

    def reset(self, seed: int) -> Frames:
        """Go to the track, car, weather and start that belong to `seed`; `(1, H, W, 3)`."""
        rng = np.random.default_rng(seed)
        there = rng if self.place is None else np.random.default_rng(self.place)
        self._seed, self.finished = seed, False
        self.map = self.maps[int(there.integers(len(self.maps)))]
        track = self._data.tracks[self.map]
        car = str(there.choice(sorted(self._data.vehicles)))
        others = self._data.tracks[str(there.choice(sorted(self._data.tracks)))]
        weather = (track if there.random() < OWN_WEATHER else others).weather
        begin = None if rng.random() < OWN_START else int(rng.integers(1 << 16))
        self._route = Route(self._data, track, begin)
        self._route.plan(300.0)
        start = track.start() if begin is None else self._route.start()
        self.episode_info = {"car": car, "weather": describe(weather), "start": "line" if begin is None else "corner"}
        if self.place is not None:
            self.episode_info["place"] = self.place
        self._race(level_xml(track, start, weather, TILE_M), car, start)
        self._track: deque[npt.NDArray[np.float32]] = deque([self._car_place()], maxlen=STUCK_FRAMES)
        self._pushes: deque[bool] = deque(maxlen=STUCK_FRAMES)
        self._drowned = 0
        water = track.root.find("water")
        self._water_z = -math.inf if water is None else float(water.get("height", "0"))
        return self._picture()

    def step(self, action: Action) -> Frames:
        """One frame under `action`, `(1, H, W, 3)`.  Where the drive cannot go on, sets `finished` and starts again."""
        self.action_space.check(action)
        if self._game is None:
            raise WorldError("step before reset; call reset(seed) first")
        self.finished = False
        self._step(*(KEYS[key] for key in action.keys))
        if self._view_is_lost():
            self.close()
            raise WorldError(f"Trigger Rally left the race on {self.map}; reset to start it again")
        self._track.append(self._car_place())
        self._pushes.append(bool(action.keys & {"forward", "back"}))
        self._drowned = self._drowned + 1 if self._camera[2, 3] < self._water_z - 0.5 else 0
        if self._is_stuck() or self._is_lifted() or self._drowned > DROWNED_FRAMES:
            picture = self.reset(self._seed)
            self.finished = True
            return picture
        return self._picture()

    def close(self) -> None:
        """End the game's process; safe to call twice."""
        if self._game is not None:
            self._game.close()
        self._game, self._races = None, 0

    def _picture(self) -> Frames:
        return self._shrink(self._frame)[None]

    def _is_stuck(self) -> bool:
        if len(self._pushes) < STUCK_FRAMES or sum(self._pushes) < STUCK_PUSHES * STUCK_FRAMES:
            return False
        return float(np.ptp(np.array(self._track)[:, :2], axis=0).max()) < STUCK_M

    def _is_lifted(self) -> bool:
        if len(self._track) < LIFT_FRAMES or self._track[-1][2] - self._track[-LIFT_FRAMES][2] < LIFT_M:
            return False
        return float(np.ptp([place[:2] for place in list(self._track)[-LIFT_FRAMES:]], axis=0).max()) < 0.02

    def _motion(self) -> tuple[npt.NDArray[np.float32], float, float]:
        """Computes the car's position, speed (m/s, negative backwards) and course (degrees from east to the right)."""
        car, yaw = self._track[-1], float(self.pose[3]) - 90.0
        if len(self._track) < 2:
            return car, 0.0, yaw
        vx, vy = ((car - self._track[-2]) * 25.0)[:2]
        speed = math.hypot(vx, vy)
        ahead = math.cos(math.radians(yaw)) * vx - math.sin(math.radians(yaw)) * vy
        if speed < 2.0 or ahead < 0.0:
            return car, math.copysign(speed, ahead), yaw
        return car, speed, math.degrees(math.atan2(-vy, vx)) % 360.0

    def _car_place(self) -> npt.NDArray[np.float32]:
        """x, y, z of the car, which the camera keeps at a fixed distance."""
        camera = self._camera
        return (camera[:3, :3] @ np.array(CAR_FROM_CAMERA[self.view]) + camera[:3, 3]).astype(np.float32)

    def _view_is_lost(self) -> bool:
        return self._game is None or self._game.modelview is None

    def _step(self, *keys: str, dt_ns: int = STEP_NS, **mouse: Any) -> None:
        """One frame of the game.  A game that died is started again by the next reset."""
        assert self._game is not None
        try:
            self._frame = self._game.step(keys, dt_ns=dt_ns, **mouse)
        except WorldError:
            self.close()
            raise
        if self._game.modelview is not None:
            self._camera = np.linalg.inv(self._game.modelview)
            if not np.isfinite(self._camera).all():
                self.close()
                raise WorldError(f"Trigger Rally's camera on {self.map} is nowhere; reset to start it again")

    # ---- menus, all in lock-step ----

    def _race(self, level: str, car: str, start: tuple[float, float, float]) -> None:
        """Begin a race on `level` and let the countdown pass."""
        if self._races >= RACES_PER_PROCESS:
            self.close()
        is_new = self._game is None
        if is_new:
            self._start_game(level, car)
        else:
            self._write(LEVEL_NAME, level)
            self._choose_car(car)
            for keys in (("Escape",), (), ()):
                self._step(*keys)
            if not self._view_is_lost():
                self.close()
                raise WorldError("Trigger Rally did not leave the race at Escape; reset to start it again")
        self._enter_race(start)
        self._wait(COUNTDOWN_STEPS)
        for key in ("n", "m", *("c" * VIEWS[self.view])):  # as many steps in every race, for equal starts
            self._press(key) if is_new else self._wait(2)
        self._wait(SETTLE_STEPS)
        self._races += 1

    def _start_game(self, level: str, car: str) -> None:
        home = guardian.make_folder("reverie-trigger-rally-")
        self._files = home / "data" / "trigger-rally"
        for hidden in (*self._data.files(".level"), *self._data.files(".event"), *self._data.files(".vehicle")):
            self._write(hidden, "<none/>")
        height, width = DRAWN
        self._write("trigger-rally-0.6.6.1.config", config_xml(width, height))
        self._write(LEVEL_NAME, level)
        self._car = ""
        self._choose_car(car)
        env = {"XDG_DATA_HOME": str(home / "data"), "XDG_CONFIG_HOME": str(home / "config")}
        self._game = LockstepGame(["trigger-rally"], (width, height), env=env, home=home)
        self._wait(6)
        for place in SINGLE_RACE, FIRST_TRACK:
            self._click(place)

    def _enter_race(self, start: tuple[float, float, float]) -> None:
        """Press "race" and wait until the camera is at the start."""
        self._step("Return", dt_ns=LONG_NS)
        for _ in range(MAX_LOAD_STEPS):
            self._step(dt_ns=LONG_NS)
            if not self._view_is_lost():
                break
        else:
            assert self._game is not None
            lines = [line for line in self._game.log_text().splitlines() if "rror" in line or "fail" in line.lower()]
            self.close()
            why = lines[-1] if lines else "no message"
            raise WorldError(f"Trigger Rally shows a menu where {self.map} should begin: {why}; choose another track")
        if math.dist(self._camera[:2, 3], start[:2]) > NEAR_START_M:
            self.close()
            raise WorldError(f"Trigger Rally began {self.map} at another place than asked for; reset to start it again")

    def _wait(self, steps: int) -> None:
        for _ in range(steps):
            self._step(dt_ns=LONG_NS)

    def _press(self, key: str) -> None:
        """A key that changes the view, which the game keeps in later races."""
        before = self._frame.astype(np.int16)
        for keys in ((key,), ()):
            self._step(*keys, dt_ns=LONG_NS)
        if np.abs(self._frame - before).max() < 24:
            self.close()
            raise WorldError(f"Trigger Rally did not react to the key {key}; reset to start it again")

    def _click(self, place: tuple[int, int]) -> None:
        """Click at `place` in the menus' own units, 800 x 600 with y up, in the middle of the window."""
        assert self._game is not None
        width, height = self._game.render_size
        x, y = width / 2 + (place[0] - 400) / 600 * height, (600 - place[1]) / 600 * height
        self._step(move_to=(int(x), int(y)))
        for buttons in ((), (1,), (), ()):
            self._step(buttons=buttons)

    def _choose_car(self, car: str) -> None:
        """Leave one car to choose from: then the game does not ask."""
        if self._car:
            self._write(self._data.vehicles[self._car], "<none/>")
        text = self._data.read(self._data.vehicles[car]).decode("utf-8", "replace")
        self._write(self._data.vehicles[car], text.replace('locked="yes"', ""))
        self._car = car

    def _write(self, name: str, text: str) -> None:
        file = self._files / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


SINGLE_RACE, FIRST_TRACK = (400, 250), (140, 430)
"""Positions of the mouse clicks in the menus, pixels."""


def choose_tracks(tracks: Mapping[str, Track], maps: tuple[str, ...] | None, heldout: bool) -> tuple[str, ...]:
    """The tracks to play; one of the other split is refused.  Raises WorldError for unknown and refused tracks."""
    allowed = tuple(name for name, track in tracks.items() if track.is_heldout == heldout and name not in BROKEN)
    if maps is None:
        return allowed
    if not maps:
        raise WorldError("trigger-rally needs at least one track, got none; leave maps out to play them all")
    for name in maps:
        if name not in tracks:
            raise WorldError(f"unknown track {name!r}; tracks are named like maps/xing, events/02-alps/lake")
        if name in BROKEN:
            raise WorldError(f"{name} cannot be played: {BROKEN[name]}; choose another track")
        if name not in allowed:
            split = "training" if heldout else "held-out"
            raise WorldError(f"{name} is a {split} track; say heldout={not heldout} to play it")
    return maps


def describe(weather: Any) -> dict[str, Any]:
    """A weather in words and numbers: the sky's image, rain and snow (drops a second), how dense the fog is."""
    numbers = {"rain": "rain", "snow": "snowfall", "fog": "fogdensity"}
    return {"sky": Path(weather.get("cloudtexture", "blue")).stem} | {
        name: float(weather.get(key, "0.01" if name == "fog" else "0")) for name, key in numbers.items()
    }


def config_xml(width: int, height: int) -> str:
    """The game's settings: a window, no sound, everything that grows and falls, and only the keys that are used."""
    keys = {"n": "showui", "m": "showmap", "c": "cammode"}
    bindings = {f"SDLK_{name.upper()}": action for action, name in KEYS.items()}
    bindings |= {f"SDLK_{key}": action for key, action in keys.items()}
    controls = "".join(f'<key action="{action}" id="{key}" />' for key, action in bindings.items())
    return f"""<?xml version="1.0" ?>
<config>
  <player name="Player" copydefplayers="no" skipsaves="1000000" />
  <video automatic="no" width="{width}" height="{height}" fullscreen="no" requiredepth="yes" stereo="none" />
  <graphics anisotropy="off" foliage="yes" roadsigns="yes" weather="yes" snowflaketype="textured" dirteffect="yes" />
  <datadirectory><data path="/usr/share/games/trigger-rally" /></datadirectory>
  <parameters drivingassist="0.33" enablesound="no" enablecodriversigns="no" codriver="mime" codriversigns="" />
  <controls><keyboard enable="yes">{controls}</keyboard></controls>
</config>
"""
