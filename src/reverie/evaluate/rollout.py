"""Starts of evaluations, and rollouts of a model from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.types import FPS, Action, ActionSpace, Clip, Frames

Tick = Callable[[], None]


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


@dataclass(frozen=True, slots=True)
class Start:
    """A real clip to start from: its frame 0 is the start frame.  label: place and time, for captions."""

    label: str
    clip: Clip

    @property
    def image(self) -> Frames:
        """(H, W, 3)"""
        return self.clip.frames[0]


def usable_episodes(recording: Dataset) -> list[int]:
    """Indices of the held-out episodes, or of all where none is marked."""
    heldout = [bool(episode.meta.get("heldout")) for episode in recording.episodes]
    return [i for i, is_out in enumerate(heldout) if is_out == any(heldout)]


def pick_starts(recording: Dataset, count: int, clip_frames: int, seed: int) -> list[Start]:
    """Picks clips at random positions, spread evenly over the usable episodes; the same for the same seed.

    Raises DataError where no episode is long enough.
    """
    lengths = [episode.length for episode in recording.episodes]
    usable = [i for i in usable_episodes(recording) if lengths[i] >= clip_frames]
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
    return starts


def roll(dreamer: Dreamer, image: Frames, actions: Sequence[Action], seed: int, tick: Tick = lambda: None) -> Frames:
    """Rolls out from a start frame (H, W, 3) under one action a frame: `(1 + len(actions), H, W, 3)`.

    Frame 0 is the start frame itself.  The last block is filled up with the last action and cut.  `tick` is called per
    block.
    """
    return np.concatenate([image[None], *roll_blocks(dreamer, image, actions, seed, tick)])


def roll_blocks(
    dreamer: Dreamer, image: Frames, actions: Sequence[Action], seed: int, tick: Tick = lambda: None
) -> Iterator[Frames]:
    """Yields the same a block at a time, without the start frame; frames past the last action are cut."""
    dream = dreamer.open(image, seed=seed)
    try:
        i = 0
        while i < len(actions):
            num_frames = next_frames(dream)
            block = list(actions[i : i + num_frames])
            yield dream.step(block + block[-1:] * (num_frames - len(block)))[: len(block)]
            i += len(block)
            tick()
    finally:
        dream.close()


def next_frames(dream: Dream) -> int:
    """Frames of the next block: a first one may be shorter."""
    return getattr(dream, "next_frames", dream.block_frames)


def repeat_actions(actions: Sequence[Action], num_frames: int) -> list[Action]:
    """Actions over and over, one a frame."""
    return (list(actions) * -(-num_frames // len(actions)))[:num_frames]
