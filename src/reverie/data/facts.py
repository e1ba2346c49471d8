"""Facts of a world that recorders use: those of RecordableWorld, with a stand-in for each that a World lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.types import Pose, World

CAMERA = ("fov_deg", "pixel_aspect", "pitch_is_shear")
"""Camera attributes of a game that datasets keep."""


class WorldFacts:
    """Reads the facts of `world` as they are now; every one can be asked for, whatever the world has.

    Beyond RecordableWorld a game may have `depth` (`(h, w)` uint8, a depth image for its policy), `maps` (the levels it
    plays), `heldout` (whether they are held-out ones) and `pitch_is_shear` (its camera shears instead of pitching).
    """

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def has_pose(self) -> bool:
        """Tests whether the world has a camera pose, before `reset` too."""
        return hasattr(type(self._world), "pose")

    @property
    def pose(self) -> Pose | None:
        return getattr(self._world, "pose", None)

    @property
    def depth(self) -> npt.NDArray[np.uint8] | None:
        return getattr(self._world, "depth", None)

    @property
    def hints(self) -> Mapping[str, Any]:
        return getattr(self._world, "hints", {})

    @property
    def map(self) -> str:
        return str(getattr(self._world, "map", ""))

    @property
    def maps(self) -> list[str]:
        return list(getattr(self._world, "maps", ()))

    @property
    def heldout(self) -> bool:
        return getattr(self._world, "heldout", False)

    @property
    def finished(self) -> bool:
        return getattr(self._world, "finished", False)

    @property
    def episode_info(self) -> Mapping[str, Any]:
        return getattr(self._world, "episode_info", {})

    @property
    def camera(self) -> dict[str, Any]:
        """The facts of CAMERA that it has."""
        return {name: getattr(self._world, name) for name in CAMERA if hasattr(self._world, name)}
