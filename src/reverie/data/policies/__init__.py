"""Players for recording: a policy chooses an Action by the current observation.

`policy_for("city", seed)` gives the one of a game, which comes with the game; a game without its own is explored by
walking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reverie.data.facts import WorldFacts
from reverie.types import Action, World
from reverie.worlds import WORLDS, Lazily

__all__ = ["Policy", "Seen", "policy_for", "seen_now"]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Observation of a policy before each frame.

    frame: `(H, W, 3)` uint8.  pose: `(6,)` float32 camera pose, or None.  depth: `(h, w)` uint8 or None.
    hints: further data from the game to steer by, such as the course of the road; privileged, never recorded.
    """

    frame: npt.NDArray[np.uint8]
    pose: npt.NDArray[np.float32] | None = None
    depth: npt.NDArray[np.uint8] | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)


class Policy(Protocol):
    """Decides one Action a frame; everything follows from its seed and from what it was shown."""

    def act(self, seen: Seen) -> Action: ...


EXPLORER = Lazily("reverie.data.policies.explore", "ExploringPolicy")
"""The player of games without their own."""


def policy_for(world: str, seed: int) -> Policy:
    """The player of the game `world`; everything it does follows from `seed`."""
    info = WORLDS.get(world)
    make = EXPLORER if info is None or info.player is None else info.player
    return make(seed)


def seen_now(world: World, frame: npt.NDArray[np.uint8]) -> Seen:
    """Builds the observation of `world` at `frame`, with its data beyond the World protocol."""
    facts = WorldFacts(world)
    return Seen(frame, facts.pose, facts.depth, facts.hints)
