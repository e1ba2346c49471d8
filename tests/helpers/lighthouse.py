"""A toy game that can be recorded and learnt: a bright column on a dark shore."""

from __future__ import annotations

from typing import Any

import numpy as np

from reverie.types import Action, ActionSpace, Frames


class Lighthouse:
    """A bright column on a dark shore; turning moves it, walking widens it."""

    action_space = ActionSpace(("forward", "back", "left", "right"))
    resolution = (32, 64)
    block_frames = 1
    finished = False

    def __init__(self, **options: Any) -> None:
        self.reset(0)

    def reset(self, seed: int) -> Frames:
        self._yaw, self._size = float(seed % 20 - 10), 6.0
        return self._draw()

    def step(self, action: Action) -> Frames:
        self._yaw += action.mouse[1]
        self._size = float(np.clip(self._size + ("forward" in action.keys) - ("back" in action.keys), 3, 20))
        return self._draw()

    def close(self) -> None:
        pass

    def _draw(self) -> Frames:
        x = np.arange(64) - 31.5 + 0.7 * (self._yaw % 90 - 45)
        light = 40 + 180 * (np.abs(x) < self._size)
        return np.broadcast_to(light[None, None, :, None], (1, 32, 64, 3)).astype(np.uint8)
