"""The causal action transformer: one code path from the bundled nano to Matrix-Game 2.0's 1.8B.

Legend: b batch, t latent steps, n tokens of a step, d width, (c h w) a latent step, a numbers in an action row.
Sources: Wan 2.1 (block layout, rotary split), Matrix-Game 2.0 (arXiv 2508.13009: actions, causality, conditions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reverie.errors import ShapeError
from reverie.models.actions import (
    STEP_FRAMES,
    WINDOW_FRAMES,
    ActionModuleConfig,
    BeforeStart,
    action_windows,
    rows_before_start,
)
from reverie.models.blocks import Block, Pass, modulate
from reverie.models.camera import Camera, TurnedStep
from reverie.models.state import Condition, Level, Places, WorldState
from reverie.nn.attention import ClipMemory, Memory, RingMemory, Visibility
from reverie.nn.cache import KVCache
from reverie.nn.rope import rotary_table, split_pairs
from reverie.types import ActionSpace

SIDEWAYS = ("left", "right", "turn-left", "turn-right", "lean-left", "lean-right")
"""Keys that turn the camera or step aside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldModelConfig:
    """Everything that decides the shape of a world model.

    latent: (c, h, w) of a step; cond_channels: condition channels beside the noisy latent; window: steps that attention
    reaches, the block at hand included; sink: how many of them are the first steps of all, kept for good; block: steps
    generated together; image_dim: width of image-encoder tokens;
    image_blocks: transformer blocks with image cross-attention; patch: latent cells of a token, down and across; eps:
    of the norms; action_frames: action rows that a step sees; idle_key: a key that is down whenever no other key is.

    What nano has and Matrix-Game 2 has not: camera (directions as rotary positions; the step before, turned and as it
    was, as the condition; and the turned one as what the network's clean estimate starts from), action_modulation
    (actions also through the timestep embedding), learned_positions (a table added to the tokens: walking needs to know
    where in the picture it is), local_start (attention starts local), predicts_clean (the network's output is the clean
    latent, which a narrow network finds easier; `forward` still returns velocity), motion (width of the network that
    moves the step before along, where there is a camera; 0 is none), trust (0..1, how little the network may add to the
    turned step; 0 in training, more where a network that has learnt little would blur it away), canvas (in play, what
    the start picture showed is brought from there at once, not from step to step: `TurnedStep.retrace`).
    """

    action_space: ActionSpace
    latent: tuple[int, int, int]
    dim: int
    ffn_dim: int
    layers: int
    heads: int
    window: int
    block: int
    image_dim: int
    image_tokens: int
    image_blocks: tuple[int, ...]
    keyboard: ActionModuleConfig | None
    mouse: ActionModuleConfig | None
    cond_channels: int = 20
    freq_dim: int = 256
    theta: float = 10000.0
    generates_start: bool = False
    before_start: BeforeStart = "idle"
    camera: Camera | None = None
    action_modulation: bool = False
    learned_positions: bool = False
    local_start: bool = False
    predicts_clean: bool = False
    mouse_scale: float = 1.0
    patch: tuple[int, int] = (2, 2)
    eps: float = 1e-6
    action_frames: int = WINDOW_FRAMES
    idle_key: str | None = None
    sink: int = 0
    motion: int = 0
    trust: float = 0.0
    canvas: bool = False

    def __post_init__(self) -> None:
        if self.latent[1] % self.patch[0] or self.latent[2] % self.patch[1]:
            raise ShapeError(f"a latent's height and width must be multiples of {self.patch}, got {self.latent}")
        if self.action_frames < STEP_FRAMES or self.action_frames % STEP_FRAMES:
            raise ShapeError(f"a step sees a multiple of {STEP_FRAMES} action rows, got {self.action_frames}")
        if self.idle_key is not None and self.idle_key not in self.action_space.keys:
            raise ShapeError(f"the idle key {self.idle_key!r} is none of the keys {', '.join(self.action_space.keys)}")
        if self.sink < 0 or self.window - self.sink < self.block:
            raise ShapeError(
                f"the window ({self.window} steps, {self.sink} of them kept) must hold a block ({self.block} steps)"
            )
        if not 0 <= self.trust <= 1 or (self.trust and not (self.camera and self.predicts_clean)):
            raise ShapeError(f"trust is between 0 and 1, and of models with a camera; got {self.trust}")
        if self.canvas and not (self.camera and self.predicts_clean and self.block == 1):
            raise ShapeError("a canvas is for models with a camera that make one step at a time")
        if self.dim % self.heads:
            raise ShapeError(f"width {self.dim} does not divide into {self.heads} heads")

    def finished(self, trust: float | None, canvas: bool | None) -> WorldModelConfig:
        """The same with what is given of `trust` and `canvas`, for play.  Raises ShapeError for what does not fit."""
        given = {"trust": trust, "canvas": canvas}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across."""
        return self.latent[1] // self.patch[0], self.latent[2] // self.patch[1]

    @property
    def tokens_per_step(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def patch_cells(self) -> int:
        return self.patch[0] * self.patch[1]

    @property
    def block_frames(self) -> int:
        return STEP_FRAMES * self.block

    def block_rows(self, step: int) -> int:
        """Action rows of the block that begins at `step`: one for each of its frames, but for the start frame that a
        model generates (at least one: what was done before the start is guessed from it)."""
        return max(1, self.block_frames - STEP_FRAMES) if self.generates_start and step == 0 else self.block_frames


class WorldModel(nn.Module):
    """Velocity of noisy latent steps, given their past and the actions.

    remat: a training pass over a whole clip keeps only what goes from block to block, and works out the rest again
    when it goes backward: a third more arithmetic for a fraction of the memory.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.remat = False
        dim, (channels, _, _) = config.dim, config.latent
        self.patch_embedding = nn.Linear(config.patch_cells * (channels + config.cond_channels), dim)
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Linear(dim, 6 * dim)
        self.img_emb = nn.Sequential(
            nn.LayerNorm(config.image_dim),
            nn.Linear(config.image_dim, config.image_dim),
            nn.GELU(),
            nn.Linear(config.image_dim, dim),
            nn.LayerNorm(dim),
        )
        self.positions = nn.Parameter(torch.zeros(config.tokens_per_step, dim)) if config.learned_positions else None
        seen = config.action_frames * config.action_space.size
        self.action_embedding = (
            nn.Sequential(nn.Linear(seen, dim), nn.SiLU(), nn.Linear(dim, dim)) if config.action_modulation else None
        )
        self.turned_step = None
        if config.camera:
            space = config.action_space
            sideways = [space.keys.index(key) for key in SIDEWAYS if key in space.keys] if space.mouse else None
            self.turned_step = TurnedStep(config.camera, channels, seen, config.motion, sideways)
        self.blocks = nn.ModuleList()
        layer = 0
        for index in range(config.layers):
            block = Block(config, index, layer)
            layer += block.num_layers
            self.blocks.append(block)
        self.head = nn.Linear(dim, config.patch_cells * channels)
        self.head_modulation = nn.Parameter(torch.randn(2, dim) / dim**0.5)
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
        start = torch.linspace(0.4, 1.2, self.config.heads).repeat_interleave(self.config.head_dim)
        with torch.no_grad():
            for block in self._blocks():
                block.modulation.zero_()
                block.modulation[2] = block.modulation[5] = 0.5
                for output in (block.self_attn.o, block.ffn[2]):
                    output.weight.mul_(0.5)  # type: ignore[operator]
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
                shape = (batch, config.heads, config.image_tokens, config.head_dim)
                image.append(
                    (torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
                )
            if block.mouse is not None:
                ring(batch * config.tokens_per_step, block.mouse.config.heads, block.mouse.config.head_dim, 1)
            if block.keyboard is not None:
                ring(batch, block.keyboard.config.heads, block.keyboard.config.head_dim, 1)
        rows = torch.zeros(batch, config.action_frames - STEP_FRAMES, config.action_space.size, device=device)
        turn = torch.zeros(batch, 2, dtype=torch.float64, device=device)
        last = torch.zeros(batch, *config.latent, device=device, dtype=dtype)
        canvas = self.turned_step.open(last) if config.canvas and self.turned_step is not None else None
        return WorldState(caches, rows, turn, last, image, canvas=canvas)

    def image_keys_values(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the start picture for every block that looks at it.  image: (b, n, image_dim)."""
        embedded = self.img_emb(image)
        return [b.cross_attn.keys_values(embedded) for b in self._blocks() if b.cross_attn is not None]

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | Level,
        cond: Condition,
        state: WorldState | None = None,
        *,
        commit: bool = False,
        visibility: Visibility | None = None,
    ) -> Tensor:
        """Velocity (noise minus clean) of noisy steps.

        x: (b, t, c, h, w) noisy latents; sigma: (b, t) noise levels in [0, 1], or what `level` made of them.
        Without a state the steps are a whole clip, block-causal and windowed, or as `visibility` says; with one they
        are the next block after it, and `commit` lets the block into the state's rings.  Returns (b, t, c, h, w).
        Raises ShapeError for a latent of another shape.
        """
        config = self.config
        if x.shape[2:] != config.latent:
            raise ShapeError(f"this model's latent steps are {config.latent} (c, h, w), got {tuple(x.shape[2:])}")
        p, q = config.patch
        tokens = rearrange(torch.cat([x, cond.extra], 2), "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=q)
        hidden = self.patch_embedding(tokens)
        if self.positions is not None:
            hidden = hidden + self.positions.to(hidden.dtype)
        level = self.level(sigma, cond) if isinstance(sigma, Tensor) else sigma
        shared = self._shared(
            cond, state, commit, visibility or Visibility.windowed(x.shape[1], config.window, config.block, config.sink)
        )
        again = self.remat and state is None and torch.is_grad_enabled()  # a ring has moved on by then
        for block in self.blocks:
            if again:
                hidden = checkpoint(
                    block, hidden, level.modulation, shared, use_reentrant=False, preserve_rng_state=False
                )
            else:
                hidden = block(hidden, level.modulation, shared)
        shift, scale_ = (level.embedding.unsqueeze(2) + self.head_modulation).to(hidden.dtype).unsqueeze(3).unbind(2)
        out = self.head(modulate(hidden, scale_, shift, config.eps))
        out = rearrange(out, "b t (h w) (p q c) -> b t c (h p) (w q)", h=config.grid[0], p=p, q=q).to(x.dtype)
        if not config.predicts_clean:
            return out
        if self.turned_step is not None:
            mask, latent = self.turned_step.MASK_CHANNELS, config.latent[0]
            free = self.turned_step.free(cond.extra[:, :, :mask], config.trust)
            out = free * out + cond.extra[:, :, mask : mask + latent]
        return (x - out) / level.sigma.clamp(min=0.02)[..., None, None, None].to(x.dtype)

    def level(self, sigma: Tensor, cond: Condition) -> Level:
        """What the blocks are told of noise levels (b, t); the same for every block where actions have no part in it
        (`action_modulation`)."""
        config, dtype = self.config, self.time_projection.weight.dtype
        embedding = self.time_embedding(sinusoid(1000 * sigma, config.freq_dim).to(dtype))
        if self.action_embedding is not None:
            embedding = embedding + self.action_embedding(self._scaled(cond.rows).flatten(2).to(dtype))
        return Level(sigma, embedding, self.time_projection(F.silu(embedding)).unflatten(-1, (6, -1)))

    def placed(self, cond: Condition) -> Condition:
        """`cond` with its rotary tables, which all passes over a block share."""
        if cond.places is not None:
            return cond
        config, time = self.config, cond.time.double()
        rows, columns = config.grid
        if config.camera is not None and cond.turn is not None:
            cells = config.camera.directions(rows, columns, cond.turn)
        else:
            grid = torch.meshgrid(
                torch.arange(rows, device=time.device), torch.arange(columns, device=time.device), indexing="ij"
            )
            cells = torch.stack(grid, -1).double().flatten(0, 1).expand(1, len(time), -1, -1)
        positions = torch.cat([time[None, :, None, None].expand(*cells.shape[:3], 1), cells], -1)

        def clock(module: ActionModuleConfig | None) -> Tensor | None:
            return None if module is None else rotary_table(time[:, None], [module.time_pairs], module.theta)

        table = rotary_table(positions, split_pairs(config.head_dim), config.theta)
        return replace(cond, places=Places(table, clock(config.keyboard), clock(config.mouse)))

    def _shared(self, cond: Condition, state: WorldState | None, commit: bool, visibility: Visibility) -> Pass:
        memory: Memory = ClipMemory(visibility) if state is None else RingMemory(state.caches, commit)
        if cond.image is not None:
            image = self.image_keys_values(cond.image)
        elif state is not None:
            image = state.image
        else:
            raise ShapeError("a whole clip needs its image tokens (cond.image)")
        places = self.placed(cond).places
        assert places is not None
        return Pass(memory, cond.rows, places.table, places.key_time, places.mouse_time, image)

    def clip_condition(self, rows: Tensor, context: Tensor, image: Tensor, extra: Tensor | None = None) -> Condition:
        """The condition of a whole clip: what `next_condition` gives block after block.

        rows: (b, 4 (t - 1), a) action rows; context: (b, t, c, h, w) the latents that the condition may look back at;
        image: (b, n, image_dim); extra: (b, t, cond_channels, h, w) the condition channels of a model that generates
        its start, None where the model makes them itself.
        """
        b, t = context.shape[:2]
        windows = action_windows(rows, t, self.config.before_start, self.config.action_frames)
        if extra is not None:
            return Condition(extra, windows, torch.arange(t, device=context.device), None, image)
        if self.config.generates_start:
            raise ShapeError("a model that generates its start needs the picture's condition channels for each step")
        turned = self._turns(rows)
        steps = torch.cat([turned.new_zeros(b, 1, 2), turned[:, :, :].unflatten(1, (t - 1, STEP_FRAMES)).mean(2)], 1)
        extra = context.new_zeros(b, t, self.config.cond_channels, *self.config.latent[1:])
        if self.turned_step is not None and t > 1:
            since, told = self.what_moves(rows)
            turned_steps = self.turned_step(context[:, :-1].flatten(0, 1), since.flatten(0, 1), told.flatten(0, 1))
            extra = torch.cat([extra[:, :1], turned_steps.unflatten(0, (b, t - 1))], 1)
        return Condition(extra, windows, torch.arange(t, device=context.device), steps, image)

    def next_condition(self, rows: Tensor, state: WorldState, extra: Tensor | None = None) -> Condition:
        """The condition of the next block after `state`, which is left alone.

        rows: (b, config.block_rows(state.step), a); extra: (b, block, cond_channels, h, w) the condition channels of a
        model that generates its start, None where the model makes them itself.
        """
        config = self.config
        b, t = rows.shape[0], config.block
        is_start = config.generates_start and state.step == 0
        before = rows_before_start(rows, config.before_start, config.action_frames) if is_start else state.rows
        taken = rows if t > 1 or not is_start else rows[:, :0]
        seen = torch.cat([before, taken], 1).to(state.rows)
        windows = rearrange(seen.unfold(1, config.action_frames, STEP_FRAMES), "b t a f -> b t f a").contiguous()
        time = state.step + torch.arange(t, device=rows.device)
        if extra is not None:
            return Condition(extra, windows, time)
        if config.generates_start:
            raise ShapeError("a model that generates its start needs the picture's condition channels for each block")
        extra, canvas = state.last.new_zeros(b, t, config.cond_channels, *config.latent[1:]), None
        turned = self._turns(rows).unflatten(1, (-1, STEP_FRAMES))
        if self.turned_step is not None:
            since = self._since_last(turned, turned.new_zeros(b, 2))
            given = (state.last, since[:, 0], self._keys_of(windows[:, 0]))
            if state.canvas is None:
                extra[:, 0] = self.turned_step(*given)
            else:
                extra[:, 0], canvas = self.turned_step.retrace(*given, state.canvas, state.turn)
        return Condition(extra, windows, time, state.turn[:, None] + turned.mean(2), canvas=canvas)

    def what_moves(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What `TurnedStep` is told of the steps after the first of a clip.

        rows: (b, 4 (t - 1), a) action rows.  Returns (b, t - 1, 4, 2) degrees turned since the last frame of the step
        before, and (b, t - 1, f, a) the keys of the rows that each step sees.
        """
        b, t = len(rows), 1 + rows.shape[1] // STEP_FRAMES
        turned = self._turns(rows).unflatten(1, (t - 1, STEP_FRAMES))
        windows = action_windows(rows, t, self.config.before_start, self.config.action_frames)
        return self._since_last(turned, turned.new_zeros(b, 2)), self._keys_of(windows[:, 1:])

    def start_condition(self, state: WorldState) -> Condition:
        """The condition of a start picture's own step: nothing done yet, nothing seen before."""
        b, size = state.rows.shape[0], self.config.action_space.size
        extra = state.last.new_zeros(b, 1, self.config.cond_channels, *self.config.latent[1:])
        windows = state.rows.new_zeros(b, 1, self.config.action_frames, size)
        return Condition(extra, windows, torch.arange(1, device=state.rows.device), state.turn[:, None])

    def _scaled(self, rows: Tensor) -> Tensor:
        """Action rows (..., a) as embeddings take them."""
        scale = torch.ones(self.config.action_space.size, device=rows.device)
        scale[len(self.config.action_space.keys) :] = self.config.mouse_scale
        return rows * scale

    def _keys_of(self, rows: Tensor) -> Tensor:
        """Action rows (..., a) with a mouse that does not move."""
        return rows * (torch.arange(rows.shape[-1], device=rows.device) < len(self.config.action_space.keys))

    def _turns(self, rows: Tensor) -> Tensor:
        """(b, f, 2) float64 degrees turned since the first row began."""
        if not self.config.action_space.mouse:
            return torch.zeros(*rows.shape[:2], 2, dtype=torch.float64, device=rows.device)
        return rows[..., -2:].double().cumsum(1)

    @staticmethod
    def _since_last(turned: Tensor, start: Tensor) -> Tensor:
        """(b, t, 4, 2) turns since the last frame of the step before, from (b, t, 4, 2) turns since the start."""
        before = torch.cat([start[:, None], turned[:, :-1, -1]], 1)
        return turned - before.unsqueeze(2)


def sinusoid(values: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding (..., dim) of `values`, cosines first, as Wan 2.1 has it; float32, computed in float64."""
    half = dim // 2
    frequency = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64, device=values.device) / half)
    angle = values.double().unsqueeze(-1) * frequency
    return torch.cat([angle.cos(), angle.sin()], -1).float()


def count_parameters(modules: Sequence[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
