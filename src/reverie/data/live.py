"""Recording while a person plays: a World that keeps what passes through it.

    game = open_world("vizdoom")
    with open_writer(Path("my-play"), "vizdoom", game) as writer:
        world = RecordedWorld(game, writer)
        world.reset(0); world.step(action); world.close()

What the player was shown and what the game was told are both known exactly here, so rows and frames need no clock.
"""

from __future__ import annotations

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.video import write_video
from reverie.data.writer import POSE_NAMES, DatasetWriter, picture_statistics
from reverie.errors import DataError
from reverie.types import FPS, Action, ActionSpace, Frames, World

EPISODE_FRAMES = 60 * FPS
"""A longer walk is cut here into episodes that follow each other: a killed recorder loses a minute at most."""

MIN_EPISODE_FRAMES = 2 * FPS
"""A shorter one is thrown away: a restart right after a start."""


def open_writer(root: Path, name: str, world: World) -> DatasetWriter:
    """The dataset at `root`, made or continued, for a person's play of the game `name` that is `world`.

    Raises DataError for a folder that is in use, or holds a dataset of another game's keys, size or pose.
    """
    return DatasetWriter(
        root,
        world.action_space,
        world.resolution,
        FPS,
        pose_names=POSE_NAMES if hasattr(type(world), "pose") else (),
        task=f"play {name}",
        notes={"player": "person", "world": name, "fov_deg": getattr(world, "fov_deg", None)},
    )


class RecordedWorld:
    """`world`, played as always, with every frame and action added to `writer` as episodes.

    An episode ends with `reset`, with `close` and after a minute.  Encoding runs on a thread of its own; what goes
    wrong there (a full disk, say) is raised when the next episode ends.  The writer stays the caller's to close.
    """

    def __init__(self, world: World, writer: DatasetWriter, *, player: str = "person") -> None:
        if world.block_frames != 1:
            raise DataError(f"only games of one frame a step are recorded, got steps of {world.block_frames} frames")
        self._world = world
        self._writer = writer
        self._player = player
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reverie-record")
        self._pending: Future[None] | None = None
        self._seed = 0
        self._frames: list[Frames] = []
        self._actions: list[Action] = []
        self._poses: list[Any] = []
        self._seen: tuple[Frames, Any] | None = None

    @property
    def action_space(self) -> ActionSpace:
        return self._world.action_space

    @property
    def resolution(self) -> tuple[int, int]:
        return self._world.resolution

    @property
    def block_frames(self) -> int:
        return 1

    @property
    def num_frames(self) -> int:
        """Frames that are in the dataset, or on their way."""
        return self._writer.num_frames + len(self._frames)

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
        picture, pose = self._seen
        self._frames.append(picture)
        self._poses.append(pose)
        self._actions.append(action)
        self._look(frames)
        if len(self._frames) >= EPISODE_FRAMES or getattr(self._world, "finished", False):
            self._cut()
        return frames

    def close(self) -> None:
        """Keep the last episode, then close the game.  Raises DataError if the recording could not be kept."""
        try:
            self._cut()
            self._settle()
        finally:
            self._thread.shutdown(wait=True)
            self._world.close()

    def _look(self, frames: Frames) -> None:
        self._seen = (np.array(frames[-1]), getattr(self._world, "pose", None))

    def _cut(self) -> None:
        """Hand the rows so far to the thread that encodes; the walk goes on in a new episode."""
        frames, actions, poses = self._frames, self._actions, self._poses
        self._frames, self._actions, self._poses = [], [], []
        self._settle()
        if len(frames) < MIN_EPISODE_FRAMES:
            return
        world = self._world
        meta = {
            "seed": self._seed,
            "map": str(getattr(world, "map", "")),
            "heldout": bool(getattr(world, "heldout", False)),
        }
        meta |= {"player": self._player, **getattr(world, "episode_info", {})}
        rows = self.action_space.encode(actions)
        stacked = None if poses[0] is None else np.stack(poses).astype(np.float32)
        self._pending = self._thread.submit(self._keep, np.stack(frames), rows, stacked, meta)

    def _keep(self, frames: Frames, rows: Any, poses: Any, meta: dict[str, Any]) -> None:
        video = self._writer.partial / f"{uuid.uuid4().hex}.mp4"
        write_video(video, frames, FPS)
        self._writer.add(video, rows, poses, picture_statistics(frames), meta)

    def _settle(self) -> None:
        """Wait for the episode before; what went wrong with it is told now."""
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except OSError as error:
                raise DataError(f"{self._writer.root}: the recording stopped, {error.strerror or error}") from error
