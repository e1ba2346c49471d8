"""A dream without a model: the start picture slides with the mouse and brightens with the keys.  Quick and exact."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn

from reverie.errors import WorldError
from reverie.serve import app
from reverie.serve.access import Access
from reverie.serve.bindings import bindings_for
from reverie.serve.host import Limits
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import Picture, Progress, Source, StartPicture, WorldSpec
from reverie.types import Action, ActionSpace, Frames

RESOLUTION = (64, 112)
SPACE = ActionSpace(("forward", "back", "left", "right"))


class FakeWorld:
    """Turning right by a degree moves the picture two pixels to the left; forward makes it brighter, back darker."""

    resolution = RESOLUTION

    def __init__(self, source: FakeSource, picture: Picture) -> None:
        self._source = source
        self._picture = picture
        self.action_space = source.space
        self.block_frames = source.block_frames
        self.yaw, self.light, self.num_steps = 0.0, 0, 0
        self.is_closed = False

    def reset(self, seed: int) -> Frames:
        self.seed, self.yaw, self.light, self.num_steps = seed, 0.0, 0, 0
        return self._frame()[None]

    def step(self, action: Action) -> Frames:
        self.action_space.check(action)
        assert threading.current_thread().name.startswith("reverie-generate")
        time.sleep(self._source.cost_s)
        self.num_steps += 1
        self._source.actions.append(action)
        if self._source.fail_at_step == self.num_steps:
            raise self._source.failure
        frames = []
        for _ in range(self.block_frames):
            self.yaw += action.mouse[1]
            self.light += 2 * (("forward" in action.keys) - ("back" in action.keys))
            frames.append(self._frame())
        return np.stack(frames)

    def close(self) -> None:
        self.is_closed = True

    def _frame(self) -> Picture:
        moved = np.roll(self._picture, -round(2 * self.yaw), axis=1).astype(np.int16)
        return (moved + self.light % 64).clip(0, 255).astype(np.uint8)


@dataclass
class FakeSource:
    """A Source of FakeWorlds; `gate` holds the warm-up back until it is set."""

    block_frames: int = 4
    cost_s: float = 0.0
    num_starts: int = 2
    uploads: bool = True
    fail_at_step: int | None = None
    failure: Exception = field(default_factory=lambda: WorldError("the fake world broke off; restart it"))
    load_failure: Exception | None = None
    gate: threading.Event | None = None
    pictures: tuple[Picture, ...] = ()
    space: ActionSpace = SPACE
    start_keys: dict[int, tuple[str, ...]] = field(default_factory=dict)  # what the games of some pictures know
    start_mouse: dict[int, bool] = field(default_factory=dict)
    name: str = "fake"
    is_closed: bool = False
    worlds: list[FakeWorld] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def load(self, progress: Progress) -> WorldSpec:
        progress(0.5, "half awake")
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.load_failure is not None:
            raise self.load_failure
        pictures = self.pictures or tuple(_picture(index) for index in range(self.num_starts))
        return WorldSpec(
            name=self.name,
            kind="dream",
            action_space=self.space,
            resolution=RESOLUTION,
            block_frames=self.block_frames,
            bindings=bindings_for(self.space),
            uploads=self.uploads,
            starts=tuple(
                StartPicture(f"start-{i}", f"room {i}", p, self.start_keys.get(i), self.start_mouse.get(i))
                for i, p in enumerate(pictures)
            ),
        )

    def open(self, picture: Picture | None, seed: int) -> FakeWorld:
        if picture is None:
            raise WorldError("the fake world needs a picture; choose one")
        self.worlds.append(FakeWorld(self, picture))
        return self.worlds[-1]

    def close(self) -> None:
        self.is_closed = True


def _picture(index: int) -> Picture:
    """Soft stripes of one colour, different for each index."""
    height, width = RESOLUTION
    x = np.linspace(0, 2 * np.pi * (index + 2), width, endpoint=False)
    stripes = 90 + 50 * np.sin(x)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    tint = np.array([1.0, 0.55 + 0.3 * (index % 2), 0.5 + 0.4 * (index % 3 == 1)])
    return (stripes * tint).astype(np.uint8)


@contextlib.contextmanager
def running(
    source: Source | Mapping[str, Source],
    limits: Limits | None = None,
    access: Access | None = None,
    saves: SaveFolder | None = None,
) -> Iterator[int]:
    """A real server in a thread; yields its port."""
    listener = app.bind("127.0.0.1", 0)
    server = uvicorn.Server(app.server_config(app.create_app(source, limits, access=access, saves=saves)))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


ROOM = 100.0


class Sized(FakeSource):
    """A fake model that takes memory of `room`, in which the loaded ones lie."""

    def __init__(self, name: str, num_bytes: float, loaded: dict[str, float], **options: Any) -> None:
        super().__init__(name=name, **options)
        self.num_bytes, self.loaded, self.threads = num_bytes, loaded, []

    def memory(self) -> tuple[float, float] | None:
        return self.num_bytes, ROOM - sum(self.loaded.values())

    def load(self, progress: Progress) -> WorldSpec:
        self.threads.append(threading.current_thread().name)
        spec = super().load(progress)
        self.loaded[self.name] = self.num_bytes
        assert sum(self.loaded.values()) <= ROOM
        return spec

    def close(self) -> None:
        super().close()
        self.loaded.pop(self.name, None)
