"""Sources of worlds: a model that generates, or a real game.  Both open Worlds, and the page treats them alike."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from reverie.data.live import RecordedWorld, open_writer
from reverie.engine.sessions.session_file import MAX_OPTIONS
from reverie.errors import CheckpointError, DataError, WorldError
from reverie.serve.bindings import Bindings, bindings_for
from reverie.types import FPS, Action, ActionSpace, Frames, World
from reverie.worlds import open_world

if TYPE_CHECKING:
    from reverie.data.writer import DatasetWriter
    from reverie.engine.engine import Engine
    from reverie.engine.loading.scenes import SceneCard
    from reverie.engine.sessions.session import Session
    from reverie.engine.sessions.session_file import SessionFile
    from reverie.engine.sessions.timeline import Timeline
    from reverie.serve.sessions import Rewindable

log = logging.getLogger("reverie.serve")

Picture = npt.NDArray[np.uint8]
"""One image, `(H, W, 3)` uint8 RGB."""

_SIZED = ("variant", "decoder", "preset", "weights")
"""Options of `reverie.load` that decide how much memory a model takes."""

Progress = Callable[[float, str], None]
"""Callback of a warm-up's progress: 0..1, and the current task."""


@dataclass(frozen=True, slots=True)
class ScenePlace:
    """A start of a scene: the scene's folder, and the start's number."""

    folder: Path
    start: int


@dataclass(frozen=True, slots=True, eq=False)
class StartPicture:
    """An image to start on.

    keys, mouse: the controls of the game that it is from; None where they are not known.  scene, place: the title of
    the scene that it lies in, and where there; None for an image alone.
    """

    id: str
    name: str
    picture: Picture
    keys: tuple[str, ...] | None = None
    mouse: bool | None = None
    scene: str | None = None
    place: ScenePlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorldSpec:
    """Description of a loaded source.

    resolution: (H, W).  uploads: whether sessions can start on any image.  rewind_s: how far back its worlds can go; 0
    where they cannot.  views: which its worlds can show, see `serve.swap`; empty for those that have one.  passes:
    numbers of denoising passes that blocks can be made in, ascending, and own_passes the model's own; its worlds are
    then `HasPasses`.
    """

    name: str
    kind: Literal["dream", "game"]
    action_space: ActionSpace
    resolution: tuple[int, int]
    block_frames: int
    bindings: Bindings
    fps: float = FPS
    uploads: bool = False
    starts: tuple[StartPicture, ...] = field(default=())
    rewind_s: float = 0.0
    views: tuple[str, ...] = ()
    passes: tuple[int, ...] = ()
    own_passes: int = 0


class Source(Protocol):
    """Opens Worlds.  All calls come from one thread, the generation thread; `load` comes first, once."""

    @property
    def name(self) -> str:
        """Name of the source, known before it is loaded."""
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


@runtime_checkable
class HasScenes(Protocol):
    """A Source whose spec has starts in scenes."""

    def open_scene(self, place: ScenePlace, seed: int) -> World:
        """A World that starts in a scene.  As `Source.open`, on the generation thread."""
        ...


@runtime_checkable
class PlaysTogether(Protocol):
    """A Source whose worlds can be stepped together, faster than one after another."""

    def step_together(self, worlds: Sequence[World], actions: Sequence[Action]) -> list[Frames | Exception]:
        """The next block of each of these worlds, or the error that it ends with.  On the generation thread."""
        ...


@runtime_checkable
class AroundSession(Protocol):
    """A World around a session.  played: called with each block that the session has made together with others."""

    @property
    def session(self) -> Session: ...
    def played(self, action: Action, frames: Frames) -> None: ...


@runtime_checkable
class HasMemory(Protocol):
    """A Source that knows what loading it takes."""

    def memory(self) -> tuple[float, float] | None:
        """Bytes that loading takes, about, and bytes that are free where it is loaded; None where that is unknown."""
        ...


@runtime_checkable
class HasPasses(World, Protocol):
    """A World of a model; `reset` takes the number of denoising passes of its blocks."""

    @property
    def passes(self) -> int: ...
    def reset(self, seed: int, passes: int | None = None) -> Frames: ...


@runtime_checkable
class HasFiles(Protocol):
    """A Source that opens the files of saved sessions."""

    def open_file(self, file: SessionFile) -> tuple[Timeline, list[tuple[Action, ...]], list[str]]:
        """Opens a session at its start, on the generation thread.

        Returns it, its actions for one step after another, and reasons why its frames may differ.  Raises DataError
        for a session that the model cannot play.
        """
        ...


@runtime_checkable
class HasGame(Protocol):
    """A Source that plays a real game beside its sessions."""

    def open_beside(
        self, file: SessionFile, session: Timeline, current: World | None = None
    ) -> tuple[Rewindable, list[str]]:
        """Opens the game beside a saved session that stands at its end, on the generation thread.

        current: the player's world, whose game may be played on.  Returns the world of both, as it was saved as far as
        that can be, and lines for the player.
        """
        ...


class ModelSource:
    """Worlds generated by a model: `model` is a name or folder for `reverie.load`, or an Engine that is loaded already.

    scene, start: a scene, by name or folder, and the number of the start there that the page begins in; the bundled
    scenes come after it.  rewind_s, rewind_bytes: how far back a session can go, and disk for that.  options: as
    `reverie.load` takes them.
    """

    def __init__(
        self,
        model: str | Engine = "nano",
        *,
        device: str = "auto",
        scene: str | Path | None = None,
        start: int = 0,
        rewind_s: float = 300.0,
        rewind_bytes: int = 5 * 2**29,
        **options: Any,
    ) -> None:
        self._model = model
        self._rewind_s, self._rewind_bytes = rewind_s, rewind_bytes
        self._scenes: dict[str, Path] = {}
        self._scene, self._start = scene, start
        self._device = device
        self._options = options
        self._engine: Engine | None = None if isinstance(model, str) else model

    @property
    def name(self) -> str:
        if not isinstance(self._model, str):
            return self._model.name
        return Path(self._model).resolve().name if Path(self._model).is_dir() else self._model

    def load(self, progress: Progress) -> WorldSpec:
        if isinstance(self._model, str):
            from reverie.engine.engine import load  # torch: only now, in the background of the page

            self._engine = load(self._model, device=self._device, progress=progress, **self._options)
        engine = self.engine
        starts = (*_scene_starts(engine, self._scene, self._start), *_starts(engine))
        self._scenes = {one.place.folder.resolve().name: one.place.folder for one in starts if one.place is not None}
        if starts and (first := starts[0].place) is not None:
            engine.load_scene(first.folder)  # so that the first world opens at once
        return WorldSpec(
            name=engine.name,
            kind="dream",
            action_space=engine.action_space,
            resolution=engine.resolution,
            fps=engine.fps,
            block_frames=engine.block_frames,
            bindings=bindings_for(engine.action_space),
            uploads=True,
            starts=starts,
            rewind_s=self._rewind_s,
            passes=engine.pass_counts,
            own_passes=len(engine.schedule().sigmas),
        )

    def open(self, picture: Picture | None, seed: int) -> World:
        if picture is None:
            raise WorldError(f"{self.name} dreams on from a picture, and none is given; choose one or upload your own")
        return self.timeline(self.engine.open(picture, seed=seed))

    def open_scene(self, place: ScenePlace, seed: int) -> World:
        return self.timeline(self.engine.open(seed=seed, scene=place.folder, start=place.start))

    def open_file(self, file: SessionFile) -> tuple[Timeline, list[tuple[Action, ...]], list[str]]:
        from reverie.engine.sessions.session_file import open_session
        from reverie.engine.sessions.timeline import blocks_of

        session = open_session(self.engine, file, self._scenes)
        return self.timeline(session), blocks_of(session, file), file.warnings(session)

    def timeline(self, session: Session) -> Timeline:
        """A session that can go back as far as this source's can."""
        from reverie.engine.sessions.timeline import Timeline

        return Timeline(session, rewind_s=self._rewind_s, max_bytes=self._rewind_bytes)

    def step_together(self, worlds: Sequence[World], actions: Sequence[Action]) -> list[Frames | Exception]:
        from reverie.engine.sessions.batch import make_blocks
        from reverie.engine.sessions.session import Session

        made: list[Frames | Exception | None] = [None] * len(worlds)
        inner = [world if isinstance(world, Session) else _session_of(world) for world in worlds]
        together = [i for i, session in enumerate(inner) if session is not None]
        sessions = [session for session in inner if session is not None]
        for i, frames in zip(together, make_blocks(sessions, [actions[i] for i in together]), strict=True):
            made[i] = frames
        for i, (world, action) in enumerate(zip(worlds, actions, strict=True)):
            try:
                if isinstance(world, AroundSession) and isinstance(frames := made[i], np.ndarray):
                    world.played(action, frames)
                elif made[i] is None:
                    made[i] = world.step(action)
            except Exception as error:
                made[i] = error
        return [block for block in made if block is not None]

    def memory(self) -> tuple[float, float] | None:
        """See `HasMemory`: unknown for an engine, and for files that are not on this machine yet."""
        if not isinstance(self._model, str):
            return None
        from reverie.engine.loading.hardware_check import memory_to_load

        known = {name: self._options[name] for name in _SIZED if name in self._options}
        return memory_to_load(self._model, device=self._device, **known)

    def close(self) -> None:
        if isinstance(self._model, str):
            self._engine = None  # a model by name is loaded again, should it be chosen

    @property
    def engine(self) -> Engine:
        """The engine.  Raises WorldError before `load`."""
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

    @property
    def options(self) -> str:
        """The options as text, as session files have them."""
        return " ".join(f"{key}={value}" for key, value in sorted(self._options.items()))[:MAX_OPTIONS]

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


def _session_of(world: World) -> Session | None:
    """The session that a world is around; None for one that has to be stepped alone."""
    return world.session if isinstance(world, AroundSession) else None


def _scene_starts(engine: Engine, scene: str | Path | None, start: int) -> tuple[StartPicture, ...]:
    """Starts in scenes: start number `start` of `scene`, the others of it, then those of the bundled scenes.

    Raises DataError or CheckpointError for a `scene` that the model cannot play in; bundled ones are then left out.
    """
    from reverie.engine.loading.scenes import SceneCard, bundled_scenes

    found: list[StartPicture] = []
    if scene is not None:
        card = SceneCard.read(scene)
        card.check(engine.bundle.config)
        card.start(start)
        own = _starts_of(card, engine.resolution)
        found = [own[start], *own[:start], *own[start + 1 :]]
    for folder in bundled_scenes():
        if any(one.place is not None and one.place.folder.resolve() == folder.resolve() for one in found):
            continue
        try:
            card = SceneCard.read(folder)
            card.check(engine.bundle.config)
        except CheckpointError:
            break  # a model without a memory
        except DataError as error:
            log.info("the bundled scene %s is not offered: %s", folder.name, error)
            continue
        found += _starts_of(card, engine.resolution)
    return tuple(found)


def _starts_of(card: SceneCard, resolution: tuple[int, int]) -> list[StartPicture]:
    from reverie.engine.media.images import load_image

    name = re.sub(r"[^A-Za-z0-9_.-]", "-", card.name)[:40]
    digest = hashlib.sha256(str(card.folder.resolve()).encode()).hexdigest()[:6]  # two folders may have one name
    return [
        StartPicture(
            f"scene-{name}-{digest}-{number}",
            one.title,
            load_image(one.image, resolution),
            card.keys,
            card.mouse,
            card.title,
            ScenePlace(card.folder, number),
        )
        for number, one in enumerate(card.starts)
    ]


def _starts(engine: Engine) -> tuple[StartPicture, ...]:
    from reverie.engine.media.images import load_image

    return tuple(
        StartPicture(f"start-{index}", frame.title, load_image(frame.file, engine.resolution), frame.keys, frame.mouse)
        for index, frame in enumerate(engine.start_frames())
    )
