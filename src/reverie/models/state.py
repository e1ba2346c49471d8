"""The inputs of one forward pass, and the state of a session or of several.

Legend: b batch, t latent steps, n tokens, d head width, (c h w) a latent step, a numbers in an action row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
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
    (b, 24, 6) and actions: (b, 24, a), of the last frames; focal: (b, 2) pixels; ahead: (b, 8, 14) log depth of the
    last frame; trail: (b, 256, 2) where the camera was after the last steps, oldest first, for the map; seen_through:
    (b, r, bytes) uint8, for each pixel of the scene's keyframes, then of the session's own, and a spare one, two bits:
    how many times in succession it was seen through; body: (b,) int64, the recorded frame of the player's body that was
    shown last, from 1, and 0 for none.
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
    actions: Tensor
    focal: Tensor
    ahead: Tensor
    trail: Tensor
    seen_through: Tensor
    body: Tensor

    def tensors(self) -> list[Tensor]:
        return [getattr(self, one.name) for one in fields(self)]

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


@dataclass(frozen=True, slots=True)
class RowsMemory:
    """The past of each row, in rings of its own.

    Attention runs row by row, so rings are never copied, and sessions whose windows are filled differently share a
    pass.
    """

    rows: list[RingMemory]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v: (b m, h, n, d), with m rows of the layer's ring for each session."""
        parts = zip(self.rows, *(x.chunk(len(self.rows)) for x in (q, k, v)), strict=True)
        return torch.cat([memory.attend(layer, *part) for memory, *part in parts])

    def visible_keys_values(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Each row attends to its own context."""


@dataclass(slots=True)
class BatchedState(WorldState):
    """States of several sessions, of one row each, as one state of b rows, for one pass of the network: matrix products
    run over all rows at once.  The small tensors are copies; rings stay where they are.

    rows: the states; caches is empty, and step is that of the first row.
    """

    rows: list[WorldState] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Sequence[WorldState]) -> BatchedState:
        """rows: at least one; either all of them fresh or none."""
        actions, last = torch.cat([row.actions for row in rows]), torch.cat([row.last for row in rows])
        pairs = zip(*(row.image for row in rows), strict=True)
        image = [(torch.cat([k for k, _ in pair]), torch.cat([v for _, v in pair])) for pair in pairs]
        return cls([], actions, last, image, rows[0].step, None, list(rows))

    def next_times(self, num_steps: int) -> Tensor:
        """Indices of each row's next steps, (b, num_steps) int64."""
        return torch.stack([row.next_times(num_steps) for row in self.rows])

    def past(self, commit: bool) -> Memory:
        return RowsMemory([RingMemory(row.caches, commit) for row in self.rows])

    def split(self) -> None:
        """Writes what a block has changed to the rows' own states."""
        num_steps = self.step - self.rows[0].step
        for i, row in enumerate(self.rows):
            row.actions.copy_(self.actions[i : i + 1])
            row.last.copy_(self.last[i : i + 1])
            row.step += num_steps
