"""Attention, whole clips under a mask or streamed from a ring: the same numbers.

Legend: b batch, h heads, n tokens, d head width; a step is `tokens` neighbouring tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.errors import first_line
from reverie.nn.cache import KVCache

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MAX_SCORES = 2**25
"""On a CPU: more products of queries and keys than these are made one head after another."""

MAX_FEW = 8
"""On a GPU: rows of so many queries or fewer are attended to element by element."""

MIN_STEP = 16
"""Steps of fewer tokens are attended to under a plain mask."""

MAX_ROWS = 65_535
"""On a GPU: of how many rows attention's kernels can be started at once."""

LARGE_STEP = 256
"""From so many tokens a step on, whole clips are attended to without a mask and without keeping weights."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of (b, h, n, d) queries over (b, h, m, d) keys; `mask` (n, m) is true where a query may look.

    On a CPU the product is written out: in bfloat16 that is up to 2.8 times faster than the fused kernel, in float32 it
    is the same (bench/RESULTS.md); with gradients 1.8 to 7 times, for few keys (docs/LOG.md).
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    is_large = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] > MAX_SCORES  # gigabytes
    if is_large and (mask is not None or (torch.is_grad_enabled() and q.requires_grad)):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    q = q * q.shape[-1] ** -0.5
    if is_large and q.shape[1] > 1:
        heads = zip(q.split(1, 1), k.split(1, 1), v.split(1, 1), strict=True)
        return torch.cat([(q1 @ k1.transpose(-1, -2)).softmax(-1) @ v1 for q1, k1, v1 in heads], 1)
    scores = q @ k.transpose(-1, -2)
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v


def attend_few(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Computes `attend` element by element in float32: for a few queries and keys of very many rows, which a GPU's
    attention kernels do one block of threads each.  Compiled it is a few passes over memory."""
    scores = (q.float().unsqueeze(-2) * k.float().unsqueeze(-3)).sum(-1) * q.shape[-1] ** -0.5
    return (scores.softmax(-1).unsqueeze(-1) * v.float().unsqueeze(-3)).sum(-2).to(q.dtype)


def is_few(q: Tensor) -> bool:
    """Returns whether `attend_few` is the faster way to attend to a block's steps."""
    return q.device.type == "cuda" and q.shape[-2] <= MAX_FEW


@dataclass(frozen=True, slots=True)
class Visibility:
    """For each query step of a clip, the ranges `(start, stop)` of key steps that it attends to."""

    ranges: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def windowed(cls, num_steps: int, window: int, block: int, sink: int = 0) -> Visibility:
        """Block-causal: a step attends to its whole block, and as many steps before it as the window then has room for:
        the first `sink` of all, and the last ones."""
        ends = [i - i % block + block for i in range(num_steps)]
        rows = ((_seen(end, window, sink), min(end, num_steps)) for end in ends)
        return cls(tuple((*seen[:-1], (seen[-1][0], stop)) for seen, stop in rows))

    @classmethod
    def teacher_forced(
        cls, num_steps: int, window: int, given: int = 1, copies: int = 1, sink: int = 0, block: int = 1
    ) -> Visibility:
        """Clean steps `0 .. num_steps - block - 1`, then `copies` times noisy steps `given .. num_steps - 1`.

        The first `given` steps are a block of their own, then every `block` steps are one.  Clean steps see as
        `windowed` says; a noisy one sees its own noisy block and the *clean* steps before that, which is what sampling
        does with its ring, for every block of a clip at once.
        """
        clean = num_steps - block
        rows = []
        for i in range(clean):
            end = given if i < given else i - (i - given) % block + block
            rows.append(_seen(end, window, sink))
        for copy in range(copies):
            offset = clean + copy * (num_steps - given) - given
            for i in range(given, num_steps):
                begin = i - (i - given) % block
                *kept, (first, _) = _seen(begin + block, window, sink)
                past = (*kept, (first, begin)) if first < begin else tuple(kept)
                rows.append((*past, (offset + begin, offset + begin + block)))
        return cls(tuple(rows))

    def __len__(self) -> int:
        return len(self.ranges)

    @lru_cache(maxsize=32)  # noqa: B019  # small, frozen and shared by every layer
    def mask(self, q_tokens: int, k_tokens: int, device: torch.device) -> Tensor:
        """(steps * q_tokens, steps * k_tokens) bool, true where a query may look."""
        steps = torch.zeros(len(self), len(self), dtype=torch.bool)
        for i, ranges in enumerate(self.ranges):
            for start, stop in ranges:
                steps[i, start:stop] = True
        return steps.repeat_interleave(q_tokens, 0).repeat_interleave(k_tokens, 1).to(device)

    @lru_cache(maxsize=32)  # noqa: B019  # as above
    def block_mask(self, tokens: int, device: torch.device) -> BlockMask:
        """`mask` for FlexAttention: which blocks of 128 queries and keys have anything to do."""
        from torch.nn.attention.flex_attention import create_block_mask

        table = self.mask(1, 1, device)

        def may_look(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return table[q // tokens, k // tokens]

        size = len(self) * tokens
        return create_block_mask(may_look, None, None, size, size, device=str(device))

    def runs(self) -> Iterator[tuple[slice, tuple[slice, ...]]]:
        """Neighbouring query steps that attend to the same keys, with those keys, in steps."""
        start = 0
        for i in range(1, len(self) + 1):
            if i == len(self) or self.ranges[i] != self.ranges[start]:
                yield slice(start, i), tuple(slice(*r) for r in self.ranges[start])
                start = i


def _seen(end: int, window: int, sink: int) -> tuple[tuple[int, int], ...]:
    """Returns the ranges of steps that a ring buffer of `window` still holds after `end` steps: the first `sink`, and
    the last ones."""
    if end <= window:
        return ((0, end),)
    last = (end - window + sink, end)
    return ((0, sink), last) if sink else (last,)


class _StepAttention(torch.autograd.Function):
    """Attention a step at a time over only the keys that it attends to: no masked work, and its own backward.

    A masked kernel would do about three times the arithmetic (measured on two CPU cores: docs/LOG.md).
    q, k, v: (rows, n, d), contiguous.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, visibility: Visibility, tokens: int) -> Tensor:
        out = torch.empty_like(q)
        q = q * q.shape[-1] ** -0.5
        weights = []
        for rows, keys in visibility.runs():
            mine = slice(rows.start * tokens, rows.stop * tokens)
            w = torch.bmm(q[:, mine], _gather(k, keys, tokens).transpose(1, 2))
            torch.softmax(w, -1, out=w)
            torch.bmm(w, _gather(v, keys, tokens), out=out[:, mine])
            weights.append(w)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.visibility, ctx.tokens = visibility, tokens
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (d_out,) = grads
        q, k, v, *weights = ctx.saved_tensors
        tokens = ctx.tokens
        d_out = d_out.contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (rows, keys), w in zip(ctx.visibility.runs(), weights, strict=True):
            mine = slice(rows.start * tokens, rows.stop * tokens)
            k_seen, v_seen = _gather(k, keys, tokens), _gather(v, keys, tokens)
            d = d_out[:, mine]
            d_scores = torch.ops.aten._softmax_backward_data(torch.bmm(d, v_seen.transpose(1, 2)), w, -1, w.dtype)
            torch.bmm(d_scores, k_seen, out=dq[:, mine])
            _scatter_add(dk, keys, tokens, torch.bmm(d_scores.transpose(1, 2), q[:, mine]))
            _scatter_add(dv, keys, tokens, torch.bmm(w.transpose(1, 2), d))
        return dq.mul_(q.shape[-1] ** -0.5), dk, dv, None, None


def _gather(x: Tensor, steps: tuple[slice, ...], tokens: int) -> Tensor:
    parts = [x[:, s.start * tokens : s.stop * tokens] for s in steps]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _scatter_add(x: Tensor, steps: tuple[slice, ...], tokens: int, values: Tensor) -> None:
    offset = 0
    for s in steps:
        count = (s.stop - s.start) * tokens
        x[:, s.start * tokens : s.stop * tokens] += values[:, offset : offset + count]
        offset += count


@torch.compiler.disable
def _attend_by_step(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility, tokens: int) -> Tensor:
    rows = [x.flatten(0, 1).contiguous() for x in (q, k, v)]
    return _StepAttention.apply(*rows, visibility, tokens).unflatten(0, q.shape[:2])  # type: ignore[no-any-return]


def _attend_by_run(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility, tokens: int) -> Tensor:
    """Computes `_attend_by_step` with the fused kernel, which stores no attention weights and so fits in memory for
    steps of many tokens.

    q, k, v: (b, h, n, d).
    """
    out = []
    for rows, keys in visibility.runs():
        k_seen, v_seen = (torch.cat([x[:, :, s.start * tokens : s.stop * tokens] for s in keys], 2) for x in (k, v))
        mine = slice(rows.start * tokens, rows.stop * tokens)
        out.append(F.scaled_dot_product_attention(q[:, :, mine], k_seen, v_seen))
    return torch.cat(out, 2)


def attend_flex(
    q: Tensor, k: Tensor, v: Tensor, visibility: Visibility, tokens: int, *, compiled: bool = True
) -> Tensor:
    """Computes `_attend_by_step` with FlexAttention on a GPU: only blocks of the attention matrix that the mask leaves
    visible are computed.

    Only compiled is it worth anything: uncompiled it keeps all products of queries and keys.
    """
    mask = visibility.block_mask(tokens, q.device)
    return _flex_attention(compiled)(q.to(v.dtype), k.to(v.dtype), v, block_mask=mask)


@lru_cache(maxsize=2)
def _flex_attention(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention


_is_flex_on = False
"""Flag of the process, not of a thread: recomputation in a backward pass runs in a thread of torch's own."""


@contextmanager
def flex(on: bool) -> Iterator[None]:
    """Switches clip attention on GPUs to FlexAttention (True: after compiling it) or to a mask, for the context's
    duration."""
    global _is_flex_on
    before, _is_flex_on = _is_flex_on, on
    try:
        yield
    finally:
        _is_flex_on = before


def flex_works(device: torch.device) -> bool:
    """Checks that FlexAttention compiles on the device and equals masked attention, forward and backward; warns where
    it does not.

    False on a CPU, which has no backward pass of it.
    """
    if device.type != "cuda":
        return False
    try:
        torch.testing.assert_close(*_both_ways(device), atol=0.05, rtol=0.05)
    except Exception as error:  # of compilers and drivers, anything
        warnings.warn(
            f"FlexAttention does not work here, so attention runs under a mask: {first_line(error)}", stacklevel=2
        )
        return False
    return True


def _both_ways(device: torch.device) -> list[list[Tensor]]:
    """Output and gradients of a small attention, by FlexAttention and under a mask."""
    visibility, tokens = Visibility.teacher_forced(6, 3, copies=2), 20
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, 2, len(visibility) * tokens, 64)
    values = torch.randn(shape, generator=generator).to(device, torch.bfloat16)
    found = []
    for by_flex in (True, False):
        q, k, v = (x.clone().requires_grad_() for x in values)
        if by_flex:
            out = attend_flex(q, k, v, visibility, tokens)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=visibility.mask(tokens, tokens, device))
        found.append([out.detach(), *torch.autograd.grad(out.sum(), (q, k, v))])
    return found


def picks_flex(q: Tensor, q_tokens: int, k_tokens: int) -> bool:
    """Returns whether `attend_steps` uses FlexAttention."""
    return _is_flex_on and q.device.type == "cuda" and q_tokens == k_tokens and q_tokens >= MIN_STEP


def attend_steps(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    """Attention of a whole clip, each step over the steps that `visibility` gives it.

    q: (b, h, steps * q_tokens, d); k, v: (b, h, steps * k_tokens, d).
    """
    q_tokens, k_tokens = q.shape[-2] // len(visibility), k.shape[-2] // len(visibility)
    if picks_flex(q, q_tokens, k_tokens):
        return attend_flex(q, k, v, visibility, q_tokens)
    if q_tokens == k_tokens and q_tokens >= LARGE_STEP:
        return _attend_by_run(q, k, v, visibility, q_tokens)
    if q.device.type == "cpu" and q_tokens == k_tokens and q_tokens >= MIN_STEP:
        return _attend_by_step(q, k, v, visibility, q_tokens)  # pyright: ignore[reportCallIssue]  # disable loses its type
    mask = visibility.mask(q_tokens, k_tokens, q.device)
    if q.device.type == "cuda" and q.shape[0] > MAX_ROWS:
        parts = zip(q.split(MAX_ROWS), k.split(MAX_ROWS), v.split(MAX_ROWS), strict=True)
        return torch.cat([attend(*part, mask) for part in parts])
    return attend(q, k, v, mask)


class Memory(Protocol):
    """Interface through which an attention layer reads its context: `layer` numbers the attention layers of a model."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...

    def visible_keys_values(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
        """The keys and values that all queries attend to, those at hand among them; None where queries differ."""
        ...


@dataclass(frozen=True, slots=True)
class ClipMemory:
    """A whole clip at once, under a mask."""

    visibility: Visibility

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_steps(q, k, v, self.visibility)

    def visible_keys_values(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Each step attends to the keys that the mask allows."""


@dataclass(frozen=True, slots=True)
class RingMemory:
    """A stream: the block at hand, and the rings of what came before.  `commit` keeps the block."""

    caches: list[KVCache]
    commit: bool

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, *self._seen(layer, k, v, q.requires_grad))

    def visible_keys_values(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._seen(layer, k, v)

    def _seen(self, layer: int, k: Tensor, v: Tensor, has_gradient: bool = False) -> tuple[Tensor, Tensor]:
        cache = self.caches[layer]
        if self.commit:
            return cache.commit(k, v)
        needs_gradient = torch.is_grad_enabled() and (has_gradient or k.requires_grad or v.requires_grad)
        return cache.joined(k, v) if needs_gradient else cache.read(k, v)
