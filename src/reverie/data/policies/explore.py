"""A policy that plays like a person who looks around: keys held for a while, smooth turns, walls avoided.

It steers by the pose and a small depth image if the world has them, else it plays blind.  It opens the doors that
`hints["use_units"]` lists, fires in bursts, looks up and down, and at times stands still for seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.data.policies import Seen
from reverie.types import Action

Depth = npt.NDArray[np.uint8]

TURN_LIMIT = 4.0
FLICK_LIMIT = 6.0
PITCH_LIMIT = 20.0
NEAR = 8.0
"""Depth below which the way ahead counts as blocked, in units of the depth image."""
WARY = 30.0

VIEW_SLOPE = 1.31
"""Tangent of half the view's width: enough to steer by."""

STUCK_M = 15.0 / 32
"""Distance in six frames under held keys below which the player is stuck."""

USE_UNITS = 60.0
"""Doors and switches no further than this are tried."""
GO_UNITS = 320.0
"""Those that are no further than this are gone to."""
USE_DEG = 20.0
USE_AGAIN_FRAMES = 150
BURST_CHANCE = 0.006
"""Probability of beginning to fire, each frame; a burst is a third of a second on average."""
LONG_REST_CHANCE = 0.25
"""Probability that a rest lasts for seconds."""

MODES = ("walk", "look", "still", "back", "strafe", "flick")
WEIGHTS = np.array([0.41, 0.10, 0.06, 0.21, 0.18, 0.04])


@dataclass(frozen=True, slots=True)
class Clearance:
    """Free distance, in depth units: ahead, to the left and right, and in the middle of the view."""

    ahead: float = 60.0
    left: float = 60.0
    right: float = 60.0
    middle: float = 60.0
    gap_deg: float = 0.0
    """Direction of the widest gap, degrees from straight ahead, right positive."""

    @classmethod
    def of(cls, depth: Depth) -> Clearance:
        """Read it from a `(h, w)` depth image."""
        height, width = depth.shape
        band = depth[height * 3 // 8 : height * 5 // 8].astype(np.float32)
        columns = np.partition(band, len(band) // 5, axis=0)[len(band) // 5]
        third = width // 3
        reach = np.convolve(np.minimum(columns, 40.0), np.ones(9) / 9, mode="same")
        best = int(np.argmax(reach - 0.25 * np.abs(np.arange(width) - width / 2)))
        return cls(
            float(columns[width * 2 // 5 : width - width * 2 // 5].min()),
            float(columns[:third].mean()),
            float(columns[-third:].mean()),
            float(np.median(band[:, third:-third])),
            float(np.degrees(np.arctan((best + 0.5 - width / 2) / (width / 2) * VIEW_SLOPE))),
        )


class ExploringPolicy:
    """Decides one Action per frame; everything follows from `seed` and from what it was shown."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._keys: frozenset[str] = frozenset()
        self._mode = "still"
        self._left = int(self._rng.integers(8, 20))
        self._turn = 0.0
        self._turn_goal = 0.0
        self._pitch = 0.0
        self._pitch_goal = 0.0
        self._pitch_left = 0
        self._track: deque[tuple[float, float]] = deque(maxlen=6)
        self._held = 0
        self._staring = 0
        self._firing = 0
        self._using = -USE_AGAIN_FRAMES
        self._depth: Depth | None = None
        self._room = Clearance()

    def act(self, seen: Seen) -> Action:
        """The action for the next frame; steers by the pose and the depth image if there are any."""
        if seen.depth is not self._depth:  # worlds make a new one every few frames
            self._depth = seen.depth
            self._room = Clearance.of(seen.depth) if seen.depth is not None else Clearance()
        room = self._room
        if seen.pose is not None:
            self._track.append((float(seen.pose[0]), float(seen.pose[1])))
            self._pitch = float(seen.pose[4])
        self._left -= 1
        self._held = self._held + 1 if self._keys else 0
        self._staring = self._staring + 1 if room.middle < 1.5 * NEAR and self._mode != "away" else 0
        if self._is_going(seen.hints) or self._mode == "wait":
            if self._mode == "wait" and self._left <= 0:
                self._walk()
        elif self._is_stuck():
            self._recover(room)
        elif self._is_blocked(room):
            self._turn_away(room)
        elif self._mode == "away" and min(room.ahead, 0.7 * room.middle) > 1.5 * NEAR and self._left < 30:
            self._walk()
        elif self._left <= 0:
            self._choose(room)
        if self._mode == "walk":
            self._steer(room)
        keys = self._keys | self._hands(seen)
        return Action(keys, (self._next_pitch(), self._next_turn()))

    def _hands(self, seen: Seen) -> set[str]:
        """Chooses the keys of the hands: fires in bursts, and tries doors and switches that are near ahead."""
        keys = set()
        if self._firing > 0:
            self._firing -= 1
            keys.add("attack")
        elif self._rng.random() < BURST_CHANCE:
            self._firing = int(self._rng.integers(2, 20))
        self._using -= 1
        if self._using > 0:
            keys.add("use")
        return keys

    def _is_going(self, hints: Mapping[str, Any]) -> bool:
        """Go to a door or a switch in view, use it, and wait for it to open; False if there is none worth a try."""
        units, right_deg = hints.get("use_units", np.inf), hints.get("use_deg", 0.0)
        if self._mode == "go" and (self._left <= 0 or units > 1.5 * GO_UNITS):
            self._using = 0  # it was not reached: leave it for a while
            self._walk()
            return False
        if self._mode != "go":
            if units > GO_UNITS or self._using > -USE_AGAIN_FRAMES or self._mode not in ("walk", "away"):
                return False
            self._set("go", {"forward"}, 50, 60)
        self._turn_goal = 0.15 * right_deg
        self._keys = frozenset({"forward"} if abs(right_deg) < 35.0 and units > 40.0 else ())
        if units < USE_UNITS and abs(right_deg) < USE_DEG:
            self._set("wait", set(), 24, 30)
            self._using, self._turn_goal = 4, 0.0
        return True

    def _is_stuck(self) -> bool:
        """Keys were held for six frames, and there was hardly any way."""
        if self._held < 8 or len(self._track) < 6:
            return False
        (x0, y0), (x1, y1) = self._track[0], self._track[-1]
        return abs(x1 - x0) + abs(y1 - y0) < STUCK_M

    def _is_blocked(self, room: Clearance) -> bool:
        """A wall is near ahead, with no way past it, or has filled the view for a while."""
        if self._mode == "walk" and room.ahead < (0.5 if abs(room.gap_deg) > 15.0 else 1.0) * NEAR:
            return True
        return self._staring > 10 and self._mode != "back"

    def _recover(self, room: Clearance) -> None:
        if self._mode == "walk":
            self._turn_away(room)
        elif room.ahead > WARY:
            self._walk()
        else:
            self._turn_away(room)

    def _turn_away(self, room: Clearance) -> None:
        """Blocked: stop, and turn to the more open side for a while; now and then step back first."""
        if self._mode == "walk" and self._rng.random() < 0.25:
            self._set("back", {"back"}, 10, 28)
            self._turn_goal = float(self._rng.uniform(-1.5, 1.5))
            return
        side = 1.0 if room.right > room.left else -1.0
        if self._rng.random() < 0.15:
            side = -side
        self._set("away", set(), 36, 44)
        self._turn_goal = side * float(self._rng.uniform(2.5, TURN_LIMIT))

    def _walk(self) -> None:
        """Forward, sometimes with a side key."""
        rng = self._rng
        keys = {"forward"} if rng.random() < 0.8 else {"forward", "left" if rng.random() < 0.5 else "right"}
        self._set("walk", keys, 25, 45)
        self._turn_goal = float(rng.normal(0.0, 1.2))

    def _choose(self, room: Clearance) -> None:
        """Begin another stretch of play."""
        rng = self._rng
        if room.middle < NEAR and self._mode != "away":
            self._turn_away(room)
            return
        mode = str(rng.choice(MODES, p=WEIGHTS))
        sign = 1.0 if rng.random() < 0.5 else -1.0
        if mode == "walk" and room.ahead >= NEAR:
            self._walk()
        elif mode == "back":
            self._set("back", {"back"}, 12, 40)
            self._turn_goal = 0.0 if rng.random() < 0.5 else float(rng.uniform(-2.0, 2.0))
        elif mode == "strafe" and max(room.left, room.right) > NEAR:
            roomy = "right" if room.right > room.left else "left"
            other = {"right": "left", "left": "right"}[roomy]
            self._set("strafe", {roomy if min(room.left, room.right) < NEAR or rng.random() < 0.5 else other}, 10, 34)
            self._turn_goal = 0.0 if rng.random() < 0.5 else float(rng.uniform(-2.5, 2.5))
        elif mode == "still":
            self._set("still", set(), *((75, 130) if rng.random() < LONG_REST_CHANCE else (8, 30)))
            self._turn_goal = 0.0
        elif mode == "flick":
            self._set("flick", set() if rng.random() < 0.5 else set(self._keys & {"forward"}), 8, 14)
            self._turn_goal = sign * float(rng.uniform(TURN_LIMIT, FLICK_LIMIT))
        else:
            self._set("look", set(), 14, 45)
            self._turn_goal = sign * float(rng.uniform(0.8, TURN_LIMIT))

    def _set(self, mode: str, keys: set[str], shortest: int, longest: int) -> None:
        self._mode, self._keys, self._held = mode, frozenset(keys), 0
        self._left = int(self._rng.integers(shortest, longest + 1))

    def _steer(self, room: Clearance) -> None:
        """While walking: wander, and bend away from what comes near."""
        if self._rng.random() < 0.06:
            self._turn_goal = float(self._rng.normal(0.0, 1.4))
        if room.ahead < WARY:
            self._turn_goal = 0.12 * room.gap_deg
            if abs(room.gap_deg) < 8.0 and room.ahead < 1.5 * NEAR:
                self._turn_goal = 3.0 if room.right > room.left else -3.0

    def _next_turn(self) -> float:
        limit = FLICK_LIMIT if self._mode == "flick" else TURN_LIMIT
        goal = _clip(self._turn_goal, limit)
        self._turn += 0.3 * (goal - self._turn)
        if abs(self._turn) < 0.05:
            self._turn = 0.0
        return round(self._turn, 3)

    def _next_pitch(self) -> float:
        """Now and then a look up or down, then back to level."""
        if self._pitch_left > 0:
            self._pitch_left -= 1
            if self._pitch_left == 0:
                self._pitch_goal = 0.0
        elif self._pitch_goal == 0.0 and self._rng.random() < 0.004:
            self._pitch_goal = float(self._rng.uniform(-PITCH_LIMIT, PITCH_LIMIT))
            self._pitch_left = int(self._rng.integers(15, 45))
        away = self._pitch_goal - self._pitch
        if abs(away) < 0.3:
            return 0.0
        move = round(_clip(0.25 * away, 1.5), 3)
        self._pitch += move
        return move


def _clip(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
