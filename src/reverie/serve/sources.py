"""What can be played: a model that dreams, or a real game.  Both open Worlds, and the page cannot tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from reverie.data.live import RecordedWorld, open_writer
from reverie.errors import WorldError
from reverie.serve.bindings import Bindings, bindings_for
from reverie.types import FPS, ActionSpace, World
from reverie.worlds import open_world

if TYPE_CHECKING:
    from reverie.data.writer import DatasetWriter
    from reverie.engine.engine import Engine

Picture = npt.NDArray[np.uint8]
"""One picture, `(H, W, 3)` uint8 RGB."""

Progress = Callable[[float, str], None]
"""Told how far a warm-up is: 0..1, and what is being done."""


@dataclass(frozen=True, slots=True, eq=False)
class StartPicture:
    """A picture to start in.  keys, mouse: the controls of the game that it is from; None where they are not known."""

    id: str
    name: str
    picture: Picture
    keys: tuple[str, ...] | None = None
    mouse: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorldSpec:
    """What a loaded source plays.  resolution: (H, W).  uploads: whether any picture can be started in."""

    name: str
    kind: Literal["dream", "game"]
    action_space: ActionSpace
    resolution: tuple[int, int]
    block_frames: int
    bindings: Bindings
    fps: float = FPS
    uploads: bool = False
    starts: tuple[StartPicture, ...] = field(default=())


class Source(Protocol):
    """Opens Worlds.  All calls come from one thread, the generation thread; `load` comes first, once."""

    @property
    def name(self) -> str:
        """What is being loaded, known before it is."""
        ...

    def load(self, progress: Progress) -> WorldSpec:
        """Make ready to play; may take a minute.  Raises ReverieError."""
        ...

    def open(self, picture: Picture | None, seed: int) -> World:
        """A World that starts in `picture` (`(H, W, 3)` of the spec's resolution; None where there is no choice)."""
        ...

    def close(self) -> None:
        """Let go of what `load` took; comes last, after every World is closed."""
        ...


class ModelSource:
    """Worlds dreamt by a model: `model` is a name or folder for `reverie.load`, or an Engine that is loaded already.

    options: as `reverie.load` takes them.
    """

    def __init__(
        self,
        model: str | Engine = "nano",
        *,
        device: str = "auto",
        **options: Any,
    ) -> None:
        self._model = model
        self._device = device
        self._options = options
        self._engine: Engine | None = None if isinstance(model, str) else model

    @property
    def name(self) -> str:
        return self._model if isinstance(self._model, str) else self._model.name

    def load(self, progress: Progress) -> WorldSpec:
        if isinstance(self._model, str):
            from reverie.engine.engine import load  # torch: only now, in the background of the page

            self._engine = load(self._model, device=self._device, progress=progress, **self._options)
        engine = self._loaded()
        return WorldSpec(
            name=engine.name,
            kind="dream",
            action_space=engine.action_space,
            resolution=engine.resolution,
            fps=engine.fps,
            block_frames=engine.block_frames,
            bindings=bindings_for(engine.action_space),
            uploads=True,
            starts=_starts(engine),
        )

    def open(self, picture: Picture | None, seed: int) -> World:
        if picture is None:
            raise WorldError(f"{self.name} dreams on from a picture, and none is given; choose one or upload your own")
        return self._loaded().open(picture, seed=seed)

    def close(self) -> None:
        pass

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise WorldError(f"{self.name} is not loaded yet; call load first")
        return self._engine


class GameSource:
    """A real game, by its name in `reverie.worlds`; `options` are the game's own.

    record: the folder of a dataset that is made, or continued, of everything that is played.
    """

    def __init__(self, name: str, *, record: Path | None = None, **options: Any) -> None:
        self._name = name
        self._options = options
        self._record = record
        self._writer: DatasetWriter | None = None

    @property
    def name(self) -> str:
        return self._name

    def load(self, progress: Progress) -> WorldSpec:
        progress(0.2, f"starting {self._name}")
        world = open_world(self._name, **self._options)
        try:
            if self._record is not None:
                self._writer = open_writer(self._record, self._name, world)
            world.reset(0)
            return WorldSpec(
                name=self._name,
                kind="game",
                action_space=world.action_space,
                resolution=world.resolution,
                block_frames=world.block_frames,
                bindings=bindings_for(world.action_space),
            )
        finally:
            world.close()

    def open(self, picture: Picture | None, seed: int) -> World:
        world = open_world(self._name, **self._options)
        return world if self._writer is None else RecordedWorld(world, self._writer)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _starts(engine: Engine) -> tuple[StartPicture, ...]:
    from reverie.engine.images import load_image

    return tuple(
        StartPicture(f"start-{index}", frame.title, load_image(frame.file, engine.resolution), frame.keys, frame.mouse)
        for index, frame in enumerate(engine.start_frames())
    )
