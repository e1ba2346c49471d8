"""The one ring of keys and values: the only place that evicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class KVCache:
    """Keys and values of the last `window` steps of one attention layer, in a ring of fixed size.

    The first `sink` steps stay for good in the slots that they have; later ones take turns in the others.  The block at
    hand is written to the slots that fall out of its window, so reading copies nothing and moves nothing: keys carry
    their positions, and attention does not care about order.

    k, v: (b, heads, window * tokens, d); tokens: tokens in a step; step: steps committed so far.
    """

    k: Tensor
    v: Tensor
    window: int
    tokens: int
    sink: int = 0
    step: int = 0

    @classmethod
    def empty(
        cls,
        batch: int,
        heads: int,
        head_dim: int,
        *,
        window: int,
        tokens: int,
        sink: int = 0,
        device: torch.device,
        dtype: torch.dtype,
    ) -> KVCache:
        shape = (batch, heads, window * tokens, head_dim)
        k, v = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        return cls(k, v, window, tokens, sink)

    def read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values that the block at hand may attend to: the committed window and itself.

        k, v: (b, heads, steps * tokens, d) of the block, turned to its positions; at most `window` steps.
        Returns views of the ring, (b, heads, seen, d); they hold until the next call.
        """
        num_steps = k.shape[-2] // self.tokens
        for first, part, offset in self._places(num_steps):
            ring = slice(first * self.tokens, (first + part) * self.tokens)
            block = slice(offset * self.tokens, (offset + part) * self.tokens)
            self.k[:, :, ring] = k[:, :, block]
            self.v[:, :, ring] = v[:, :, block]
        seen = min(self.step + num_steps, self.window) * self.tokens
        return self.k[:, :, :seen], self.v[:, :, :seen]

    def joined(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of `read` as copies, without writing to the ring: for gradients, which the ring
        never carries."""
        taken = {first + i for first, part, _ in self._places(k.shape[-2] // self.tokens) for i in range(part)}
        kept = [slot for slot in range(min(self.step, self.window)) if slot not in taken]  # the others fall out
        slots = torch.tensor(kept, dtype=torch.long, device=k.device)
        where = (slots[:, None] * self.tokens + torch.arange(self.tokens, device=k.device)).flatten()
        return torch.cat([self.k[:, :, where], k], 2), torch.cat([self.v[:, :, where], v], 2)

    def commit(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Reads like `read` and advances the ring: later blocks attend to this one until it leaves the window."""
        seen = self.read(k, v)
        self.step += k.shape[-2] // self.tokens
        return seen

    def _places(self, num_steps: int) -> Iterator[tuple[int, int, int]]:
        """Yields the ring slots of the next steps, in stretches: first slot, number of steps, first of these steps."""
        done = 0
        while done < num_steps:
            first = ring_slot(self.step + done, self.window, self.sink)
            end = self.sink if first < self.sink else self.window
            part = min(num_steps - done, end - first)
            yield first, part, done
            done += part

    def clone(self) -> KVCache:
        return KVCache(self.k.clone(), self.v.clone(), self.window, self.tokens, self.sink, self.step)

    def copy_(self, other: KVCache) -> None:
        """Take over `other`'s content without allocating."""
        self.k.copy_(other.k)
        self.v.copy_(other.v)
        self.step = other.step


def ring_slot(step: int, window: int, sink: int = 0) -> int:
    """The slot of a ring of `window` steps that a step takes, the first `sink` of which are never given away."""
    return step if step < sink else sink + (step - sink) % (window - sink)
