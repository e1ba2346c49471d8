"""A player of Minetest: walks to far goals, hops up steps, swims ashore, digs, builds, looks around, rests.

It steers by what the client mod feels around it (`MinetestWorld.hints`), as a person would by looking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from reverie.data.policies import Seen
from reverie.types import Action

RAY_DEG = (-60.0, -30.0, 0.0, 30.0, 60.0)
"""Directions of the rays of the hints, degrees to the right of straight ahead."""

NEAR = 1.6
"""Nodes: what is so near ahead must be jumped or walked around."""

DEEP_DROP = 5.0
TURN_LIMIT = 6.0
FLICK_LIMIT = 10.0
PITCH_RATE = 3.0
"""Degrees a frame."""

STUCK_FRAMES = 16
STUCK_NODES = 0.35
DARK = 6

ACTIVITIES = ("walk", "strafe", "look", "rest", "dig", "build", "back", "sneak", "flick")
SHARES = np.array([0.48, 0.10, 0.13, 0.05, 0.04, 0.04, 0.06, 0.05, 0.05])


class MinetestPolicy:
    """Decides one Action a frame; everything follows from `seed` and from what it was shown."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._activity = "rest"
        self._left = int(self._rng.integers(6, 30))
        self._keys: set[str] = set()
        self._heading = 0.0
        self._has_heading = False
        self._heading_left = 0
        self._free_turn = 0.0
        self._turn = 0.0
        self._tilt = 0.0
        self._pitch_goal = -4.0
        self._pitch_left = 60
        self._jump_left = 0
        self._track: deque[tuple[float, float, float]] = deque(maxlen=STUCK_FRAMES)
        self._busy = 0
        self._stuck_count = 0
        self._wet = 0

    def act(self, seen: Seen) -> Action:
        """The action for the next frame."""
        if seen.pose is None:
            raise ValueError("MinetestPolicy steers by the pose, and there is none")
        x, y, z, yaw, pitch = (float(number) for number in seen.pose[:5])
        hints = seen.hints
        self._track.append((x, y, z))
        if not self._has_heading:
            self._heading, self._has_heading = yaw, True
        self._left -= 1
        self._busy = self._busy + 1 if self._keys & {"forward", "back", "left", "right"} else 0
        self._wet = self._wet + 1 if hints.get("liquid") else 0
        if self._is_stuck():
            self._recover(yaw, hints)
        elif self._wet and self._activity != "swim":
            self._begin("swim", {"forward"}, 400, 400)
        elif self._activity == "swim" and not self._wet:
            self._begin("walk", {"forward"}, 20, 50)
        elif self._left <= 0:
            self._choose(yaw, hints)
        keys = self._pressed(hints)
        return Action(frozenset(keys), (self._next_tilt(pitch), self._next_turn(yaw, hints)))

    # ---- what to do ----

    def _begin(self, activity: str, keys: set[str], shortest: int, longest: int) -> None:
        self._activity, self._keys = activity, keys
        self._left = int(self._rng.integers(shortest, longest + 1))
        self._free_turn = 0.0

    def _choose(self, yaw: float, hints: Mapping[str, Any]) -> None:
        """Another stretch of play."""
        rng = self._rng
        activity = str(rng.choice(ACTIVITIES, p=SHARES / SHARES.sum()))
        if _light(hints) < DARK or self._wet:
            activity = "walk"
        sign = 1.0 if rng.random() < 0.5 else -1.0
        if activity == "strafe":
            side = {"left"} if rng.random() < 0.5 else {"right"}
            self._begin(activity, side | ({"forward"} if rng.random() < 0.6 else set()), 12, 40)
            self._free_turn = float(rng.normal(0.0, 1.0))
        elif activity == "look":
            self._begin(activity, set() if rng.random() < 0.6 else {"forward"}, 20, 60)
            self._free_turn = sign * float(rng.uniform(1.0, 4.5))
            self._tilt_to(float(rng.uniform(-45.0, 35.0)), self._left)
        elif activity == "rest":
            self._begin(activity, set(), 20, 110)
        elif activity in ("dig", "build"):
            self._begin(activity, set(), 35, 60)
            self._tilt_to(float(rng.uniform(-48.0, -15.0)), self._left)
        elif activity == "back":
            self._begin(activity, {"back"}, 10, 30)
            self._free_turn = float(rng.normal(0.0, 1.0))
        elif activity == "sneak":
            self._begin(activity, {"forward", "crouch"}, 20, 50)
        elif activity == "flick":
            self._begin(activity, {"forward"} if rng.random() < 0.5 else set(), 6, 14)
            self._free_turn = sign * float(rng.uniform(TURN_LIMIT, FLICK_LIMIT))
        else:
            self._walk(yaw)

    def _walk(self, yaw: float) -> None:
        """Towards a far goal; now and then another one."""
        rng = self._rng
        self._begin("walk", {"forward"}, 40, 130)
        if self._heading_left <= 0 or rng.random() < 0.3:
            self._heading = yaw + float(rng.normal(0.0, 50.0))
            self._heading_left = int(rng.integers(150, 500))

    def _is_stuck(self) -> bool:
        """Keys were held for a while, and there was hardly any way."""
        if self._busy < STUCK_FRAMES or len(self._track) < STUCK_FRAMES:
            return False
        way = np.ptp(np.array(self._track), axis=0)
        return bool(way.max() < STUCK_NODES)

    def _recover(self, yaw: float, hints: Mapping[str, Any]) -> None:
        """Step back, or dig through; then go another way."""
        self._track.clear()
        self._stuck_count += 1
        rng = self._rng
        self._heading = yaw + float(rng.uniform(90.0, 270.0))
        self._heading_left = 150
        if self._stuck_count % 3 == 2 and not self._wet:
            self._begin("dig", {"forward"}, 30, 45)
            self._tilt_to(float(rng.uniform(-25.0, 5.0)), self._left)
        elif self._activity == "back":
            self._begin("walk", {"forward"}, 30, 60)
            self._jump_left = 8
        else:
            self._begin("back", {"back"}, 8, 14)
            self._free_turn = 4.0 if _room(hints, right=True) > _room(hints, right=False) else -4.0

    # ---- keys ----

    def _pressed(self, hints: Mapping[str, Any]) -> set[str]:
        keys = set(self._keys)
        knee, eye = hints.get("knee"), hints.get("eye")
        self._jump_left -= 1
        self._heading_left -= 1
        if self._wet:
            keys.add("jump")
        elif "forward" in keys and knee and eye and self._activity != "sneak":
            if knee[2] < NEAR and eye[2] > NEAR + 0.4 and self._jump_left < -4:
                self._jump_left = 4
            elif self._rng.random() < 0.004 and self._jump_left < -20:
                self._jump_left = int(self._rng.integers(2, 30))
        if self._jump_left > 0:
            keys.add("jump")
        if self._activity == "dig" and self._left > 6:
            keys.add("attack")
        if self._activity == "build" and self._left % 16 == 8:
            keys.add("use")
        return keys

    # ---- the mouse ----

    def _next_turn(self, yaw: float, hints: Mapping[str, Any]) -> float:
        goal = self._free_turn
        if self._activity in ("walk", "swim", "sneak"):
            goal = self._steer(yaw, hints)
        limit = FLICK_LIMIT if self._activity == "flick" else TURN_LIMIT
        self._turn += 0.3 * (float(np.clip(goal, -limit, limit)) - self._turn)
        if self._activity == "rest" or abs(self._turn) < 0.03:
            self._turn = 0.0 if abs(self._turn) < 0.3 else 0.6 * self._turn
        return _whole_pixels(self._turn)

    def _steer(self, yaw: float, hints: Mapping[str, Any]) -> float:
        """Bend towards the goal where the way is free; away from walls and drops."""
        away = (self._heading - yaw + 180.0) % 360.0 - 180.0
        goal = float(np.clip(0.06 * away, -2.5, 2.5))
        eye = hints.get("eye")
        if not eye:
            return goal
        drop = max(hints.get("drop", (0.0,)))
        if eye[2] < 3.5 or (drop > DEEP_DROP and not self._wet):
            scores = [min(free, 8.0) - 0.03 * abs(angle - away) for free, angle in zip(eye, RAY_DEG, strict=True)]
            if drop > DEEP_DROP:
                scores[2] = -8.0
            goal = 0.1 * RAY_DEG[int(np.argmax(scores))]
            if max(eye[1:4]) < 2.0:
                goal = TURN_LIMIT if eye[4] > eye[0] else -TURN_LIMIT
                self._heading = yaw + 15.0 * goal
        return goal

    def _tilt_to(self, pitch: float, frames: int) -> None:
        self._pitch_goal, self._pitch_left = pitch, frames

    def _next_tilt(self, pitch: float) -> float:
        """Now and then a look up or down, then back to about level."""
        rng = self._rng
        self._pitch_left -= 1
        if self._pitch_left == 0:
            self._pitch_goal = float(rng.normal(-4.0, 5.0))
        elif self._pitch_left < 0 and rng.random() < 0.006:
            self._tilt_to(float(rng.uniform(-40.0, 35.0)), int(rng.integers(20, 60)))
        goal = max(self._pitch_goal, 4.0) if self._wet else self._pitch_goal
        away = 0.0 if self._activity == "rest" and self._left > 4 else goal - pitch
        wanted = float(np.clip(0.12 * away, -PITCH_RATE, PITCH_RATE)) if abs(away) > 0.8 else 0.0
        self._tilt += 0.4 * (wanted - self._tilt)
        if wanted == 0.0 and abs(self._tilt) < 0.1:
            self._tilt = 0.0
        return _whole_pixels(self._tilt)


def _whole_pixels(degrees: float) -> float:
    """Rounds an angle to the resolution of the game's mouse: multiples of 0.05 degrees."""
    return round(round(degrees / 0.05) * 0.05, 2)


def _light(hints: Mapping[str, Any]) -> int:
    return int(hints.get("light", 15))


def _room(hints: Mapping[str, Any], *, right: bool) -> float:
    eye = hints.get("eye") or (0.0,) * 5
    return float(sum(eye[3:] if right else eye[:2]))
