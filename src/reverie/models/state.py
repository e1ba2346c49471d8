"""The inputs of one forward pass, and the state of a session.

Legend: b batch, t latent steps, n tokens, d head width, (c h w) a latent step, a numbers in an action row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.nn.attention import Memory, RingMemory
from reverie.nn.cache import KVCache


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """Rotary positions: tokens (1 or b, t, n, pairs, 2); keyboard and mouse (t, pairs, 2), or, where rows differ,
    (b, t, pairs, 2) and (b n, t, pairs, 2); None without such modules."""

    tokens: Tensor
    keyboard: Tensor | None
    mouse: Tensor | None


@dataclass(frozen=True, slots=True)
class TimestepEmbedding:
    """Embedded noise levels: sigma (b, t); embedding (b, t, d); modulation (b, t, 6, d)."""

    sigma: Tensor
    embedding: Tensor
    modulation: Tensor


class ConditionChannels(NamedTuple):
    """Contribution of a conditioner to some latent steps.

    channels: (b, t, cond_channels, h, w) beside the noisy latent; base: (b, t, c, h, w), the latent that the network's
    clean estimate is a residual to, or None.
    """

    channels: Tensor
    base: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """Everything that one forward pass is conditioned on.

    channels, base: as `ConditionChannels`; actions: (b, t, 12, a) the action window of each step; time: (t,) index of
    each step, or (b, t) where the rows of a batch stand at different steps; image: (b, n, c) image tokens, None to use
    the state's; rotary: tables, where `WorldModel.with_rotary` has computed them already.
    """

    channels: Tensor
    actions: Tensor
    time: Tensor
    base: Tensor | None = None
    image: Tensor | None = None
    rotary: RotaryTables | None = None

    def select(self, steps: Tensor) -> Condition:
        """The condition of these steps alone, in this order; a step may come more than once."""
        base = None if self.base is None else self.base[:, steps]
        return Condition(self.channels[:, steps], self.actions[:, steps], self.time[steps], base, self.image)


@dataclass(slots=True)
class SpatialMemoryState:
    """A session's own keyframes and camera; allocated once, updated in place.

    colour: (b, K, 3, H, W) uint8; depth: (b, K, h, w) metres; hidden: (b, K, h, w) bool, pixels not to be drawn; pose:
    (b, K, 6); probes: (b, K, p, 3) world points and seen: (b, K, p) for the choice of keyframes; reach: (b, K) metres;
    valid: (b, K) bool; written: (b,) int64, keyframes written so far; camera: (b, 6) pose of the last frame; motion:
    (b, 8, 6) motions of the last frames; focal: (b, 2) pixels; ahead: (b, 8, 14) log depth of the last frame; trail:
    (b, 256, 2) where the camera was after the last steps, oldest first, for the map; seen_through: (b, r, bytes)
    uint8, for each pixel of the scene's keyframes, then of the session's own, and a spare one, two bits: how many times
    in succession it was seen through.
    """

    colour: Tensor
    depth: Tensor
    hidden: Tensor
    pose: Tensor
    probes: Tensor
    seen: Tensor
    reach: Tensor
    valid: Tensor
    written: Tensor
    camera: Tensor
    motion: Tensor
    focal: Tensor
    ahead: Tensor
    trail: Tensor
    seen_through: Tensor

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def clone(self) -> SpatialMemoryState:
        return SpatialMemoryState(*(tensor.clone() for tensor in self.tensors()))


@dataclass(slots=True)
class WorldState:
    """The state of a session's networks; allocated once, updated in place.

    caches: a ring for each attention layer; actions: (b, 8, a) the last action rows; last: (b, c, h, w) the last
    committed latent; image: keys and values of the image tokens for each image cross-attention, (b, heads, n, d);
    step: latent steps so far; memory: the spatial memory, of models that are conditioned on one.
    """

    caches: list[KVCache]
    actions: Tensor
    last: Tensor
    image: list[tuple[Tensor, Tensor]]
    step: int = 0
    memory: SpatialMemoryState | None = None

    def next_times(self, num_steps: int) -> Tensor:
        """Indices of the next steps, (num_steps,) int64."""
        return self.step + torch.arange(num_steps, device=self.last.device)

    def past(self, commit: bool) -> Memory:
        """The past as attention finds it; `commit` keeps the block at hand in the rings."""
        return RingMemory(self.caches, commit)

    def clone(self) -> WorldState:
        return WorldState(
            [cache.clone() for cache in self.caches],
            self.actions.clone(),
            self.last.clone(),
            [(k.clone(), v.clone()) for k, v in self.image],
            self.step,
            None if self.memory is None else self.memory.clone(),
        )

    def copy_(self, other: WorldState) -> None:
        """Takes over `other`'s content without allocating."""
        for mine, theirs in zip(self.caches, other.caches, strict=True):
            mine.copy_(theirs)
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(theirs)
        self.step = other.step

    def reset(self) -> None:
        """Becomes fresh.  Rings need no clearing: attention never reads a slot that was not committed."""
        for cache in self.caches:
            cache.step = 0
        for tensor in self.tensors():
            tensor.zero_()
        self.step = 0

    def tensors(self) -> list[Tensor]:
        """The state's own tensors, rings left out."""
        memory = [] if self.memory is None else self.memory.tensors()
        return [self.actions, self.last, *memory, *(x for pair in self.image for x in pair)]
