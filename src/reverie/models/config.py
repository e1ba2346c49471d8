"""Configuration of a world model (`WorldModelConfig`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reverie.errors import ShapeError
from reverie.models.actions import ActionModuleConfig, BeforeStart
from reverie.types import STEP_FRAMES, ActionSpace

Conditioning = Literal["first_frame", "previous_latent", "spatial_memory"]
MASK_CHANNELS = 4
"""Channels of the first frame's mask, and of spatial memory's cover and inverse depth: one for each frame of a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAttentionConfig:
    """Cross-attention to the start image's tokens."""

    dim: int
    """Width of a token."""
    tokens: int
    """Number of tokens."""
    blocks: tuple[int, ...]
    """Indices of the transformer blocks that attend to them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionConditioningConfig:
    """Ways in which actions reach the network."""

    keyboard: ActionModuleConfig | None
    """The module of keys; None for a model without."""
    mouse: ActionModuleConfig | None
    """The module of the mouse; None for a model without."""
    modulation: bool = False
    """Actions are also in the timestep embedding, and so in the modulation."""
    idle_key: str | None = None
    """A key that is down whenever no other key is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionConfig:
    """Positions of tokens in self-attention."""

    theta: float = 10000.0
    """Base of the rotary positions."""
    learned: bool = False
    """A learned table is added to the tokens."""
    local_start: bool = False
    """Attention starts local, before anything is learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldModelConfig:
    """Everything that decides the shape of a world model."""

    action_space: ActionSpace
    """Keys and mouse that the model is played with."""
    latent: tuple[int, int, int]
    """(c, h, w) of a latent step."""
    patch: tuple[int, int] = (2, 2)
    """Latent cells of a token, down and across."""
    dim: int
    """Width of a token."""
    ffn_dim: int
    """Width within a block's feed-forward layers."""
    layers: int
    """Transformer blocks."""
    heads: int
    """Attention heads of a block."""
    window: int
    """Latent steps that attention reaches, the block at hand included."""
    sink: int = 0
    """Steps of the window that are the first of all, kept for good."""
    block: int
    """Latent steps generated together."""
    image: ImageAttentionConfig
    """Cross-attention to the start image."""
    actions: ActionConditioningConfig
    """Ways in which actions reach the network."""
    positions: PositionConfig = PositionConfig()
    """Positions of tokens."""
    freq_dim: int = 256
    """Width of the sinusoidal embedding of noise levels."""
    step_sizes: int = 0
    """Step sizes, each half of the one before, beginning with 1, that the network is conditioned on (0: none)."""
    conditioning: Conditioning = "previous_latent"
    """Content of the condition channels: the start frame, the latent before, or a view of the spatial memory."""
    predicts: Literal["velocity", "clean"] = "velocity"
    """Output of the network: velocity, or the clean latent itself."""
    refine: int = 0
    """Width of a convolutional network after the head, against patch borders, 0 for none."""

    def __post_init__(self) -> None:
        if self.latent[1] % self.patch[0] or self.latent[2] % self.patch[1]:
            raise ShapeError(f"a latent's height and width must be multiples of {self.patch}, got {self.latent}")
        if (idle_key := self.actions.idle_key) is not None and idle_key not in self.action_space.keys:
            raise ShapeError(f"the idle key {idle_key!r} is none of the keys {', '.join(self.action_space.keys)}")
        if self.sink < 0 or self.window - self.sink < self.block:
            raise ShapeError(
                f"the window ({self.window} steps, {self.sink} of them kept) must hold a block ({self.block} steps)"
            )
        if self.conditioning == "spatial_memory" and self.block != 1:
            raise ShapeError(f"models with a spatial memory make one step at a time, got blocks of {self.block}")
        if self.predicts == "velocity" and self.refine:
            raise ShapeError("a refining network needs a model that predicts clean latents")
        if self.dim % self.heads:
            raise ShapeError(f"width {self.dim} does not divide into {self.heads} heads")

    @property
    def generates_start(self) -> bool:
        """Returns whether the start image's own step is generated too, conditioned on the image's latent."""
        return self.conditioning == "first_frame"

    @property
    def before_start(self) -> BeforeStart:
        """Content of action rows before the first: a session of a model that generates its start repeats the first."""
        return "repeat" if self.generates_start else "idle"

    @property
    def cond_channels(self) -> int:
        """Condition channels beside the noisy latent."""
        latent = self.latent[0]
        extra = {"first_frame": MASK_CHANNELS, "previous_latent": 0, "spatial_memory": 2 * MASK_CHANNELS + latent}
        return latent + extra[self.conditioning]

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
