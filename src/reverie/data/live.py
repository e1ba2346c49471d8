"""Recording while a person plays: a World that keeps what passes through it.

    game = open_world("vizdoom")
    with open_writer(Path("my-play"), "vizdoom", game) as writer:
        world = RecordedWorld(game, writer)
        world.reset(0); world.step(action); world.close()

The player's frames and the game's input are both exact here, so rows and frames need no clock.
"""

from __future__ import annotations

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.data.depth import DepthRecord
from reverie.data.facts import WorldFacts
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.errors import DataError
from reverie.types import FPS, POSE_NAMES, Action, ActionSpace, Frames, Geometry, HasGeometry, World

Picture = npt.NDArray[np.uint8]
Pose = npt.NDArray[np.float32]

EPISODE_FRAMES = 60 * FPS
"""A longer walk is cut here into episodes that follow each other: a killed recorder loses a minute at most."""

DEPTH_EVERY_FRAMES = 8
"""The depth of every so many frames is recorded: half as often as by `reverie record`, for a person waits for it."""

MIN_EPISODE_FRAMES = 2 * FPS
"""A shorter one is thrown away: a restart right after a start."""


def open_writer(root: Path, name: str, world: World) -> DatasetWriter:
    """The dataset at `root`, made or continued, for a person's play of the game `name` that is `world`.

    Raises DataError for a folder that is in use, or holds a dataset of another game's keys, size or pose.
    """
    facts = WorldFacts(world)
    return DatasetWriter(
        root,
        world.action_space,
        world.resolution,
        FPS,
        pose_names=POSE_NAMES if facts.has_pose else (),
        task=f"play {name}",
        notes={
            "player": "person",
            "world": name,
            "fov_deg": facts.camera.get("fov_deg"),
            "pixel_aspect": facts.camera.get("pixel_aspect", 1.0),
        },
        depth_every=DEPTH_EVERY_FRAMES if isinstance(world, HasGeometry) else 0,
    )


Row = tuple[Picture, Action, Pose | None, Geometry | None]


class EpisodeKeeper:
    """Gathers rows into an episode and adds it to `writer`, encoding on a thread of its own.

    What goes wrong there (a full disk, say) is raised by the next `end` or `close`.  The writer stays the caller's.
    """

    def __init__(self, writer: DatasetWriter) -> None:
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reverie-record")
        self._pending: Future[None] | None = None
        self._rows: list[Row] = []

    def __len__(self) -> int:
        """Frames of the episode under way."""
        return len(self._rows)

    def add(self, picture: Picture, action: Action, pose: Pose | None = None, geometry: Geometry | None = None) -> None:
        """A row: the frame `(H, W, 3)`, and the action that shows in the next frame."""
        self._rows.append((picture, action, pose, geometry))

    def end(self, meta: dict[str, Any]) -> None:
        """The episode ends here; what follows is another.  One shorter than MIN_EPISODE_FRAMES is thrown away."""
        rows, self._rows = self._rows, []
        self._settle()
        if len(rows) >= MIN_EPISODE_FRAMES:
            self._pending = self._thread.submit(self._keep, rows, meta)

    def close(self) -> None:
        """Wait until all is in the dataset.  Raises DataError if it could not be kept."""
        try:
            self._settle()
        finally:
            self._thread.shutdown(wait=True)

    def _keep(self, rows: list[Row], meta: dict[str, Any]) -> None:
        frames = np.stack([row[0] for row in rows])
        actions = self._writer.action_space.encode(row[1] for row in rows)
        poses = [row[2] for row in rows if row[2] is not None]
        depth = [DepthRecord.of(i, row[3]) for i, row in enumerate(rows) if row[3] is not None]
        video = self._writer.partial / f"{uuid.uuid4().hex}.mp4"
        write_video(video, frames, FPS)
        stacked = np.stack(poses).astype(np.float32) if poses else None
        self._writer.add(video, actions, stacked, picture_statistics(frames), meta, depth)

    def _settle(self) -> None:
        """Wait for the episode before; its errors are raised now."""
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except OSError as error:
                raise DataError(f"{self._writer.root}: the recording stopped, {error.strerror or error}") from error


class RecordedWorld:
    """`world`, played as always, with every frame and action added to `writer` as episodes.

    An episode ends with `reset`, with `close`, where the game ends and after a minute.
    """

    def __init__(self, world: World, writer: DatasetWriter, *, player: str = "person") -> None:
        if world.block_frames != 1:
            raise DataError(f"only games of one frame a step are recorded, got steps of {world.block_frames} frames")
        self._world, self._facts = world, WorldFacts(world)
        self._player = player
        self._keeper = EpisodeKeeper(writer)
        self._seed = 0
        self._seen: tuple[Picture, Pose | None, Geometry | None] | None = None

    @property
    def action_space(self) -> ActionSpace:
        return self._world.action_space

    @property
    def resolution(self) -> tuple[int, int]:
        return self._world.resolution

    @property
    def block_frames(self) -> int:
        return 1

    def reset(self, seed: int) -> Frames:
        """End the episode, and start again."""
        self._cut()
        frames = self._world.reset(seed)
        self._seed = seed
        self._look(frames)
        return frames

    def step(self, action: Action) -> Frames:
        """One frame under `action`; the frame before and `action` become a row."""
        if self._seen is None:
            raise DataError("step before reset; call reset(seed) first")
        frames = self._world.step(action)
        picture, pose, geometry = self._seen
        self._keeper.add(picture, action, pose, geometry)
        self._look(frames)
        if len(self._keeper) >= EPISODE_FRAMES or self._facts.finished:
            self._cut()
        return frames

    def close(self) -> None:
        """Keep the last episode, then close the game.  Raises DataError if the recording could not be kept."""
        try:
            self._cut()
            self._keeper.close()
        finally:
            self._world.close()

    def _look(self, frames: Frames) -> None:
        world, is_due = self._world, len(self._keeper) % DEPTH_EVERY_FRAMES == 0
        geometry = world.geometry() if is_due and isinstance(world, HasGeometry) else None
        self._seen = (np.array(frames[-1]), self._facts.pose, geometry)

    def _cut(self) -> None:
        facts = self._facts
        meta = {"seed": self._seed, "map": facts.map, "heldout": facts.heldout}
        self._keeper.end({**meta, "player": self._player, **facts.episode_info})
