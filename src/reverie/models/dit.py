"""The causal action transformer: one code path from the bundled nano to Matrix-Game 2.0's 1.8B.

What it is conditioned on beside actions comes from a conditioner (`reverie.models.conditioning`); noise arithmetic and
sampling are in `reverie.sampling`.

Legend: b batch, t latent steps, n tokens of a step, d width, (c h w) a latent step, a numbers in an action row.
Sources: Wan 2.1 (block layout, rotary split), Matrix-Game 2.0 (arXiv 2508.13009: actions, causality, conditions),
Dreamer 4 (arXiv 2509.24527: step sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reverie.errors import ShapeError
from reverie.models.actions import WINDOW_FRAMES, ActionModuleConfig
from reverie.models.blocks import Block, Pass, modulate
from reverie.models.config import WorldModelConfig
from reverie.models.state import Condition, RotaryTables, TimestepEmbedding, WorldState
from reverie.nn.attention import ClipMemory, Memory, Visibility
from reverie.nn.cache import KVCache
from reverie.nn.precision import exact, exact_dtype
from reverie.nn.rope import rotary_table, split_pairs
from reverie.types import STEP_FRAMES

MOUSE_SCALE = 0.25
"""Mouse rotations are multiplied by it before they enter the timestep embedding."""


class WorldModel(nn.Module):
    """Predicts clean latents, or the velocity, of noisy latent steps from their context and the actions.

    remat: a training pass over a whole clip keeps only what goes from block to block, and computes the rest again in
    the backward pass: a third more arithmetic for a fraction of the memory.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.remat = False
        dim, channels = config.dim, config.latent[0]
        inputs = channels + config.cond_channels
        self.patch_embedding = nn.Linear(config.patch_cells * inputs, dim)
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Linear(dim, 6 * dim)
        self.step_embedding = nn.Embedding(config.step_sizes, dim) if config.step_sizes else None
        self.img_emb = nn.Sequential(
            nn.LayerNorm(config.image.dim),
            nn.Linear(config.image.dim, config.image.dim),
            nn.GELU(),
            nn.Linear(config.image.dim, dim),
            nn.LayerNorm(dim),
        )
        self.positions = nn.Parameter(torch.zeros(config.tokens_per_step, dim)) if config.positions.learned else None
        window_size = WINDOW_FRAMES * config.action_space.size
        self.action_embedding = (
            nn.Sequential(nn.Linear(window_size, dim), nn.SiLU(), nn.Linear(dim, dim))
            if config.actions.modulation
            else None
        )
        self.blocks = nn.ModuleList()
        layer = 0
        for index in range(config.layers):
            block = Block(config, index, layer)
            layer += block.num_layers
            self.blocks.append(block)
        self.head = nn.Linear(dim, config.patch_cells * channels)
        self.head_modulation = nn.Parameter(torch.randn(2, dim) / dim**0.5)
        self.refine = _refining_network(inputs, config.refine, channels) if config.refine else None
        self._initialise()

    def _initialise(self) -> None:
        """Start near the identity: gates half open, small residual outputs, a zero head; actions start silent."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.time_projection.weight)
        nn.init.zeros_(self.time_projection.bias)
        if self.positions is not None:
            nn.init.normal_(self.positions, std=0.02)
        if self.action_embedding is not None:
            nn.init.normal_(self.action_embedding[2].weight, std=0.02)  # type: ignore[arg-type]
        if self.step_embedding is not None:
            nn.init.zeros_(self.step_embedding.weight)
        for block in self._blocks():
            self._initialise_block(block)

    @torch.no_grad()
    def _initialise_block(self, block: Block) -> None:
        block.modulation.zero_()
        block.modulation[2] = block.modulation[5] = 0.5
        for output in (block.self_attn.o, block.ffn[2]):
            output.weight.mul_(0.5)  # type: ignore[operator]
        start = torch.linspace(0.4, 1.2, self.config.heads).repeat_interleave(self.config.head_dim)
        for module in (block.self_attn.norm_q, block.self_attn.norm_k):
            if module.bias is not None:
                module.bias.copy_(start)

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def shard_units(self) -> list[nn.Module]:
        """The modules that hold nearly all weights and use them only when called: what training may shard.

        A block's image keys and values are asked for before the block is, so they are a unit of their own.
        """
        blocks = self._blocks()
        return [*(b.cross_attn.kv for b in blocks if b.cross_attn is not None), *blocks]

    def new_state(
        self, batch: int = 1, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> WorldState:
        """An empty state for `batch` worlds; every tensor that a session will ever need."""
        config, device = self.config, torch.device(device)
        caches = []

        def ring(rows: int, heads: int, head_dim: int, tokens: int) -> None:
            kept = {"window": config.window, "sink": config.sink, "tokens": tokens}
            caches.append(KVCache.empty(rows, heads, head_dim, **kept, device=device, dtype=dtype))

        image = []
        for block in self._blocks():
            ring(batch, config.heads, config.head_dim, config.tokens_per_step)
            if block.cross_attn is not None:
                shape = (batch, config.heads, config.image.tokens, config.head_dim)
                image.append(
                    (torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
                )
            if block.mouse is not None:
                ring(batch * config.tokens_per_step, block.mouse.config.heads, block.mouse.config.head_dim, 1)
            if block.keyboard is not None:
                ring(batch, block.keyboard.config.heads, block.keyboard.config.head_dim, 1)
        actions = torch.zeros(batch, WINDOW_FRAMES - STEP_FRAMES, config.action_space.size, device=device)
        last = torch.zeros(batch, *config.latent, device=device, dtype=dtype)
        return WorldState(caches, actions, last, image)

    def image_keys_values(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the start image for every block that attends to it.  image: (b, n, image.dim)."""
        embedded = self.img_emb(image)
        return [b.cross_attn.keys_values(embedded) for b in self._blocks() if b.cross_attn is not None]

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | TimestepEmbedding,
        cond: Condition,
        state: WorldState | None = None,
        *,
        commit: bool = False,
        visibility: Visibility | None = None,
        step_size: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """The clean latent of noisy steps, or their velocity (noise minus clean): see `config.predicts`.

        x: (b, t, c, h, w) noisy latents; sigma: (b, t) noise levels in [0, 1], or what `embed_sigma` made of them;
        step_size: (b, t) in (0, 1], how much noise the pass is to take away, for models with that input (default: the
        smallest).  Without a state the steps are a whole clip, block-causal and windowed, or as `visibility` gives;
        with one they are the next block after it, and `commit` writes the block to the state's rings.  first: steps
        before it are context alone, and what nobody asks of them is not computed.  Returns (b, t - first, c, h, w).
        Raises ShapeError for a latent of another shape.
        """
        config = self.config
        if x.shape[2:] != config.latent:
            raise ShapeError(f"this model's latent steps are {config.latent} (c, h, w), got {tuple(x.shape[2:])}")
        p, q = config.patch
        inputs = torch.cat([x, cond.channels.to(x.dtype)], 2)
        tokens = rearrange(inputs, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=q)
        hidden = self.patch_embedding(tokens)
        if self.positions is not None:
            hidden = hidden + self.positions.to(hidden.dtype)
        level = self.embed_sigma(sigma, cond, step_size) if isinstance(sigma, Tensor) else sigma
        shared = self._block_inputs(
            cond, state, commit, visibility or Visibility.windowed(x.shape[1], config.window, config.block, config.sink)
        )
        recompute = self.remat and state is None and torch.is_grad_enabled()  # a ring has moved on by then
        hidden, embedding = self._run_blocks(hidden, level, shared, first, recompute), level.embedding[:, first:]
        if not hidden.shape[1]:
            return x[:, first:]
        shift, scale = (embedding.unsqueeze(2) + self.head_modulation).to(hidden.dtype).unsqueeze(3).unbind(2)
        out = self.head(modulate(hidden, scale, shift))
        out = rearrange(out, "b t (h w) (p q c) -> b t c (h p) (w q)", h=config.grid[0], p=p, q=q).to(x.dtype)
        if cond.base is not None:
            out = out + cond.base[:, first:].to(x.dtype)
        if self.refine is not None:
            refined = self.refine(torch.cat([out, cond.channels[:, first:].to(x.dtype)], 2).flatten(0, 1))
            out = out + refined.to(x.dtype).unflatten(0, out.shape[:2])
        return out

    def _run_blocks(
        self, hidden: Tensor, level: TimestepEmbedding, shared: Pass, first: int, recompute: bool
    ) -> Tensor:
        """hidden: (b, t, n, d).  Returns those of the steps from `first` on."""
        blocks = self._blocks()
        left_out = first if blocks[-1].attends_once else 0
        for block in blocks:
            given = (hidden, level.modulation, shared, left_out if block is blocks[-1] else 0)
            if recompute:
                hidden = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden = block(*given)
        return hidden[:, first - left_out :]

    def embed_sigma(self, sigma: Tensor, cond: Condition, step_size: Tensor | None = None) -> TimestepEmbedding:
        """Noise levels (b, t) and step sizes (b, t) as the blocks take them.

        They are the same for every block of a session where actions have no part in it (`actions.modulation`)."""
        config, dtype = self.config, self.time_projection.weight.dtype
        embedding = self.time_embedding(sinusoid(1000 * sigma, config.freq_dim).to(dtype))
        if self.step_embedding is not None:
            smallest = torch.full_like(sigma, 0.5 ** (config.step_sizes - 1))
            index = -torch.log2(smallest if step_size is None else step_size).round()
            embedding = embedding + self.step_embedding(index.long().clamp(0, config.step_sizes - 1))
        if self.action_embedding is not None:
            embedding = embedding + self.action_embedding(self._scale_mouse(cond.actions).flatten(2).to(dtype))
        return TimestepEmbedding(sigma, embedding, self.time_projection(F.silu(embedding)).unflatten(-1, (6, -1)))

    def with_rotary(self, cond: Condition) -> Condition:
        """`cond` with its rotary tables, which all passes over a block share."""
        if cond.rotary is not None:
            return cond
        config, time = self.config, exact(cond.time)
        rows = time if time.ndim == 2 else time[None]
        axes = (torch.arange(size, device=time.device) for size in config.grid)
        cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).to(time).flatten(0, 1)
        cells = cells.expand(*rows.shape, -1, -1)
        positions = torch.cat([rows[..., None, None].expand(*cells.shape[:3], 1), cells], -1)

        def clock(module: ActionModuleConfig | None) -> Tensor | None:
            return None if module is None else rotary_table(time[..., None], [module.time_pairs], module.theta)

        table = rotary_table(positions, split_pairs(config.head_dim), config.positions.theta)
        mouse = clock(config.actions.mouse)
        if mouse is not None and time.ndim == 2:  # the mouse module attends at each position of each row
            mouse = mouse.repeat_interleave(config.tokens_per_step, 0)
        return replace(cond, rotary=RotaryTables(table, clock(config.actions.keyboard), mouse))

    def _block_inputs(self, cond: Condition, state: WorldState | None, commit: bool, visibility: Visibility) -> Pass:
        memory: Memory = ClipMemory(visibility) if state is None else state.past(commit)
        if cond.image is not None:
            image = self.image_keys_values(cond.image)
        elif state is not None:
            image = state.image
        else:
            raise ShapeError("a whole clip needs its image tokens (cond.image)")
        rotary = self.with_rotary(cond).rotary
        assert rotary is not None
        return Pass(memory, cond.actions, rotary.tokens, rotary.keyboard, rotary.mouse, image)

    def _scale_mouse(self, actions: Tensor) -> Tensor:
        """Action rows (..., a) with mouse rotations scaled for the embedding."""
        scale = torch.ones(self.config.action_space.size, device=actions.device)
        scale[len(self.config.action_space.keys) :] = MOUSE_SCALE
        return actions * scale


def _refining_network(inputs: int, width: int, channels: int) -> nn.Module:
    """Three convolutions on the latent grid; the last starts at zero."""
    last = nn.Conv2d(width, channels, 3, padding=1)
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last
    )


def sinusoid(values: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding (..., dim) of `values`, cosines first, as Wan 2.1 has it; computed in `exact_dtype`."""
    half = dim // 2
    steps = torch.arange(half, dtype=exact_dtype(values.device), device=values.device)
    angle = exact(values).unsqueeze(-1) * torch.exp(-math.log(10000) * steps / half)
    return torch.cat([angle.cos(), angle.sin()], -1).float()


def count_parameters(modules: Sequence[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
