"""What a world model is told, and what a session of it remembers.

Legend: b batch, t latent steps, n tokens, d head width, (c h w) a latent step, a numbers in an action row.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reverie.models.camera import Canvas
from reverie.nn.cache import KVCache


@dataclass(frozen=True, slots=True)
class Places:
    """Rotary tables of the steps: (b or 1, t, n, pairs, 2) of the tokens; (t, pairs, 2) of keys and mouse, None without
    them."""

    table: Tensor
    key_time: Tensor | None
    mouse_time: Tensor | None


@dataclass(frozen=True, slots=True)
class Level:
    """Noise levels as the blocks are told of them: sigma (b, t); embedding (b, t, d); modulation (b, t, 6, d)."""

    sigma: Tensor
    embedding: Tensor
    modulation: Tensor


@dataclass(frozen=True, slots=True)
class Condition:
    """What the steps of one forward pass are told.

    extra: (b, t, cond_channels, h, w) beside the noisy latent; rows: (b, t, 12, a) action rows; time: (t,) index of
    each step; turn: (b, t, 2) pitch and yaw in degrees since the start, or None; image: (b, n, c) tokens, None to use
    the state's; places: where the steps are, if `WorldModel.placed` has worked that out already;
    canvas: as it is when the block is over, for models that have one.
    """

    extra: Tensor
    rows: Tensor
    time: Tensor
    turn: Tensor | None = None
    image: Tensor | None = None
    places: Places | None = None
    canvas: Canvas | None = None

    def select(self, steps: Tensor) -> Condition:
        """These steps alone, in this order; a step may come more than once."""
        turn = None if self.turn is None else self.turn[:, steps]
        return Condition(self.extra[:, steps], self.rows[:, steps], self.time[steps], turn, self.image)


@dataclass(slots=True)
class WorldState:
    """All that a session remembers of its past; allocated once, updated in place.

    step: latent steps so far; caches: one ring for each attention layer; rows: (b, 8, a) the last action rows; turn:
    (b, 2) float64 degrees turned since the start; last: (b, c, h, w) the last committed latent; image: keys and
    values of the start picture for each image cross-attention, (b, heads, n, d); canvas: of models that have one.
    """

    caches: list[KVCache]
    rows: Tensor
    turn: Tensor
    last: Tensor
    image: list[tuple[Tensor, Tensor]]
    step: int = 0
    canvas: Canvas | None = None

    def clone(self) -> WorldState:
        return WorldState(
            [cache.clone() for cache in self.caches],
            self.rows.clone(),
            self.turn.clone(),
            self.last.clone(),
            [(k.clone(), v.clone()) for k, v in self.image],
            self.step,
            None if self.canvas is None else self.canvas.clone(),
        )

    def copy_(self, other: WorldState) -> None:
        """Take over `other`'s content without allocating."""
        for mine, theirs in zip(self.caches, other.caches, strict=True):
            mine.copy_(theirs)
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(theirs)
        self.step = other.step

    def reset(self) -> None:
        """As new.  Rings need no clearing: what is not committed is not seen."""
        for cache in self.caches:
            cache.step = 0
        for tensor in self.tensors():
            tensor.zero_()
        self.step = 0

    def tensors(self) -> list[Tensor]:
        """The state's own tensors, rings left out."""
        canvas = [] if self.canvas is None else self.canvas.tensors()
        return [self.rows, self.turn, self.last, *canvas, *(x for pair in self.image for x in pair)]
