"""Configuration of a world model (`WorldModelConfig`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reverie.errors import ShapeError
from reverie.models.actions import STEP_FRAMES, WINDOW_FRAMES, ActionModuleConfig, BeforeStart
from reverie.types import ActionSpace

Conditioning = Literal["first_frame", "previous_latent", "spatial_memory"]
MASK_CHANNELS = 4
"""Channels of the first frame's mask, and of spatial memory's cover and inverse depth: one for each frame of a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldModelConfig:
    """Everything that decides the shape of a world model.

    latent: (c, h, w) of a step; window: steps that attention reaches, the block at hand included; sink: how many of
    them are the first steps of all, kept for good; block: steps generated together; image_dim: width of image-encoder
    tokens; image_blocks: transformer blocks with image cross-attention; conditioning: which conditioner it has;
    predicts: what the network returns; freq_dim: of the timestep embedding; theta: of the rotary positions;
    before_start: action rows before the first; action_modulation: actions also through the timestep embedding;
    learned_positions: a table added to the tokens; local_start: attention starts local; mouse_scale: what mouse
    rotations are multiplied by in the modulation; patch: latent cells of a token, down and across; eps: of the norms;
    action_frames: length of a step's action window; idle_key: a key that is down whenever no other key is; refine:
    width of a convolutional network after the head, against patch borders, 0 for none; step_sizes: how many step sizes,
    each half of the one before, beginning with 1, the network is conditioned on (0: none).
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
    conditioning: Conditioning = "previous_latent"
    predicts: Literal["velocity", "clean"] = "velocity"
    freq_dim: int = 256
    theta: float = 10000.0
    before_start: BeforeStart = "idle"
    action_modulation: bool = False
    learned_positions: bool = False
    local_start: bool = False
    mouse_scale: float = 1.0
    patch: tuple[int, int] = (2, 2)
    eps: float = 1e-6
    action_frames: int = WINDOW_FRAMES
    idle_key: str | None = None
    sink: int = 0
    refine: int = 0
    step_sizes: int = 0

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
