"""A player of the temple: answers obstacles like a person, and is sometimes late, wrong or bored.

It reads the world's hints (obstacles, corners, coins).  Each obstacle gets one plan when it comes into reach: which
key, how far before it, how long held.  Plans have a person's spread; a few are mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.data.policies import Seen
from reverie.types import Action

FRAME_S = 0.04
DECIDE_S = 2.2
"""An obstacle is thought about when it is so many seconds away."""

BLUNDER = 0.1
"""Share of obstacles and corners that are answered too late, with the wrong key, or not at all."""
WHIM_PER_S = 0.6
"""Needless jumps, slides, leans and turns, where the way is free."""
IDLE_SHARE = 0.12
"""Share of free stretches in which the player does nothing at all, coins or not."""

WRONG = {"jump": ("crouch", "left"), "crouch": ("jump", "right"), "left": ("right", "jump"), "right": ("left", "jump")}


@dataclass(slots=True)
class Plan:
    """Hold `key` from `start_m` before the thing until `end_m` before its end (less than 0 is behind it)."""

    key: str
    start_m: float
    end_m: float
    held_frames: int = 0


class TemplePolicy:
    """Decides one Action a frame; everything follows from `seed` and from what it was shown."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 0x7E4])
        self.skill = float(self._rng.uniform(0.4, 1.6))
        """Rate of this player's mistakes, as a factor on BLUNDER."""
        self._plans: dict[tuple[Any, ...], Plan | None] = {}
        self._whim: tuple[str, int] | None = None
        self._lazy_frames = 0
        self._coin_side = ""

    def act(self, seen: Seen) -> Action:
        """The keys held in this frame."""
        hints = seen.hints
        if not hints or hints["mode"] in ("fall", "hit"):
            self._plans.clear()
            self._whim = None
            return Action()
        keys = self._answers(hints)
        free = self._free_s(hints)
        if not keys and free > 1.0:
            keys |= self._idle_or_whim(free)
        elif keys:
            self._whim = None
        if not keys & {"left", "right"} and self._lazy_frames == 0:
            keys |= self._coins(hints)
        return Action(frozenset(keys))

    # -- obstacles and corners

    def _answers(self, hints: Any) -> set[str]:
        """Keys of the plans that are due."""
        speed, leg, keys = hints["speed"], hints["leg"], set[str]()
        for kind, distance, length, answer in hints["obstacles"]:
            name = (leg, kind, round(length, 3))
            if distance < DECIDE_S * speed and name not in self._plans:
                self._plans[name] = self._plan(kind, answer, length, speed)
            plan = self._plans.get(name)
            if (
                plan is not None
                and distance <= plan.start_m
                and distance + length > plan.end_m
                and plan.held_frames != 0
            ):
                keys.add(plan.key)
                plan.held_frames -= 1
        distance, exits = hints["corner"]
        if distance < DECIDE_S * speed:
            if (leg, "corner") not in self._plans:
                self._plans[leg, "corner"] = self._plan_turn(exits, speed)
            plan = self._plans[leg, "corner"]
            if plan is not None and distance <= plan.start_m and plan.held_frames != 0:
                keys.add(plan.key)
                plan.held_frames -= 1
        return keys

    def _errs(self) -> bool:
        return self._rng.random() < BLUNDER * self.skill

    def _plan(self, kind: str, answer: str, length: float, speed: float) -> Plan | None:
        """Plans the answer to one obstacle; None for no answer at all."""
        rng = self._rng
        early = float(np.clip(rng.normal(0.0, 1.0), -1.6, 2.2))
        if answer == "jump":
            plan = Plan("jump", (0.17 + 0.05 * early) * speed, -length, int(rng.integers(2, 7)))
            if kind == "gap":
                plan.start_m = max(plan.start_m, 0.5)
        elif answer == "crouch":
            plan = Plan("crouch", (0.26 + 0.09 * early) * speed, -0.3, int(rng.integers(3, 14)))
            plan.start_m = max(plan.start_m, 0.9)
        else:
            plan = Plan(answer, (0.70 + 0.16 * early) * speed, -0.3 - 0.1 * abs(early), -1)
        if not self._errs():
            return plan
        match int(rng.integers(3)):
            case 0:
                return None
            case 1:
                plan.key = str(rng.choice(WRONG[plan.key]))
                plan.held_frames = max(plan.held_frames, 6) if plan.held_frames > 0 else 15
            case _:
                plan.start_m = -0.35 * length if answer == "jump" else -0.1
        return plan

    def _plan_turn(self, exits: tuple[str, ...], speed: float) -> Plan | None:
        """Plans the side and moment of a turn: mostly early, for the game buffers it for a third of a second."""
        rng = self._rng
        way = str(rng.choice(exits))
        start = float(np.clip(rng.normal(0.14, 0.08), -0.05, 0.30)) * speed
        plan = Plan(f"turn-{way}", max(start, -0.6), 0.0, int(rng.integers(3, 9)))
        if not self._errs():
            return plan
        match int(rng.integers(3)):
            case 0:
                return None
            case 1:
                plan.key = "turn-left" if way == "right" else "turn-right"
            case _:
                plan.start_m = 0.75 * speed
        return plan

    # -- in between

    def _free_s(self, hints: Any) -> float:
        """Seconds until the next obstacle that needs an answer."""
        ahead = [distance for _, distance, _, _ in hints["obstacles"]]
        return min([*ahead, hints["corner"][0]]) / hints["speed"]

    def _idle_or_whim(self, free_s: float) -> set[str]:
        rng = self._rng
        if self._whim is not None:
            key, left = self._whim
            self._whim = (key, left - 1) if left > 1 else None
            return {key}
        if self._lazy_frames > 0:
            self._lazy_frames -= 1
        elif rng.random() < IDLE_SHARE * FRAME_S:
            self._lazy_frames = int(rng.integers(40, 110))
        elif free_s > 1.1 and rng.random() < WHIM_PER_S * FRAME_S:
            key = str(
                rng.choice(
                    ("jump", "crouch", "left", "right", "turn-left", "turn-right"),
                    p=(0.20, 0.18, 0.21, 0.21, 0.10, 0.10),
                )
            )
            self._whim = (key, int(rng.integers(7, 26) if key in ("left", "right") else rng.integers(2, 7)))
        return set()

    def _coins(self, hints: Any) -> set[str]:
        """Lean towards the next coins; begun in time, let go when they are passed."""
        near = [x for distance, x in hints["coins"] if 0.0 < distance < 0.95 * hints["speed"]]
        if not near:
            self._coin_side = ""
        elif not self._coin_side:
            keen = self._rng.random() < 0.8
            side = "left" if near[0] < -0.4 else "right" if near[0] > 0.4 else "none"
            self._coin_side = side if keen else "none"
        return {self._coin_side} - {"none", ""}
