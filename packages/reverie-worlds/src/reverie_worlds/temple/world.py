"""An endless run over ruined causeways high above a river, dunes, ice or lava, as a World of its own.

The runner runs by itself and slowly gains speed.  Held keys: `left`, `right` lean to the side of the way and back to
its middle when let go; `jump`; `crouch` slides (in the air it dives); `turn-left`, `turn-right` take a corner, and are
remembered for a third of a second if they come early.  With no key held the runner runs on, into whatever comes first:
this game never stands still.  A low wall makes the runner stumble.  Who falls, or runs into a beam, a pillar or the end
of the way, is seen to fall for a second; mist closes over the frame, and the run goes on behind that spot, without
`finished`.  Keys do nothing during a fall.

The track, the place and its light follow from reset's seed.  Metres; the pose is the camera's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import Action, ActionSpace, Frames, Geometry, Pose
from reverie_worlds.geometry import check_pose
from reverie_worlds.panda.renderer import RESOLUTION, Panda
from reverie_worlds.temple.biomes import BIOMES, varied
from reverie_worlds.temple.camera import BACK_M, UP_M, ChaseCamera
from reverie_worlds.temple.runner import MIN_SPEED, Runner, heading_deg
from reverie_worlds.temple.stage import Stage
from reverie_worlds.temple.track import LEAN, Leg, first_leg

FOV_DEG = 72.0
"""Horizontal field of view, degrees."""

ACTION_SPACE = ActionSpace(("left", "right", "jump", "crouch", "turn-left", "turn-right"), mouse=False)
STAND_REACH_M, STAND_TURN_DEG, STAND_BEFORE_M = 3.0, 50.0, 2.5
"""A runner stands on the track at most so far from where it is asked to, and at least so far before an obstacle."""

CORNERS_AHEAD = 4
"""So far ahead a capture of the track may look."""

MAPS = tuple(BIOMES)
HELDOUT_EVERY = 10
"""One track number in so many is never recorded for training."""


def track_number(seed: int, heldout: bool) -> int:
    """The track that `seed` stands for: numbers that end in 9 are held out, the others are for training."""
    if heldout:
        return seed * HELDOUT_EVERY + HELDOUT_EVERY - 1
    return seed // (HELDOUT_EVERY - 1) * HELDOUT_EVERY + seed % (HELDOUT_EVERY - 1)


def choose_maps(maps: tuple[str, ...] | None) -> tuple[str, ...]:
    """The places to play.  Raises WorldError for an unknown one, or none."""
    if maps is None:
        return MAPS
    if not maps:
        raise WorldError("temple needs at least one map, got none; leave maps out to play them all")
    for name in maps:
        if name not in BIOMES:
            raise WorldError(f"unknown temple map {name!r}; its maps are {', '.join(MAPS)}")
    return tuple(maps)


class TempleWorld:
    """An endless run.  `reset(seed)` alone decides the track, the place, the light and the runner.

    maps: places such as `jungle`; None for all.  heldout: run the held-out tracks, and only those.  place: the number
    of one track, with its light; seeds then decide the runner's pace alone.
    Raises WorldError if Panda3D is missing or cannot draw.
    """

    fov_deg = FOV_DEG
    pixel_aspect = 1.0
    action_space = ACTION_SPACE
    resolution = RESOLUTION
    block_frames = 1
    finished = False

    def __init__(
        self,
        maps: tuple[str, ...] | None = None,
        heldout: bool = False,
        resolution: tuple[int, int] = RESOLUTION,
        place: int | None = None,
    ) -> None:
        if place is not None and place < 0:
            raise WorldError(f"a place is 0 or more, got {place}")
        self.maps = choose_maps(tuple(maps) if maps is not None else None)
        self.heldout = heldout
        self.resolution = tuple(resolution)
        self.place = place
        self.map = ""
        self.episode_info: dict[str, Any] = {}
        self._runner: Runner | None = None
        self._looked: Pose | None = None
        self._camera = ChaseCamera()
        self._screen: Panda | None = Panda(
            resolution, fov_deg=FOV_DEG, supersample=1.5, shadow_px=1024, near_m=0.3, far_m=260.0
        )
        self._stage = Stage(self._screen)

    @property
    def pose(self) -> Pose:
        """The camera's pose `(6,)`, see `reverie.types.POSE_NAMES`."""
        if self._looked is not None:
            return self._looked.copy()
        camera = self._camera
        return np.array([*camera.position, camera.yaw % 360.0, camera.pitch, 0.0], np.float32)

    def geometry(self) -> Geometry:
        """Draws the depth of the last frame without the runner, and the mask of the runner and its shadow."""
        self._now()
        assert self._screen is not None
        return self._screen.geometry(self._stage.runner_nodes)

    @property
    def hints(self) -> Mapping[str, Any]:
        """Lists the obstacles ahead and the keys that answer them, see Runner.hints."""
        return self._now().hints()

    @property
    def score(self) -> Mapping[str, int]:
        """Coins, falls and stumbles since the reset."""
        runner = self._now()
        return {"coins": runner.coins, "deaths": runner.deaths, "stumbles": runner.stumbles}

    def look_from(self, pose: Pose) -> tuple[Frames, Geometry]:
        """Shows the track from `pose` without the runner, coins and motes: the frame `(1, H, W, 3)` and its geometry.

        The part of the track that is drawn is the one nearest to the pose.  The episode does not go on from there: call
        `reset` before the next `step`.
        """
        runner = self._now()
        assert self._screen is not None
        self._looked = np.array(check_pose(pose), np.float32)
        x, y = float(self._looked[0]), float(self._looked[1])
        leg, previous = min(self._legs_near(runner), key=lambda pair: _distance(pair[0], x, y))
        s = min(max(_along(leg, x, y), 0.0), leg.length)
        floor = leg.floor(s)
        place = Runner(leg, MIN_SPEED, s=s, z=floor, previous=previous)
        frame = self._stage.empty_picture(place, self._looked, leg.start[2] + floor)
        return frame, self._screen.geometry()

    def stand(self, pose: Pose) -> Frames:
        """Puts the runner on the track, in front of a camera at `pose`; `(1, H, W, 3)`.  See `types.PlaceableWorld`.

        The runner stands a little before what it would fall into or run into there, and runs on with the next step.
        """
        runner = self._now()
        if self._looked is not None:
            raise WorldError("stand after look_from; call reset(seed) first")
        x, y, _, yaw, _, _ = check_pose(pose)
        x, y = x + BACK_M * math.sin(math.radians(yaw)), y + BACK_M * math.cos(math.radians(yaw))
        legs = [pair for pair in self._legs_near(runner) if _turned_deg(pair[0], yaw) <= STAND_TURN_DEG]
        leg, previous = min(legs, key=lambda pair: _distance(pair[0], x, y), default=(runner.leg, None))
        if not legs or _distance(leg, x, y) > STAND_REACH_M:
            raise WorldError(f"there is no track at {x:.1f}, {y:.1f} that leads to {yaw % 360:.0f} degrees")
        s = min(max(_along(leg, x, y), 0.5), leg.length - STAND_BEFORE_M)
        for piece in sorted((one for one in leg.pieces if one.answer is not None), key=lambda one: -one.s0):
            if piece.s0 - STAND_BEFORE_M < s < piece.s1 + 0.5:
                s = max(piece.s0 - STAND_BEFORE_M, 0.5)
        aside = (x - leg.at(s)[0]) * leg.right[0] + (y - leg.at(s)[1]) * leg.right[1]
        self._runner = replace(
            runner, leg=leg, previous=previous, s=s, x=max(-LEAN, min(aside, LEAN)), z=leg.floor(s), climb=0.0,
            mode="run", mode_frames=0, slide_left=0, turn=0, turn_left=0, veil_left=0, tripped=None,
        )  # fmt: skip
        self._camera.snap(self._runner)
        return self._stage.picture(self._runner, self._camera)

    def standpoints(self, step_m: float, reach_m: float) -> npt.NDArray[np.float32]:
        """Places for a camera over the causeways round the runner, `(n, 3)` metres, as high as the runner's camera."""
        runner = self._now()
        if not (step_m > 0 and reach_m >= 0):
            raise WorldError(f"standpoints need a positive step and a reach, got {step_m:g} and {reach_m:g} m")
        x, y, _ = runner.place
        found = [
            leg.at(float(s), side * LEAN, leg.floor(float(s)) + UP_M)
            for leg, _ in self._legs_near(runner)
            for s in np.arange(0.0, leg.length, step_m)
            for side in (-1.0, 0.0, 1.0)
        ]
        places = np.array(found, np.float32)
        return places[np.abs(places[:, :2] - (x, y)).max(axis=1) <= reach_m]

    @staticmethod
    def _legs_near(runner: Runner) -> list[tuple[Leg, Leg | None]]:
        """The legs that `reset` or the run has brought into reach, each with the one before it: four corners on."""
        found: list[tuple[Leg, Leg | None]] = [(runner.leg, runner.previous)]
        if runner.previous is not None:
            found.append((runner.previous, None))
        last = found[:1]
        for _ in range(CORNERS_AHEAD):
            last = [(leg.child(way), leg) for leg, _ in last for way in leg.exits]
            found += last
        return found

    def reset(self, seed: int) -> Frames:
        """Begin the run that belongs to `seed`; `(1, H, W, 3)`.  Raises WorldError for a negative seed."""
        if seed < 0:
            raise WorldError(f"a seed is 0 or more, got {seed}")
        if self._screen is None:
            raise WorldError("the temple is closed; open the world again")
        track = track_number(seed if self.place is None else self.place, self.heldout)
        there = np.random.default_rng([track, 0x10])
        self.map = self.maps[int(there.integers(len(self.maps)))]
        biome = varied(BIOMES[self.map], there)
        rng = there if self.place is None else np.random.default_rng([seed, 0x11])
        self._runner = Runner(
            first_leg(track), MIN_SPEED + 4.0 * float(rng.random()) ** 2, stride=float(rng.random()) * 2
        )
        self._camera.snap(self._runner)
        self._looked = None
        light = biome.light
        self.episode_info = {
            "track": track,
            "sun_yaw_deg": round(light.sun_yaw_deg, 1),
            "sun_height_deg": round(light.sun_height_deg, 1),
            "clouds": round(light.clouds, 2),
            "fog_per_m": round(light.fog_per_m, 4),
        }
        if self.place is not None:
            self.episode_info["place"] = self.place
        self._stage.open(self._runner, biome, track)
        return self._stage.picture(self._runner, self._camera)

    def step(self, action: Action) -> Frames:
        """One frame under `action`, `(1, H, W, 3)`."""
        self.action_space.check(action)
        runner = self._now()
        if self._looked is not None:
            raise WorldError("step after look_from; call reset(seed) first")
        was_dying = runner.dying
        runner.step(action.keys)
        if was_dying and not runner.dying:  # hidden by the mist
            self._camera.snap(runner)
        else:
            self._camera.follow(runner)
        return self._stage.picture(runner, self._camera)

    def close(self) -> None:
        """Give the screen back; safe to call twice."""
        if self._screen is not None:
            self._stage.close()
            self._screen.close()
        self._screen, self._runner = None, None

    def _now(self) -> Runner:
        if self._runner is None:
            raise WorldError("step before reset; call reset(seed) first")
        return self._runner


def _along(leg: Leg, x: float, y: float) -> float:
    """Distance of (x, y) along a leg, metres from its start."""
    fx, fy = leg.forward
    return (x - leg.start[0]) * fx + (y - leg.start[1]) * fy


def _turned_deg(leg: Leg, yaw: float) -> float:
    """Degrees between a leg's direction and a yaw, 0 to 180."""
    return abs((yaw - heading_deg(leg) + 180.0) % 360.0 - 180.0)


def _distance(leg: Leg, x: float, y: float) -> float:
    """Metres over the ground from (x, y) to the middle line of a leg."""
    at = leg.at(min(max(_along(leg, x, y), 0.0), leg.length))
    return math.hypot(x - at[0], y - at[1])
