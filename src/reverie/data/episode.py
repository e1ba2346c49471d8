"""Recording one episode: play it, judge it, encode it.  What a worker does, here or on another machine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.data.checks import judge
from reverie.data.depth import DepthRecord
from reverie.data.facts import WorldFacts
from reverie.data.policies import Policy, Seen, policy_for, seen_now
from reverie.data.policies.explore import Clearance
from reverie.data.video import write_video
from reverie.data.writer import is_disk_full, picture_statistics
from reverie.errors import DataError
from reverie.types import FPS, Action, Frames, HasGeometry, World
from reverie.worlds import WORLDS, WorldInfo, open_world

ATTEMPTS = 2
"""An episode whose game fails is played once more from the start."""


@dataclass(frozen=True, slots=True)
class Job:
    """Recording task for another process, picklable: the game, its options, and the length of episodes.

    depth_every: the depth of every so many frames is recorded, from the first on; 0: of none.
    """

    info: WorldInfo
    options: Mapping[str, Any]
    num_frames: int
    min_frames: int
    heldout: bool = False
    depth_every: int = 0

    def open(self) -> World:
        """Start the game.  Raises WorldError."""
        WORLDS.setdefault(self.info.name, self.info)  # in another process it may not be known
        return open_world(self.info.name, **self.options)


@dataclass(frozen=True, slots=True)
class Draft:
    """A complete episode that is not yet in the dataset; `video` is a file, or the content of one."""

    seed: int
    video: Path | bytes
    actions: npt.NDArray[np.float32]
    poses: npt.NDArray[np.float32] | None
    picture_stats: dict[str, list[Any]]
    meta: dict[str, Any]
    depth: tuple[DepthRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """An episode that is not worth keeping, or that could not be played, and why."""

    seed: int
    reason: str
    map: str = ""
    is_failure: bool = False
    """The game failed, as opposed to the player."""


@dataclass(frozen=True, slots=True)
class DiskFull:
    """The episode could not be written for want of space; the recording must stop."""

    seed: int
    reason: str


Outcome = Draft | Rejected | DiskFull


@dataclass(slots=True)
class Recorder:
    """Plays the episodes of a job in one game, which is started when needed and again after it failed."""

    job: Job
    world: World | None = None
    _film: Film = field(default_factory=lambda: Film())

    def episode(self, seed: int, folder: Path) -> Outcome:
        """Play the episode of `seed`; its video is put into `folder`.  The outcome reports errors of the game."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self.world = self.world or self.job.open()
                return make_draft(self.world, self.job, seed, folder, self._film)
            except Exception as error:
                if is_disk_full(error):
                    return DiskFull(seed, str(error))
                where = "" if self.world is None else WorldFacts(self.world).map
                self.close()
                if attempt == ATTEMPTS:
                    reason = f"failed {ATTEMPTS} times: {type(error).__name__}: {error}".splitlines()[0]
                    return Rejected(seed, reason, where, is_failure=True)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the game."""
        world, self.world = self.world, None
        if world is not None:
            try:
                world.close()
            except Exception:  # a game that has crashed may not close either
                return


class Film:
    """Memory for the frames of an episode, used again for the next: fresh memory costs as much as drawing them.

    Frames keep their layout: planes one after the other where they come so.
    """

    def __init__(self) -> None:
        self._memory: Frames | None = None
        self._length = 0

    def start(self, picture: Frames, num_frames: int) -> None:
        """Begin with `picture`, `(H, W, 3)`; room for `num_frames` of its kind."""
        is_planes = picture.transpose(2, 0, 1).flags.c_contiguous
        shape = (num_frames, *(picture.transpose(2, 0, 1) if is_planes else picture).shape)
        if self._memory is None or self._memory.base is None or self._memory.base.shape != shape:
            memory = np.empty(shape, np.uint8)
            self._memory = memory.transpose(0, 2, 3, 1) if is_planes else memory[:]
        self._length = 0
        self.add(picture)

    def add(self, picture: Frames) -> None:
        """Append a frame; it is copied."""
        assert self._memory is not None
        self._memory[self._length] = picture
        self._length += 1

    @property
    def frames(self) -> Frames:
        """The frames so far, `(f, H, W, 3)`; overwritten by the next episode."""
        assert self._memory is not None
        return self._memory[: self._length]


def make_draft(world: World, job: Job, seed: int, folder: Path, film: Film | None = None) -> Draft | Rejected:
    """Play, cut where it goes wrong, and encode one episode; Rejected if too little of it is good."""
    track = DepthTrack(job.depth_every)
    policy = policy_for(job.info.name, seed)
    frames, actions, poses, depths = play_episode(world, policy, seed, job.num_frames, film, track)
    facts = WorldFacts(world)
    place = facts.map
    verdict = judge(frames, actions, poses, depths, world.action_space, job.info.name)
    length = verdict.length
    if length < job.min_frames:
        reason = "; ".join(verdict.reasons) or f"the level ended after {length} frames"
        return Rejected(seed, reason, place)
    video = folder / f"{seed}-{uuid.uuid4().hex[:8]}.mp4"
    try:
        write_video(video, frames[:length], FPS)
    except BaseException:
        video.unlink(missing_ok=True)
        raise
    meta: dict[str, Any] = {"seed": seed, "map": place, "heldout": job.heldout, "cut": "; ".join(verdict.reasons)}
    meta |= {name: _plain(value) for name, value in facts.episode_info.items() if name not in meta}
    meta["options"] = json.dumps(dict(job.options), sort_keys=True)
    stats = picture_statistics(frames[:length])
    poses = None if poses is None else poses[:length]
    return Draft(seed, video, actions[:length], poses, stats, meta, track.before(length))


class DepthTrack:
    """Records the depth of every `every`-th frame of an episode, from the first on; 0: of none."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._records: list[DepthRecord] = []

    def add(self, world: World, frame_index: int) -> None:
        """Records the frame that `world` shows, if it is its turn and the world has a geometry."""
        if self._every and frame_index % self._every == 0 and isinstance(world, HasGeometry):
            self._records.append(DepthRecord.of(frame_index, world.geometry()))

    def before(self, length: int) -> tuple[DepthRecord, ...]:
        """The records of the first `length` frames."""
        return tuple(record for record in self._records if record.frame_index < length)


def play_episode(
    world: World,
    policy: Policy,
    seed: int,
    num_frames: int,
    film: Film | None = None,
    track: DepthTrack | None = None,
) -> tuple[Frames, npt.NDArray[np.float32], npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]:
    """Let `policy` play `num_frames` frames from `reset(seed)`, or until the level ends.

    Returns frames `(f, H, W, 3)`, actions `(f, size)`, poses `(f, 6)` or None, and how far the middle of the view is,
    `(f,)` or None.
    Action i is chosen on seeing frame i, and shows in frame i + 1.  With a `film` the frames are its memory; a `track`
    is given the depth.
    """
    picture, film = world.reset(seed)[0], film or Film()
    film.start(picture, num_frames)
    actions: list[Action] = []
    poses: list[npt.NDArray[np.float32] | None] = []
    depths: list[float | None] = []
    middle, track = _Middle(), track or DepthTrack(0)
    while True:
        track.add(world, len(actions))
        seen = seen_now(world, picture)
        poses.append(seen.pose)
        depths.append(middle.of(seen))
        actions.append(world.action_space.restrict(policy.act(seen)))
        if len(actions) == num_frames:
            break
        picture = world.step(actions[-1])[0]
        if WorldFacts(world).finished:
            break
        film.add(picture)
    return (
        film.frames,
        world.action_space.encode(actions),
        None if poses[0] is None else np.array(poses, np.float32),
        None if depths[0] is None else np.array(depths, np.float32),
    )


class _Middle:
    """Distance of the view's middle: the game's hint, else read from the depth image; None without both."""

    def __init__(self) -> None:
        self._depth: Any = None
        self._middle: float | None = None

    def of(self, seen: Seen) -> float | None:
        if "view_depth" in seen.hints:
            return float(seen.hints["view_depth"])
        if seen.depth is not self._depth:
            self._depth, self._middle = seen.depth, None if seen.depth is None else Clearance.of(seen.depth).middle
        return self._middle


def _plain(value: Any) -> Any:
    """A value that fits a column: numbers, texts and truth values as they are, all else as JSON."""
    if isinstance(value, str | bool | int | float):
        return value
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (TypeError, ValueError) as error:
        raise DataError(f"episode_info holds {value!r}, which cannot be written down; use JSON values") from error
