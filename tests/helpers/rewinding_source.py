"""The toy dream with a past: sessions that can be sought through, saved and taken up again, without a model."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tests.helpers.fake_source import FakeSource, FakeWorld

from reverie.engine.sessions.script import ActionScript
from reverie.engine.sessions.session_file import SessionFile, encode_png
from reverie.errors import WorldError
from reverie.serve.sources import Picture
from reverie.types import Action, Frames

SEEK_BLOCKS = 7
"""Blocks that a seek generates again: as many as lie between two snapshots of a model's session."""


class Nothing:
    """A snapshot of nothing much."""

    def save(self, path: Path) -> None:
        path.write_bytes(bytes(100_000))


class RewindingWorld(FakeWorld):
    """Goes back to any frame; a seek costs as much as a model's."""

    def reset(self, seed: int) -> Frames:
        self._actions: list[Action] = []
        self.frame = 1
        return super().reset(seed)

    def step(self, action: Action) -> Frames:
        frames = super().step(action)
        del self._actions[self.frame - 1 :]
        self._actions += [action] * len(frames)
        self.frame += len(frames)
        return frames

    @property
    def earliest(self) -> int:
        return 1

    @property
    def last(self) -> int:
        return 1 + len(self._actions)

    @property
    def shown(self) -> Frames:
        return self._frame()[None]

    def seek(self, frame: int) -> Frames:
        time.sleep(SEEK_BLOCKS * self._source.cost_s)
        self.frame = min(max(frame, 1), self.last)
        played = self._actions[: self.frame - 1]
        self.yaw = sum(action.mouse[1] for action in played)
        self.light = sum(2 * (("forward" in action.keys) - ("back" in action.keys)) for action in played)
        return self.shown

    def snapshot(self) -> Nothing:
        return Nothing()

    def resume(self, file: SessionFile, snapshot: Nothing, shown: npt.NDArray[np.uint8]) -> None:
        raise WorldError("the fake world is not taken up from a file")

    def describe(self, title: str = "") -> SessionFile:
        done = self._actions[: self.frame - 1]
        script = ActionScript.from_actions(done) if done else None
        keys, start = self.action_space.keys, encode_png(self._picture)
        return SessionFile(model="fake/0", seed=self.seed, keys=keys, mouse=True, start=start, script=script).titled(
            title
        )


class RewindingSource(FakeSource):
    """A Source of RewindingWorlds."""

    def open(self, picture: Picture | None, seed: int) -> FakeWorld:
        if picture is None:
            raise WorldError("the fake world needs a picture; choose one")
        return RewindingWorld(self, picture)
