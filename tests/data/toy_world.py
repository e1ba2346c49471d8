"""A world that costs nothing: a grey column wanders over a coloured ground as the player turns and walks.

Also a script: `python toy_world.py FOLDER FRAMES` records it, for tests that kill the recorder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.record import RecordConfig, record
from reverie.types import Action, ActionSpace, Frames
from reverie.worlds import WORLDS, WorldInfo


class ToyWorld:
    action_space = ActionSpace(("forward", "back", "left", "right"))
    resolution = (32, 48)
    block_frames = 1

    def __init__(self, ends_after: int = 10**9, stuck: bool = False) -> None:
        self.ends_after = ends_after
        self.stuck = stuck
        self.finished = False
        self.closed = False

    @property
    def pose(self) -> np.ndarray:
        return np.array([self._x, 0.0, 0.0, self._yaw, self._pitch], np.float32)

    def reset(self, seed: int) -> Frames:
        self._rng = np.random.default_rng(seed)
        self._colour = self._rng.integers(40, 200, 3)
        self._x, self._yaw, self._pitch, self._steps = 0.0, float(self._rng.uniform(0, 360)), 0.0, 0
        self.finished = False
        return self._draw()

    def step(self, action: Action) -> Frames:
        self._steps += 1
        if not self.stuck:
            self._x += 10.0 * (("forward" in action.keys) - ("back" in action.keys))
            self._x += 10.0 * (("right" in action.keys) - ("left" in action.keys))
        self._pitch += action.mouse[0]
        self._yaw = (self._yaw + action.mouse[1]) % 360.0
        self.finished = self._steps >= self.ends_after
        return self._draw()

    def close(self) -> None:
        self.closed = True

    def _draw(self) -> Frames:
        picture = np.broadcast_to(self._colour.astype(np.uint8), (32, 48, 3)).copy()
        column = int(self._yaw / 360.0 * 48)
        picture[:, np.arange(column, column + 12) % 48] = 255
        return picture[None]


def register(setter: Callable[[Any, str, WorldInfo], Any]) -> None:
    setter(WORLDS, "toy", WorldInfo("toy", "a column that turns", ToyWorld))
    setter(WORLDS, "stuck", WorldInfo("stuck", "a wall", lambda: ToyWorld(stuck=True)))
    setter(WORLDS, "short", WorldInfo("short", "ends soon", lambda: ToyWorld(ends_after=25)))


def toy_config(out: Path, frames: int, **changes: Any) -> RecordConfig:
    fields = {"episode_seconds": 1.6, "min_episode_seconds": 0.5, "processes": 0, "hours": frames / 25 / 3600}
    return RecordConfig(**{"world": "toy", "out": out, **fields, **changes})


def record_toy(out: Path, frames: int, **changes: Any) -> Path:
    record(toy_config(out, frames, **changes))
    return out


if __name__ == "__main__":
    register(lambda table, name, info: table.__setitem__(name, info))
    record_toy(Path(sys.argv[1]), int(sys.argv[2]))
