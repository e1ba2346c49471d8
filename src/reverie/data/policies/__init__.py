"""Players for recording: one policy a game, each choosing an Action on what is seen now.

`policy_for("vizdoom", seed)` gives the one of a game; a game without its own is explored blindly by walking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reverie.types import Action, World

__all__ = ["Policy", "Seen", "policy_for", "seen_now"]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a policy is shown before each frame.

    frame: `(H, W, 3)` uint8.  pose: `(6,)` float32 camera pose, or None.  depth: `(h, w)` uint8 or None.
    hints: what else the game tells to steer by, such as where the road goes; privileged, never recorded.
    """

    frame: npt.NDArray[np.uint8]
    pose: npt.NDArray[np.float32] | None = None
    depth: npt.NDArray[np.uint8] | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)


class Policy(Protocol):
    """Decides one Action a frame; everything follows from its seed and from what it was shown."""

    def act(self, seen: Seen) -> Action: ...


_POLICIES = {
    "minetest": ("reverie_worlds.minetest.player", "MinetestPolicy"),
    "trigger-rally": ("reverie_worlds.rally.player", "RallyPolicy"),
    "tux-racer": ("reverie_worlds.tux.player", "SlidingPolicy"),
    "city": ("reverie_worlds.city.player", "CityPolicy"),
    "temple": ("reverie_worlds.temple.player", "TemplePolicy"),
}
"""Where each game's policy lives: module and class, made with the seed alone."""


def policy_for(world: str, seed: int) -> Policy:
    """The player of the game `world`; everything it does follows from `seed`."""
    module, name = _POLICIES.get(world, ("reverie.data.policies.explore", "ExploringPolicy"))
    return getattr(import_module(module), name)(seed)


def seen_now(world: World, frame: npt.NDArray[np.uint8]) -> Seen:
    """What `world` shows at `frame`, with what it tells beyond the World protocol."""
    return Seen(frame, getattr(world, "pose", None), getattr(world, "depth", None), getattr(world, "hints", {}))
