"""The one ring of keys and values: the only place that evicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class KVCache:
    """Keys and values of the last `window` steps of one attention layer, in a ring of fixed size.

    Step i lives in slot `i % window`.  The block at hand is written to the slots that fall out of its window, so
    reading copies nothing and moves nothing: keys carry their positions, and attention does not care about order.

    k, v: (b, heads, window * tokens, d); tokens: tokens in a step; step: steps committed so far.
    """

    k: Tensor
    v: Tensor
    window: int
    tokens: int
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
        device: torch.device,
        dtype: torch.dtype,
    ) -> KVCache:
        shape = (batch, heads, window * tokens, head_dim)
        k, v = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        return cls(k, v, window, tokens)

    def read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Everything that the block at hand may see: the committed window and itself.

        k, v: (b, heads, steps * tokens, d) of the block, turned to its positions; at most `window` steps.
        Returns views of the ring, (b, heads, seen, d); they hold until the next call.
        """
        num_steps = k.shape[-2] // self.tokens
        first = self.step % self.window
        head = min(num_steps, self.window - first)
        for start, part, offset in ((first, head, 0), (0, num_steps - head, head)):
            if part:
                ring = slice(start * self.tokens, (start + part) * self.tokens)
                block = slice(offset * self.tokens, (offset + part) * self.tokens)
                self.k[:, :, ring] = k[:, :, block]
                self.v[:, :, ring] = v[:, :, block]
        seen = min(self.step + num_steps, self.window) * self.tokens
        return self.k[:, :, :seen], self.v[:, :, :seen]

    def joined(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `read`, copied instead of written: for gradients, which the ring itself never carries."""
        first, steps = self.step % self.window, k.shape[-2] // self.tokens
        slots = torch.arange(min(self.step, self.window), device=k.device)
        slots = slots[(slots - first) % self.window >= steps]  # the others fall out of the window
        where = (slots[:, None] * self.tokens + torch.arange(self.tokens, device=k.device)).flatten()
        return torch.cat([self.k[:, :, where], k], 2), torch.cat([self.v[:, :, where], v], 2)

    def commit(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `read`, and the block stays: later blocks see it until it leaves the window."""
        seen = self.read(k, v)
        self.step += k.shape[-2] // self.tokens
        return seen

    def clone(self) -> KVCache:
        return KVCache(self.k.clone(), self.v.clone(), self.window, self.tokens, self.step)

    def copy_(self, other: KVCache) -> None:
        """Take over `other`'s content without allocating."""
        self.k.copy_(other.k)
        self.v.copy_(other.v)
        self.step = other.step
