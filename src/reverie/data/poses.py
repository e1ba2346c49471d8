"""Recorded camera poses: the convention that is written, and the conversion of older recordings to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.types import POSE_NAMES

POSE_CONVENTION = 2
"""Version of the convention of `reverie.types.POSE_NAMES`, as `meta/reverie.json` states it.

Version 1 was never written down: five numbers without roll, each game with axes and units of its own.
"""

OLD_POSE_NAMES = ("x", "y", "z", "yaw", "pitch")


@dataclass(frozen=True, slots=True)
class Conversion:
    """Turns recorded states into poses `(f, 6)`.

    yaw_deg is added to the yaw; metres is the length of a unit; lift_m is added to the height.
    is_known: the result is in our convention; else the numbers are of some other one, with roll 0.
    """

    is_known: bool
    yaw_deg: float = 0.0
    metres: float = 1.0
    lift_m: float = 0.0

    def __call__(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Converts states `(f, 5)` or `(f, 6)` to poses `(f, 6)`."""
        poses = np.zeros((len(states), len(POSE_NAMES)), np.float32)
        poses[:, : states.shape[1]] = states
        poses[:, :3] *= self.metres
        poses[:, 2] += self.lift_m
        if self.yaw_deg:
            poses[:, 3] = (poses[:, 3] + self.yaw_deg) % 360.0
        return poses


OLD_WORLDS = {
    "city": Conversion(True),
    "temple": Conversion(True),
    "minetest": Conversion(True, yaw_deg=90.0),
    "trigger-rally": Conversion(True, yaw_deg=90.0),
    "tux-racer": Conversion(True, yaw_deg=90.0),
    "vizdoom": Conversion(True, yaw_deg=90.0, metres=1 / 32, lift_m=41 / 32),  # it recorded the feet, in map units
}
"""Conversions from the pose conventions of the games in recordings of version 1."""


def conversion_for(names: Sequence[str] | None, notes: Mapping[str, Any]) -> Conversion | None:
    """The conversion of states called `names` in a dataset with these notes (`meta/reverie.json`).

    None where the states are not camera poses, such as the joints of a robot.
    """
    if tuple(names or ()) == POSE_NAMES:
        return Conversion(notes.get("pose_convention") == POSE_CONVENTION)
    if tuple(names or ()) == OLD_POSE_NAMES:
        return OLD_WORLDS.get(recorded_world(notes), Conversion(False))
    return None


def recorded_world(notes: Mapping[str, Any]) -> str:
    """The game that was recorded, by `reverie record` or by a person's play; empty for an import."""
    recorder, world = notes.get("recorder"), notes.get("world")
    if isinstance(recorder, Mapping):
        return str(recorder.get("world", ""))
    return world if isinstance(world, str) else ""
