"""A world whose pictures tell the seed, the time and the actions of the block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reverie.types import Action, ActionSpace, Frames


class CountingWorld:
    """A world whose pictures tell the seed, the time and the actions of the block."""

    action_space = ActionSpace(("forward", "back"))
    resolution = (16, 32)
    block_frames = 4

    def reset(self, seed: int) -> Frames:
        self.value = np.random.default_rng(seed).integers(256, size=(1, 16, 32, 3), dtype=np.uint8)
        return self.value.copy()

    def step(self, action: Action | Sequence[Action]) -> Frames:
        self.actions = [action] * 4 if isinstance(action, Action) else list(action)
        assert len(self.actions) == 4
        rows = self.action_space.encode(self.actions)
        self.value = self.value + rows.sum().astype(np.uint8) + np.uint8(1)
        return np.repeat(self.value, 4, axis=0)

    def close(self) -> None:
        pass
