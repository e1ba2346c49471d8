"""A world that costs nothing: a white column goes by as the player turns, and a dark bar as it walks.

`python -m tests.helpers.toy_world FOLDER FRAMES [PROCESSES]` records it, for tests that kill the recorder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.record import RecordConfig, record
from reverie.errors import WorldError
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
        return np.array([self._x, 0.0, 0.0, self._yaw, self._pitch, 0.0], np.float32)

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
        column = int(-self._yaw / 360.0 * 48)
        picture[:, np.arange(column, column + 12) % 48] = 255
        bar = int(self._x / 5.0)
        picture[np.arange(bar, bar + 8) % 32] //= 2
        return picture[None]


class BadWorld(ToyWorld):
    """Goes wrong in some episodes: by their seed an error, the death of its process, a hang, or nothing.

    once: a folder; each seed goes wrong only the first time, and leaves a file there.
    """

    def __init__(self, once: str = "", kinds: str = "raise die hang fine") -> None:
        super().__init__()
        self.once, self.kinds = once, kinds.split()
        self.child = subprocess.Popen(["sleep", "1000"])

    def step(self, action: Action) -> Frames:
        kind = self.kinds[self._seed % len(self.kinds)]
        if self._steps == 10 and kind != "fine" and not self._is_done():
            if kind == "raise":
                raise WorldError("the game shows an error")
            if kind == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "hang":
                time.sleep(1000)
        return super().step(action)

    def reset(self, seed: int) -> Frames:
        self._seed = seed
        return super().reset(seed)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()

    def _is_done(self) -> bool:
        if not self.once:
            return False
        try:
            (Path(self.once) / str(self._seed)).touch(exist_ok=False)
        except FileExistsError:
            return True
        return False


def stuck() -> ToyWorld:
    return ToyWorld(stuck=True)


def short() -> ToyWorld:
    return ToyWorld(ends_after=25)


def register(setter: Callable[[Any, str, WorldInfo], Any]) -> None:
    setter(WORLDS, "toy", WorldInfo("toy", "a column that turns", ToyWorld))
    for name, summary, make in (
        ("stuck", "a wall", stuck),
        ("short", "ends soon", short),
        ("bad", "crashes", BadWorld),
    ):
        setter(WORLDS, name, WorldInfo(name, summary, make))


def toy_config(out: Path, frames: int, **changes: Any) -> RecordConfig:
    fields = {"episode_seconds": 1.6, "min_episode_seconds": 0.5, "processes": 0, "hours": frames / 25 / 3600}
    return RecordConfig(**{"world": "toy", "out": out, **fields, **changes})


def record_toy(out: Path, frames: int, **changes: Any) -> Path:
    record(toy_config(out, frames, **changes))
    return out


def start_recorder(*words: str) -> subprocess.Popen[bytes]:
    """Starts this module as a script, in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "tests.helpers.toy_world", *words], cwd=Path(__file__).parents[2])


if __name__ == "__main__":
    from tests.helpers import toy_world  # under its own name, so that workers find the class

    toy_world.register(lambda table, name, info: table.__setitem__(name, info))
    toy_world.record_toy(Path(sys.argv[1]), int(sys.argv[2]), processes=int([*sys.argv, "0"][3]))
