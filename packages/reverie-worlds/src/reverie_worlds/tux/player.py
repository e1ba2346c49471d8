"""A player of Tux Racer: leans around trees and after fish, paddles, brakes, jumps, tumbles through the air, rests.

It plans like a person: a few times a second it looks where the way is free, then leans until it heads there.  Keys are
held for as long as fingers hold them.  It makes mistakes, and gets itself out of corners.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.data.policies import Seen
from reverie.types import Action

HEADINGS = np.arange(-75.0, 76.0, 5.0)
"""Ways that are weighed, degrees from straight down the course."""

PATH = np.arange(2.0, 31.0, 2.0)
"""Metres along such a way at which it is looked at."""

SNOW_STEP_AHEAD, SNOW_FIRST_AHEAD = 2.0, 2.0
SNOW_STEP_ASIDE, SNOW_FIRST_ASIDE = 1.0, -24.0
"""The grid of `hints["snow"]` and `hints["way"]`."""

BODY = 0.9
"""Metres that a penguin needs to either side."""

AIRBORNE = 0.45
"""Metres over the snow at which it flies for certain."""

STUCK_SPEED = 2.4
STUCK_FRAMES = 30
"""So slow for so long, without wanting it, is stuck."""

PADDLE_BELOW = 12.0
"""Paddling helps below this speed, m/s."""

RESTED_FRAMES = 90
"""It rests so long, braked to a crawl, which is as still as the game gets."""

MODES = ("ride", "rest", "coast", "jump", "brake", "mistake")
WEIGHTS = np.array([0.4, 0.07, 0.1, 0.26, 0.08, 0.09])
FRAMES = {
    "ride": (40, 130),
    "rest": (90, 280),
    "coast": (25, 80),
    "jump": (8, 30),
    "brake": (12, 40),
    "mistake": (8, 24),
}
"""Behaviours, their probabilities, and the shortest and longest duration of each, in frames."""


@dataclass(slots=True)
class Key:
    """A key that is held for a few frames at least, once it is down."""

    shortest: int
    down: bool = False
    _since: int = field(default=0)

    def want(self, down: bool) -> bool:
        """Moves the key towards `down` no sooner than the shortest press allows; returns its state."""
        self._since += 1
        if down != self.down and self._since >= self.shortest:
            self.down, self._since = down, 0
        return self.down


class SlidingPolicy:
    """Decides one Action a frame; everything follows from `seed` and from what it was shown."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._bears_speed = float(self._rng.uniform(14.0, 34.0))
        self._likes_fish = float(self._rng.uniform(0.0, 1.5))
        self._care = float(self._rng.uniform(0.5, 1.3))
        self._lean = {"left": Key(4), "right": Key(4)}
        self._paddle, self._brake = Key(8), Key(6)
        self._mode = "rest" if self._rng.random() < 0.25 else "coast" if self._rng.random() < 0.4 else "ride"
        self._left = int(self._rng.integers(*FRAMES[self._mode]))
        self._slow = self._rested = 0
        self._way = 0.0
        self._heading = 0.0
        self._look_again = 0
        self._mistaken = "left"
        self._escape_side = "left"
        self._trick: tuple[str, int] | None = None
        self._flew = False

    def act(self, seen: Seen) -> Action:
        """The action for the next frame, from `seen.hints`; without them it just slides."""
        if not seen.hints:
            return Action()
        hints = seen.hints
        self._left -= 1
        self._mind_being_stuck(hints)
        if self._left <= 0:
            self._next_mode(hints)
        keys = self._air_keys(hints)
        if keys is None:
            keys = self._snow_keys(hints)
        return Action(frozenset(keys))

    def _mind_being_stuck(self, hints: Mapping[str, Any]) -> None:
        slow = hints["speed"] < STUCK_SPEED
        self._rested = self._rested + 1 if slow and self._mode == "rest" else 0
        if self._rested > RESTED_FRAMES:
            self._left = 0
        self._slow = self._slow + 1 if slow and self._mode not in ("rest", "escape") else 0
        if self._slow > STUCK_FRAMES:
            self._slow = 0
            self._mode, self._left = "escape", int(self._rng.integers(20, 45))
            self._escape_side = "left" if hints["heading"] > self._best_way(hints) else "right"
            if self._rng.random() < 0.3:
                self._escape_side = "left" if self._escape_side == "right" else "right"

    def _next_mode(self, hints: Mapping[str, Any]) -> None:
        weights = WEIGHTS.copy()
        if self._mode == "jump" or hints["left_to_go"] < 30:
            weights[1:] = 0.0
        self._mode = MODES[int(self._rng.choice(len(MODES), p=weights / weights.sum()))]
        self._left = int(self._rng.integers(*FRAMES[self._mode]))
        self._mistaken = "left" if self._rng.random() < 0.5 else "right"

    def _air_keys(self, hints: Mapping[str, Any]) -> set[str] | None:
        """A trick while it flies; None on the snow, and in flights without one."""
        flies = hints["above"] > AIRBORNE
        if flies and not self._flew and self._rng.random() < 0.6:
            which = ("left", "right", "forward", "back")[int(self._rng.choice(4, p=(0.3, 0.3, 0.2, 0.2)))]
            self._trick = (which, int(self._rng.integers(6, 16)))
        self._flew = flies
        if not flies or self._trick is None:
            self._trick = None
            return None
        which, left = self._trick
        self._trick = (which, left - 1) if left > 1 else None
        return {"trick", which}

    def _snow_keys(self, hints: Mapping[str, Any]) -> set[str]:
        if self._mode == "coast":
            return set()
        if self._mode == "escape":
            return {"forward", self._escape_side}
        keys = self._leaning(hints)
        if self._mode == "mistake":
            keys = {self._mistaken}
        speed = hints["speed"]
        if self._mode == "jump":
            return keys | {"jump"}
        frightened = speed > self._bears_speed * (0.8 if self._brake.down else 1.0)
        if self._brake.want(self._mode in ("rest", "brake") or frightened):
            return keys | {"back"} if speed > STUCK_SPEED else {"back"}
        if self._paddle.want(speed < PADDLE_BELOW * (1.0 if self._paddle.down else 0.7)):
            keys = keys | {"forward"}
        return keys

    def _leaning(self, hints: Mapping[str, Any]) -> set[str]:
        """Lean to where the way is free; stop a little before it heads there, for it turns on."""
        self._look_again -= 1
        if self._look_again <= 0:
            self._look_again = int(self._rng.integers(4, 9))
            self._way = self._best_way(hints) + float(self._rng.normal(0.0, 3.0))
        turning = _turn(hints["heading"] - self._heading)
        self._heading = hints["heading"]
        error = _turn(self._way - self._heading - 6.0 * turning)
        held = self._lean["left"].down or self._lean["right"].down
        enough = 4.0 if held else 9.0
        return {side for side, sign in (("left", -1), ("right", 1)) if self._lean[side].want(sign * error > enough)}

    def _best_way(self, hints: Mapping[str, Any]) -> float:
        """The heading with the least against it: trees, rising snow, the course's edge, turning; fish are for it."""
        reach = PATH[float(np.clip(hints["speed"] * 1.6, 10.0, 30.0)) >= PATH]
        angle = np.radians(HEADINGS)[:, None]
        ahead, aside = reach * np.cos(angle), reach * np.sin(angle)
        nearness = 1.0 / (1.0 + reach / 8.0)
        against = 0.012 * np.abs(HEADINGS) + 0.008 * np.abs(HEADINGS - hints["heading"])
        against += self._care * 3.0 * (_blocked(ahead, aside, hints["trees"]) * nearness).sum(axis=1)
        rise = _at(hints["snow"], ahead, aside)
        against += 0.5 * (np.maximum(np.diff(rise, axis=1, prepend=0.0) - 0.1, 0.0) * nearness).sum(axis=1)
        goal = _at(hints["way"], ahead[:, -1], aside[:, -1])
        against += 0.25 * np.minimum(goal - goal.min(), 20.0)
        over = np.abs(hints["middle"] + aside) - (hints["half_width"] - 2.0)
        against += (np.clip(over, 0.0, 3.0) * nearness).sum(axis=1)
        against -= self._likes_fish * _blocked(ahead, aside, hints["fish"]).max(axis=1)
        return float(HEADINGS[int(np.argmin(against))])


def _turn(degrees: float) -> float:
    """The same turn, between -180 and 180 degrees."""
    return (degrees + 180.0) % 360.0 - 180.0


def _at(
    grid: npt.NDArray[np.float32], ahead: npt.NDArray[np.float64], aside: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    rows = np.rint((ahead - SNOW_FIRST_AHEAD) / SNOW_STEP_AHEAD).astype(int)
    columns = np.rint((aside - SNOW_FIRST_ASIDE) / SNOW_STEP_ASIDE).astype(int)
    return grid[np.clip(rows, 0, grid.shape[0] - 1), np.clip(columns, 0, grid.shape[1] - 1)]


def _blocked(
    ahead: npt.NDArray[np.float64], aside: npt.NDArray[np.float64], things: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Degree of obstruction of each point, 0 to 1, by `things`, (n, 2 or 3): ahead, aside and radius."""
    if not len(things):
        return np.zeros(ahead.shape)
    apart = np.hypot(ahead[..., None] - things[:, 0], aside[..., None] - things[:, 1])
    radius = things[:, 2] if things.shape[1] > 2 else 0.5
    return np.clip(1.5 - (apart - radius) / BODY / 1.5, 0.0, 1.0).max(axis=-1)
