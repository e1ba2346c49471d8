"""A session with its past: every action since the start, and a snapshot of every 0.64 s, so that it can go back.

On a CPU the latents of each block are kept too: what is gone back over is then not denoised again, and shows the same
frames also where they were made in a batch, whose last bits may differ from a session's that plays alone.

    timeline = Timeline(engine.open(image))
    timeline.step(action) ...
    frames = timeline.seek(timeline.last - 250)      # ten seconds back, bit for bit
    timeline.describe("my walk").save("walk.reverie")

A frame's number counts from 1, the start.  A session stands at the end of a block, so that is what is gone to: the
block that shows the frame.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor

from reverie.engine.sessions.history import SnapshotHistory
from reverie.engine.sessions.script import ActionScript
from reverie.engine.sessions.session import Session, Snapshot
from reverie.engine.sessions.session_file import SessionFile, describe_session
from reverie.errors import CheckpointError
from reverie.types import FPS, Action, ActionSpace, Frames, Pose

REWIND_S = 300.0
"""Seconds that a session can be rewound."""
SNAPSHOT_S = 0.64
"""Time between two snapshots: four blocks of nano are made again at most, of each of which 0.8 MB change anyway."""
REWIND_BYTES = 5 * 2**29
"""Disk for one session's snapshots: five minutes of nano take 2.2 GB."""


class Timeline:
    """A World: a session that can go back.

    rewind_s: how far; snapshot_s: time between two snapshots; max_bytes: of a temporary file for them, beyond which
    they thin out.
    """

    def __init__(
        self,
        session: Session,
        *,
        rewind_s: float = REWIND_S,
        snapshot_s: float = SNAPSHOT_S,
        max_bytes: int = REWIND_BYTES,
    ) -> None:
        self.session = session
        self._rewind_frames = round(rewind_s * FPS)
        self._snapshot_frames = round(snapshot_s * FPS)
        self._history = SnapshotHistory(max_bytes)
        self._blocks: list[tuple[Action, ...]] = []
        self._ends: list[int] = []
        self._latents: list[Tensor | None] = []
        self._shown = session.first_frame
        self._begin()

    @property
    def action_space(self) -> ActionSpace:
        return self.session.action_space

    @property
    def resolution(self) -> tuple[int, int]:
        return self.session.resolution

    @property
    def block_frames(self) -> int:
        return self.session.block_frames

    @property
    def seed(self) -> int:
        return self.session.seed

    @property
    def passes(self) -> int:
        """Denoising passes that a block is made in."""
        return self.session.passes

    @property
    def camera(self) -> Pose | None:
        """Pose (6,) of the last frame's camera, see `Session.camera`."""
        return self.session.camera

    @property
    def frame(self) -> int:
        """Number of the frame that the session stands at."""
        return self.session.num_frames

    @property
    def last(self) -> int:
        """Number of the last frame played; after `seek`, that is later than `frame` until the next step."""
        return self._ends[-1] if self._ends else 1

    @property
    def earliest(self) -> int:
        """Number of the first frame that `seek` reaches."""
        oldest = self._history.frames[0]
        return oldest if oldest == 1 else self._ends[min(self._block_of(oldest + 1), len(self._ends) - 1)]

    @property
    def shown(self) -> Frames:
        """The frame that the session stands at, (1, H, W, 3)."""
        return self._shown[-1:].copy()

    @property
    def num_bytes(self) -> int:
        """Disk that the snapshots take."""
        return self._history.num_bytes

    def reset(self, seed: int, passes: int | None = None) -> Frames:
        """Starts again from the same image or place, see `Session.reset`; the past is dropped."""
        self._shown = self.session.reset(seed, passes)
        self._begin()
        return self._shown.copy()

    def step(self, action: Action | Sequence[Action]) -> Frames:
        """Advances the session by a block, see `Session.step`, and drops all history after `frame`."""
        frames = self.session.step(action)
        self.played(action, frames)
        return frames

    def played(self, action: Action | Sequence[Action], frames: Frames) -> None:
        """Takes in a block that the session has made already, together with others."""
        num_frames = len(frames)
        kept = self._block_of(self.frame - num_frames + 1)
        if kept < len(self._blocks):
            del self._blocks[kept:], self._ends[kept:], self._latents[kept:]
            self._history.drop_after(self.frame - num_frames)
        self._blocks.append((action,) * num_frames if isinstance(action, Action) else tuple(action))
        self._ends.append(self.frame)
        self._latents.append(self.session.latents if self.session.engine.device.type == "cpu" else None)
        self._shown = frames
        self._keep()

    def seek(self, frame: int) -> Frames:
        """Goes to the end of the block that shows `frame`, bit for bit as it was; returns that block's frames.

        `frame` is limited to earliest .. last.  What was played later can be gone to again, until the next `step`.
        """
        frame = min(max(frame, self.earliest), self.last)
        if frame == 1:
            self._go_to_start()
            return self._shown.copy()
        block = self._block_of(frame)
        if self._ends[block] == self.frame:
            return self._shown.copy()
        begin = self._ends[block - 1] if block else 1
        kept = self._history.frames_before(begin + 1)
        assert kept is not None, "earliest lies after the oldest snapshot"
        if not kept <= self.frame <= begin:
            snapshot = self._history.before(begin + 1)
            assert snapshot is not None
            self.session.restore(snapshot)
        for index in range(self._block_of(self.frame + 1), block + 1):
            latents = self._latents[index]
            actions = self._blocks[index]
            self._shown = self.session.step(actions) if latents is None else self.session.replay(actions, latents)
        return self._shown.copy()

    def snapshot(self) -> Snapshot:
        """The session's state at `frame`."""
        return self.session.snapshot()

    def memory_map(self, size: int = 192) -> npt.NDArray[np.uint8] | None:
        """Draws the spatial memory from above, see `Session.memory_map`."""
        return self.session.memory_map(size)

    def describe(self, title: str = "") -> SessionFile:
        """The file of the session up to `frame`.  Raises ActionError for one that is longer than a day."""
        blocks = self._blocks[: self._block_of(self.frame + 1)]
        script = ActionScript.from_actions(action for block in blocks for action in block) if blocks else None
        return describe_session(self.session, script, self._shown, title)

    def resume(self, file: SessionFile, snapshot: Snapshot, shown: npt.NDArray[np.uint8]) -> None:
        """Goes on where `file` ends, whose state there is `snapshot`; the session must have been opened on `file`.

        shown: (H, W, 3), the last frame.  Raises CheckpointError for a snapshot of another session.
        """
        if (snapshot.num_frames, snapshot.seed) != (file.num_frames, file.seed):
            raise CheckpointError(
                f"the snapshot has {snapshot.num_frames} frames of seed {snapshot.seed}, the session "
                f"{file.num_frames} of seed {file.seed}; load another save"
            )
        blocks = blocks_of(self.session, file)
        self.session.restore(snapshot)
        self._blocks, self._ends = blocks, [1 + end for end in accumulate(map(len, blocks))]
        self._latents = [None] * len(blocks)
        self._shown = shown[None].copy()
        self._history.clear()
        self._history.add(self.session.snapshot(copy=False))

    def fork(self) -> Timeline:
        """A second session that goes on from here on its own, with the past up to here."""
        twin = object.__new__(Timeline)
        twin.__dict__.update(self.__dict__)
        kept = self._block_of(self.frame + 1)
        twin.session = self.session.fork()
        twin._blocks, twin._ends, twin._latents = self._blocks[:kept], self._ends[:kept], self._latents[:kept]
        twin._history = self._history.copy()
        twin._history.drop_after(self.frame)
        return twin

    def close(self) -> None:
        """Closes the session and drops its past."""
        self.session.close()
        self._history.clear()
        self._blocks, self._ends, self._latents = [], [], []

    def _begin(self) -> None:
        self._blocks, self._ends, self._latents = [], [], []
        self._history.clear()
        self._history.add(self.session.snapshot(copy=False))

    def _go_to_start(self) -> None:
        snapshot = self._history.before(2)
        assert snapshot is not None, "earliest is 1 only while the start is kept"
        self.session.restore(snapshot)
        self._shown = self.session.first_frame

    def _block_of(self, frame: int) -> int:
        """Index of the block that shows `frame`; the number of blocks for a frame after the last."""
        return bisect_left(self._ends, frame)

    def _keep(self) -> None:
        """Takes a snapshot, when it is time; drops those that are too old."""
        if self.frame - self._history.frames[-1] + self.block_frames <= self._snapshot_frames:
            return
        self._history.add(self.session.snapshot(copy=False))
        oldest = self._history.frames[0]
        self._history.drop_before(self.frame - self._rewind_frames)
        for index in range(self._block_of(oldest + 1), self._block_of(self._history.frames[0] + 1)):
            self._latents[index] = None


def blocks_of(session: Session, file: SessionFile) -> list[tuple[Action, ...]]:
    """The actions of `file` for one step after another of `session`, which is at its start.

    The last block is filled up with its last action, where the file ends within it.
    """
    actions = list(file.script.actions()) if file.script else []
    edges = [0, *range(session.next_frames, len(actions) + session.block_frames, session.block_frames)]
    blocks = [(*actions[a:b], *actions[-1:] * (b - len(actions))) for a, b in pairwise(edges)] if actions else []
    return [block for block in blocks if block]
