"""Starts of evaluations, and rollouts of a model from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from reverie.errors import DataError
from reverie.types import FPS, Action, ActionSpace, Clip, Frames


class Dream(Protocol):
    """Interface of a session that is rolled out."""

    @property
    def block_frames(self) -> int: ...
    def step(self, action: Sequence[Action]) -> Frames: ...
    def close(self) -> None: ...


class Dreamer(Protocol):
    """Interface of an engine: the real one fits, and so does a test's."""

    @property
    def action_space(self) -> ActionSpace: ...
    @property
    def resolution(self) -> tuple[int, int]: ...
    def open(self, image: Frames, seed: int = 0) -> Dream: ...


class Episode(Protocol):
    """Interface of an episode's entry: its length in frames, and its attributes (`map`, `heldout`)."""

    @property
    def length(self) -> int: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...


class Recording(Protocol):
    """Interface of a dataset."""

    @property
    def episodes(self) -> Sequence[Episode]: ...
    def clip(self, episode: int, start: int, length: int) -> Clip: ...


@dataclass(frozen=True, slots=True)
class Start:
    """A place to start from: the real clip that begins there (its frame 0 is the start frame).

    label: where that is, for captions.
    """

    label: str
    clip: Clip

    @property
    def picture(self) -> Frames:
        """(H, W, 3)"""
        return self.clip.frames[0]


def pick_starts(
    recording: Recording, count: int, clip_frames: int, seed: int, tick: Callable[[], None] = lambda: None
) -> list[Start]:
    """`count` clips of `clip_frames` frames at random positions, spread evenly over the episodes; the same for the same
    seed.

    Where some episodes are marked held-out, only those are used.  Raises DataError where no episode is long enough.
    """
    lengths = [episode.length for episode in recording.episodes]
    heldout = [bool(episode.meta.get("heldout")) for episode in recording.episodes]
    usable = [i for i, n in enumerate(lengths) if n >= clip_frames and heldout[i] == any(heldout)]
    if not usable:
        raise DataError(
            f"evaluation needs episodes of at least {clip_frames} frames, the longest of {len(lengths)} has "
            f"{max(lengths, default=0)}; record longer ones"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(usable)
    starts = []
    for i in range(count):
        episode = int(order[i % len(order)])
        frame = int(rng.integers(lengths[episode] - clip_frames + 1))
        place = recording.episodes[episode].meta.get("map") or f"episode {episode}"
        starts.append(Start(f"{place} +{frame / FPS:.0f} s", recording.clip(episode, frame, clip_frames)))
        tick()
    return starts


def roll(
    dreamer: Dreamer, picture: Frames, actions: Sequence[Action], seed: int, tick: Callable[[], None] = lambda: None
) -> Frames:
    """The rollout that starts in `picture` (H, W, 3) under one action per frame: `(1 + len(actions), H, W, 3)`.

    Frame 0 is the start frame itself.  The last block is filled up with the last action and cut.  `tick` is called per
    block.
    """
    return np.concatenate([picture[None], *roll_stream(dreamer, picture, actions, seed, tick)])


def roll_stream(
    dreamer: Dreamer, picture: Frames, actions: Sequence[Action], seed: int, tick: Callable[[], None] = lambda: None
) -> Iterator[Frames]:
    """The same a block at a time, without the start frame; frames past the last action are cut."""
    dream = dreamer.open(picture, seed=seed)
    try:
        i = 0
        while i < len(actions):
            num_frames = getattr(dream, "next_frames", dream.block_frames)  # a first block may be shorter
            block = list(actions[i : i + num_frames])
            yield dream.step(block + block[-1:] * (num_frames - len(block)))[: len(block)]
            i += len(block)
            tick()
    finally:
        dream.close()


def num_blocks(num_frames: int, block_frames: int) -> int:
    """Blocks that `roll` steps through for so many frames."""
    return -(-num_frames // block_frames)
