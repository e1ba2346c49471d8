"""Action conditioning of the transformer: action windows, the mouse module and the keyboard module.

Source: Matrix-Game 2.0, arXiv 2508.13009, section 3.2, and its public weights' layout.
Legend: b batch, t steps, n tokens of a step, d width, a numbers in an action row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from reverie.errors import ShapeError
from reverie.nn.activation import TanhGELU
from reverie.nn.attention import Memory, attend_few, is_few
from reverie.nn.norm import RMSNorm, rms_norm
from reverie.nn.rope import rotate
from reverie.types import STEP_FRAMES

WINDOW_FRAMES = 12
"""Length of a step's action window: the rows of its own 4 frames and of the 8 before."""

BeforeStart = Literal["repeat", "idle"]
"""Content of action rows below 0: the first row again (Matrix-Game 2), or nothing pressed (a session that opens on an
image)."""


def action_windows(rows: Tensor, num_steps: int, before: BeforeStart) -> Tensor:
    """The action window of each step of a clip, 12 rows.

    rows: (b, 4 (t - 1) or more, a); row j leads from frame j to frame j + 1, and step i ends at frame 4 i.
    Returns (b, t, 12, a): rows 4 i - 12 .. 4 i - 1.  Raises ShapeError when there are too few rows.
    """
    needed = STEP_FRAMES * (num_steps - 1)
    if rows.shape[1] < needed:
        raise ShapeError(f"{num_steps} steps need {needed} action rows, got {rows.shape[1]}")
    padded = torch.cat([rows_before_start(rows, before), rows[:, :needed]], 1)
    return rearrange(padded.unfold(1, WINDOW_FRAMES, STEP_FRAMES), "b t a f -> b t f a")


def rows_before_start(rows: Tensor, before: BeforeStart) -> Tensor:
    """(b, 12, a): what the rows before a clip's first one are taken to be."""
    lead = rows[:, :1] if rows.shape[1] else rows.new_zeros(rows.shape[0], 1, rows.shape[2])
    return (lead if before == "repeat" else torch.zeros_like(lead)).expand(-1, WINDOW_FRAMES, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionModuleConfig:
    """One kind of action module: the blocks that hold it and its size."""

    blocks: tuple[int, ...]
    """Indices of transformer blocks."""
    heads: int
    """Attention heads."""
    head_dim: int
    """Width of a head."""
    time_pairs: int = 4
    """Pairs of numbers that time rotates."""
    theta: float = 256.0
    """Base of the rotary positions in time."""
    hidden: int = 32
    """Width of the per-frame key embedding (keyboard only)."""
    scale: float = 1.0
    """Factor of a value before anything else."""
    gain: bool = False
    """Queries and keys have a learned gain after their norm, as in FastVideo's trainings of Matrix-Game 2.0."""


def _norm(config: ActionModuleConfig) -> RMSNorm | None:
    return RMSNorm(config.head_dim) if config.gain else None


def _normalise(x: Tensor, norm: RMSNorm | None) -> Tensor:
    """Queries or keys over the last axis; `norm` has their gain, where they have one."""
    return rms_norm(x) if norm is None else norm(x)


class MouseModule(nn.Module):
    """Turns are concatenated to every token; each position then attends over its own past."""

    def __init__(self, dim: int, config: ActionModuleConfig) -> None:
        super().__init__()
        self.config = config
        width = config.heads * config.head_dim
        self.mouse_mlp = nn.Sequential(
            nn.Linear(dim + 2 * WINDOW_FRAMES, width),
            TanhGELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )
        self.t_qkv = nn.Linear(width, 3 * width, bias=False)
        self.img_attn_q_norm, self.img_attn_k_norm = _norm(config), _norm(config)
        self.proj_mouse = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, mouse: Tensor, time: Tensor, memory: Memory, layer: int) -> Tensor:
        """x: (b, t, n, d); mouse: (b, t, 12, 2) degrees; time: (t, pairs, 2) rotary table.  Returns x, updated."""
        q, k, v = self.project_qkv(x, mouse, time)
        seen = memory.visible_keys_values(layer, k, v) if is_few(q) else None
        return self.project_out(x, memory.attend(layer, q, k, v)) if seen is None else self.project_out_few(x, q, *seen)

    def project_qkv(self, x: Tensor, mouse: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, (b n, heads, t, head width)."""
        b, t, n, _ = x.shape
        turns = (mouse * self.config.scale).to(x.dtype).flatten(2).unsqueeze(2).expand(b, t, n, -1)
        hidden = self.mouse_mlp(torch.cat([x, turns], -1))
        q, k, v = rearrange(self.t_qkv(hidden), "b t n (three h d) -> three (b n) t h d", three=3, h=self.config.heads)
        q = rotate(_normalise(q, self.img_attn_q_norm), time)
        k = rotate(_normalise(k, self.img_attn_k_norm), time)
        return tuple(rearrange(y, "r t h d -> r h t d") for y in (q, k, v))

    def project_out(self, x: Tensor, out: Tensor) -> Tensor:
        """x with what was found, (b n, heads, t, head width), added."""
        return x + self.proj_mouse(rearrange(out, "(b n) h t d -> b t n (h d)", b=x.shape[0]))

    def project_out_few(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attends with `q` to keys and values (b n, heads, context steps, head width), then projects out as `leave`
        does."""
        return self.project_out(x, attend_few(q, k, v))


class KeyboardModule(nn.Module):
    """Tokens ask, keys answer: cross-attention over time to the embedded keys, shared by all positions."""

    def __init__(self, dim: int, num_keys: int, config: ActionModuleConfig) -> None:
        super().__init__()
        self.config = config
        width = config.heads * config.head_dim
        self.keyboard_embed = nn.Sequential(
            nn.Linear(num_keys, config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.hidden)
        )
        self.keyboard_attn_kv = nn.Linear(WINDOW_FRAMES * config.hidden, 2 * width, bias=False)
        self.mouse_attn_q = nn.Linear(dim, width, bias=False)
        self.key_attn_q_norm, self.key_attn_k_norm = _norm(config), _norm(config)
        self.proj_keyboard = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, keys: Tensor, time: Tensor, memory: Memory, layer: int) -> Tensor:
        """x: (b, t, n, d); keys: (b, t, 12, keys) of 0 and 1; time: (t, pairs, 2) rotary table.  Returns x, updated."""
        return self.project_out(x, memory.attend(layer, *self.project_qkv(x, keys, time)))

    def project_qkv(self, x: Tensor, keys: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Queries (b, heads, t n, head width), keys and values (b, heads, t, head width)."""
        heads = self.config.heads
        embedded = self.keyboard_embed((keys * self.config.scale).to(x.dtype)).flatten(2)
        k, v = rearrange(self.keyboard_attn_kv(embedded), "b t (two h d) -> two b t h d", two=2, h=heads)
        q = rearrange(self.mouse_attn_q(x), "b t n (h d) -> b t n h d", h=heads)
        q = rotate(_normalise(q, self.key_attn_q_norm), time.unsqueeze(-3))
        k = rotate(_normalise(k, self.key_attn_k_norm), time)
        k, v = (rearrange(y, "b t h d -> b h t d") for y in (k, v))
        return rearrange(q, "b t n h d -> b h (t n) d"), k, v

    def project_out(self, x: Tensor, out: Tensor) -> Tensor:
        """x with what was found, (b, heads, t n, head width), added."""
        return x + self.proj_keyboard(rearrange(out, "b h (t n) d -> b t n (h d)", t=x.shape[1]))
