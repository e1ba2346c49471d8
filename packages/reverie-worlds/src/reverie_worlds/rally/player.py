"""A policy that drives like a person: keys on or off, held for a tenth of a second to a few seconds, and not too well.

It follows the road in the world's hints, at a speed that changes now and then, brakes before bends, often late,
slides with the handbrake, leaves the road to look around, weaves for fun, turns in circles, backs up, stops and stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from reverie.data.policies import Seen
from reverie.types import Action

MOODS: dict[str, tuple[float, int, int]] = {
    "drive": (0.46, 75, 280),
    "explore": (0.10, 60, 160),
    "weave": (0.08, 40, 110),
    "slide": (0.11, 18, 45),
    "idle": (0.08, 30, 140),
    "coast": (0.05, 15, 60),
    "reverse": (0.08, 35, 80),
    "circle": (0.04, 60, 130),
}
"""Moods of the driver: the share of choices, and the shortest and longest time in frames."""

BLIND: Mapping[str, Any] = {"speed": 0.0, "ahead": np.zeros((5, 2)), "off_route_m": 0.0}
"""Without hints the way is taken to go straight on."""

STUCK_FRAMES = 30
STUCK_SPEED = 0.8
STANDING = 1.0
"""Metres a second below which the car stands."""

SHORTEST_HOLD, LONGEST_HOLD = 3, 15
"""Frames for which a steering key is held."""

OPPOSITE = {"left": "right", "right": "left", "forward": "back", "back": "forward"}


class RallyPolicy:
    """Decides one Action a frame; everything follows from `seed` and from what it was shown."""

    def __init__(self, seed: int) -> None:
        rng = self._rng = np.random.default_rng(seed)
        self._skill = float(rng.uniform(0.7, 1.25))
        """Factor on the speed that suits a bend."""
        self._sloppiness_deg = float(rng.uniform(1.0, 4.0))
        self._cruise = 0.0
        self._cruise_left = 0
        self._mood = "drive"
        self._mood_left = 0
        self._side = "left"
        self._offset_deg = 0.0
        self._pedal, self._pedal_left = "", 0
        self._wheel, self._wheel_left = "", 0
        self._foresight = float(rng.uniform(11.0, 17.0))
        """For how many frames the car's turn is thought to go on: who has too little of it sways."""
        self._last_error = self._turning = 0.0
        self._slow = 0
        self._held: set[str] = set()
        self._age = dict.fromkeys(("forward", "back", "left", "right", "handbrake"), SHORTEST_HOLD)
        self._set("idle" if rng.random() < 0.35 else "drive")

    def act(self, seen: Seen) -> Action:
        """The action for the next frame."""
        hints = seen.hints or BLIND
        speed, ahead = float(hints["speed"]), np.asarray(hints["ahead"])
        self._look_after_mood(speed, float(hints["off_route_m"]))
        self._pedal_left -= 1
        self._wheel_left -= 1
        steps: dict[str, Callable[[float, Any], set[str]]] = {
            "drive": self._drive,
            "explore": self._drive,
            "weave": self._weave,
            "slide": self._slide,
            "idle": self._stop,
            "coast": self._coast,
            "reverse": self._reverse,
            "circle": self._circle,
        }
        return Action(self._press(steps[self._mood](speed, ahead)))

    def _press(self, wanted: set[str]) -> frozenset[str]:
        """Fingers are no faster than SHORTEST_HOLD, and press no key against its opposite."""
        for key, age in self._age.items():
            is_held = key in self._held
            if is_held != (key in wanted) and age >= SHORTEST_HOLD and (is_held or OPPOSITE.get(key) not in self._held):
                self._held ^= {key}
                self._age[key] = 0
            self._age[key] += 1
        return frozenset(self._held)

    # ---- what the driver is up to ----

    def _set(self, mood: str) -> None:
        _, shortest, longest = MOODS[mood]
        rng = self._rng
        self._mood, self._mood_left = mood, int(rng.integers(shortest, longest + 1))
        self._side = "left" if rng.random() < 0.5 else "right"
        self._offset_deg = float(rng.uniform(15.0, 70.0)) * (1 if self._side == "right" else -1)
        if mood != "explore":
            self._offset_deg = 0.0
        self._slow = 0

    def _look_after_mood(self, speed: float, off_route_m: float) -> None:
        rng = self._rng
        self._mood_left -= 1
        self._cruise_left -= 1
        if self._cruise_left <= 0:
            self._cruise, self._cruise_left = float(rng.uniform(7.0, 30.0)), int(rng.integers(75, 350))
        pushes = self._mood in ("drive", "explore", "weave", "circle", "reverse")
        self._slow = self._slow + 1 if pushes and abs(speed) < STUCK_SPEED else 0
        if self._slow > STUCK_FRAMES:
            self._set("drive" if self._mood == "reverse" else "reverse")
        elif self._mood_left <= 0:
            names = list(MOODS)
            weights = np.array([MOODS[name][0] for name in names])
            if off_route_m > 40.0:  # far out there: mostly on the way back
                weights[0] *= 3.0
            self._set(str(rng.choice(names, p=weights / weights.sum())))

    # ---- pedals and wheel, as keys ----

    def _drive(self, speed: float, ahead: Any) -> set[str]:
        return self._pedals(speed, self._wanted_speed(ahead)) | self._steer(speed, ahead)

    def _wanted_speed(self, ahead: Any) -> float:
        """Target speed: the cruising speed, less in bends, judged by the change of direction within 50 m."""
        bend_deg = float(np.ptp(ahead[1:4, 0])) + 0.5 * abs(float(ahead[1, 0]))
        return min(self._cruise, self._skill * max(7.0, 33.0 - 0.5 * bend_deg))

    def _pedals(self, speed: float, wanted: float) -> set[str]:
        if self._pedal_left <= 0:
            rng = self._rng
            if speed < wanted:
                self._pedal, self._pedal_left = "forward", int(rng.integers(5, 20))
            elif speed > 1.25 * wanted + 2.0:
                self._pedal, self._pedal_left = "back", int(rng.integers(3, 12))
            else:
                self._pedal, self._pedal_left = "", int(rng.integers(3, 10))
        if self._pedal == "back" and speed < STANDING:
            self._pedal_left = 0
        return {self._pedal} - {""}

    def _steer(self, speed: float, ahead: Any) -> set[str]:
        """Turn towards a place ahead, further off the faster; keys are held the longer the more there is to turn."""
        rng = self._rng
        place = 1 if speed < 6.0 else 2 if speed < 14.0 else 3
        error = float(ahead[place, 0]) + self._offset_deg
        change = (error - self._last_error + 180.0) % 360.0 - 180.0
        self._last_error = error
        self._turning += 0.35 * (float(np.clip(change, -8.0, 8.0)) - self._turning)
        if self._wheel_left <= 0:
            error += self._foresight * self._turning + float(rng.normal(0.0, self._sloppiness_deg))
            if self._wheel and rng.random() < 0.85:
                self._wheel, self._wheel_left = "", int(rng.integers(2, 6))
            elif abs(error) < 4.0:
                self._wheel, self._wheel_left = "", int(rng.integers(2, 7))
            else:
                longest = round(np.clip(100.0 / max(speed, 1.0), 5, LONGEST_HOLD))
                hold = round(2 + abs(error) * (0.3 if speed < 8.0 else 0.15))
                self._wheel = "right" if error > 0 else "left"
                self._wheel_left = int(np.clip(hold, SHORTEST_HOLD, longest))
        return {self._wheel} - {""}

    def _weave(self, speed: float, ahead: Any) -> set[str]:
        """Left and right without reason."""
        if self._wheel_left <= 0:
            turn = {"": self._side, "left": "right", "right": "left"}
            self._wheel = turn[self._wheel] if self._rng.random() < 0.7 else ""
            self._wheel_left = int(self._rng.integers(4, 14))
        return self._pedals(speed, min(self._cruise, 18.0)) | ({self._wheel} - {""})

    def _slide(self, speed: float, ahead: Any) -> set[str]:
        """The handbrake with the wheel turned; power again towards the end.  Needs some speed first."""
        if speed < 7.0 and self._mood_left > 15:
            self._mood_left += 1 if self._slow < STUCK_FRAMES and speed > 1.0 else 0
            return {"forward"} | self._steer(speed, ahead)
        if self._mood_left > 6:
            return {self._side, "handbrake"}
        return {self._side, "forward"}

    def _stop(self, speed: float, ahead: Any) -> set[str]:
        """Come to a stand, by the foot or by hand, and stand."""
        if abs(speed) < STANDING:
            return set()
        self._mood_left += 1 if self._mood_left < 100 and self._rng.random() < 0.8 else 0  # count from the stand
        if self._side == "left" and speed > 2.0:
            return {"back"} | self._steer(speed, ahead)
        return {"handbrake"}

    def _coast(self, speed: float, ahead: Any) -> set[str]:
        return self._steer(speed, ahead) if self._side == "left" else set()

    def _reverse(self, speed: float, ahead: Any) -> set[str]:
        """Back, with the wheel to one side for part of the time."""
        turned = self._mood_left % 40 < 24 if self._side == "left" else self._mood_left % 50 > 20
        return {"back"} | ({self._side} if turned else set())

    def _circle(self, speed: float, ahead: Any) -> set[str]:
        """Round and round, slowly, now and then with the handbrake."""
        brake = {"handbrake"} if speed > 9.0 and self._mood_left % 30 < 8 else set()
        return {self._side} | brake | self._pedals(speed, 11.0)
