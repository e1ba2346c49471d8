"""The small image encoder: the start image as tokens for cross-attention.

It conditions every block on the place where the session began, long after the image has left the window.
Matrix-Game 2.0 uses CLIP's ViT-H for this; a world model of a few games needs far less.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.errors import ShapeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEncoderConfig:
    """Shape of the encoder."""

    size: tuple[int, int]
    """(height, width) that images are resized to, multiples of 16."""
    width: int
    """Channels of a token."""

    def __post_init__(self) -> None:
        if self.size[0] % 16 or self.size[1] % 16:
            raise ShapeError(f"the image encoder's size must be multiples of 16, got {self.size}")

    @property
    def num_tokens(self) -> int:
        return self.size[0] // 16 * (self.size[1] // 16)


class ImageEncoder(nn.Module):
    """Four strided convolutions: a token for each 16x16 pixels of the resized image."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3] + [max(16, config.width // 2 ** (3 - i)) for i in range(3)] + [config.width]
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)
        )

    def forward(self, picture: Tensor) -> Tensor:
        """picture: (b, 3, H, W) in [-1, 1], any size.  Returns tokens (b, n, width)."""
        if picture.ndim != 4 or picture.shape[1] != 3:
            raise ShapeError(f"the image encoder takes (b, 3, H, W) pictures, got {tuple(picture.shape)}")
        if picture.shape[-2:] != self.config.size:
            picture = F.interpolate(picture, self.config.size, mode="area")
        x = picture
        for i, stage in enumerate(self.stages):
            x = stage(F.silu(x) if i else x)
        return rearrange(x, "b c h w -> b (h w) c")
