"""The transformer's block and its attentions.

Legend: b batch, t latent steps, n tokens of a step, d width, h heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.models.actions import KeyboardModule, MouseModule
from reverie.models.config import WorldModelConfig
from reverie.nn.activation import TanhGELU
from reverie.nn.attention import Memory, attend
from reverie.nn.norm import EPS, RMSNorm
from reverie.nn.rope import rotate


class SelfAttention(nn.Module):
    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, offset=config.positions.local_start)
        self.norm_k = RMSNorm(dim, offset=config.positions.local_start)

    def queries_keys_values(self, x: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        """x: (b, t, n, d); table: (b or 1, t, n, pairs, 2).  Returns three of (b, heads, t n, head width)."""
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.norm_q(q), self.norm_k(k), v))
        q, k = rotate(q, table), rotate(k, table)
        return tuple(rearrange(y, "b t n h d -> b h (t n) d") for y in (q, k, v))

    def output(self, out: Tensor, t: int) -> Tensor:
        """(b, heads, t n, head width) -> (b, t, n, d)."""
        return self.o(rearrange(out, "b h (t n) d -> b t n (h d)", t=t))


class ImageAttention(nn.Module):
    """Cross-attention to the start image's tokens; its keys and values are computed once a session."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim)
        self.norm_k = RMSNorm(dim)

    def keys_values(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image: (b, n, d) embedded tokens.  Returns keys and values, (b, h, n, d)."""
        k, v = self.kv(image).chunk(2, -1)
        k, v = (rearrange(y, "b n (h d) -> b h n d", h=self.heads) for y in (self.norm_k(k), v))
        return k, v

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        t = x.shape[1]
        q = rearrange(self.norm_q(self.q(self.norm(x))), "b t n (h d) -> b h (t n) d", h=self.heads)
        return x + self.o(rearrange(attend(q, k, v), "b h (t n) d -> b t n (h d)", t=t))


@dataclass(frozen=True, slots=True)
class Pass:
    """Inputs that all blocks of one forward pass share."""

    memory: Memory
    rows: Tensor
    table: Tensor
    key_time: Tensor | None
    mouse_time: Tensor | None
    image: list[tuple[Tensor, Tensor]]


class Block(nn.Module):
    """Self-attention, image cross-attention, mouse, keyboard, feed-forward; timestep-modulated as in Wan 2.1.

    Cut into pieces at every read of the context: what lies between two reads has the same shapes all session long, and
    is what `reverie.models.compiled_blocks` compiles.
    """

    def __init__(self, config: WorldModelConfig, index: int, first_layer: int) -> None:
        super().__init__()
        dim = config.dim
        self.num_keys = len(config.action_space.keys)
        self.self_attn = SelfAttention(config)
        image_blocks, keyboard, mouse = config.image.blocks, config.actions.keyboard, config.actions.mouse
        self.image_index = image_blocks.index(index) if index in image_blocks else None
        self.cross_attn = ImageAttention(config) if self.image_index is not None else None
        self.mouse = MouseModule(dim, mouse) if mouse and index in mouse.blocks else None
        self.keyboard = KeyboardModule(dim, self.num_keys, keyboard) if keyboard and index in keyboard.blocks else None
        self.layer = first_layer
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn_dim), TanhGELU(), nn.Linear(config.ffn_dim, dim))
        self.modulation = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    @property
    def num_layers(self) -> int:
        """Attention layers with a past."""
        return 1 + (self.mouse is not None) + (self.keyboard is not None)

    @property
    def attends_once(self) -> bool:
        """Returns whether self-attention is the only layer that mixes steps."""
        return self.mouse is None and self.keyboard is None

    def forward(self, x: Tensor, e: Tensor, shared: Pass, first: int = 0) -> Tensor:
        """x: (b, t, n, d); e: (b, t, 6, d) timestep modulation.

        first: steps before it are only attended to, and left out of what is returned; above 0 if `attends_once`.
        """
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (e + self.modulation).to(x.dtype).unsqueeze(3).unbind(2)
        layer = self.layer
        out = shared.memory.attend(layer, *self.project_qkv(x, scale_a, shift_a, shared.table))
        if first == x.shape[1]:
            return x[:, first:]
        if first:
            out = out[:, :, first * x.shape[2] :]
            x, gate_a, scale_f, shift_f, gate_f = (y[:, first:] for y in (x, gate_a, scale_f, shift_f, gate_f))
        k, v = (None, None) if self.image_index is None else shared.image[self.image_index]
        x = self.project_out(x, out, gate_a, k, v)
        if self.mouse is not None and shared.mouse_time is not None:
            layer += 1
            x = self.mouse(x, shared.rows[..., self.num_keys :], shared.mouse_time, shared.memory, layer)
        if self.keyboard is not None and shared.key_time is not None:
            layer += 1
            x = self.keyboard(x, shared.rows[..., : self.num_keys], shared.key_time, shared.memory, layer)
        return self.feed_forward(x, scale_f, shift_f, gate_f)

    def project_qkv(self, x: Tensor, scale: Tensor, shift: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        """Projects modulated tokens to queries, keys and values of self-attention."""
        return self.self_attn.queries_keys_values(modulate(x, scale, shift), table)

    def project_out(self, x: Tensor, out: Tensor, gate: Tensor, k: Tensor | None, v: Tensor | None) -> Tensor:
        """Adds the output projection of self-attention; then, with `k` and `v`, cross-attention to the start image."""
        x = torch.addcmul(x, gate, self.self_attn.output(out, x.shape[1]))
        return x if self.cross_attn is None or k is None or v is None else self.cross_attn(x, k, v)

    def feed_forward(self, x: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        return torch.addcmul(x, gate, self.ffn(modulate(x, scale, shift)))


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)
