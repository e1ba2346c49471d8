"""CLIP's visual tower as an image encoder: the tokens that Matrix-Game 2.0 attends to.

A plain vision transformer with norms before its layers; what is used is the last layer but one's output, without the
final norm.  Sources: CLIP, arXiv 2103.00020; ViT-H/14 of open-clip, as Wan 2.1 stores it.

Legend: b batch, n tokens (one for the whole image, then one for each patch), d width, h heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.errors import ShapeError
from reverie.nn.attention import attend

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of the pixels in [0, 1] that the tower was trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipVisionConfig:
    """Shape of the image tower."""

    size: int = 224
    """Pixels of the square image's side."""
    patch: int = 14
    """Pixels of a token's side."""
    width: int = 1280
    """Width of a token."""
    heads: int = 16
    """Attention heads of a layer."""
    layers: int = 31
    """Layers that are used."""
    hidden: int = 5120
    """Width within a layer's MLP."""

    def __post_init__(self) -> None:
        if self.size % self.patch or self.width % self.heads:
            raise ShapeError(f"patches must fill the picture, and heads the width, got {self}")

    @property
    def num_tokens(self) -> int:
        return (self.size // self.patch) ** 2 + 1


class Layer(nn.Module):
    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        x = x + self.proj(rearrange(attend(q, k, v), "b h n d -> b n (h d)"))
        return x + self.mlp(self.norm2(x))


class ClipVision(nn.Module):
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.cls_embedding = nn.Parameter(torch.zeros(config.width))
        self.pos_embedding = nn.Parameter(torch.zeros(config.num_tokens, config.width))
        self.pre_norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        for name, values in (("pixel_mean", MEAN), ("pixel_std", STD)):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(-1, 1, 1), persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: (b, 3, H, W) in [-1, 1], any size; it is squeezed into a square.  Returns tokens (b, n, width)."""
        if picture.ndim != 4 or picture.shape[1] != 3:
            raise ShapeError(f"the image encoder takes (b, 3, H, W) pictures, got {tuple(picture.shape)}")
        side = (self.config.size, self.config.size)
        square = F.interpolate(picture.float(), side, mode="bicubic", align_corners=False)
        pixels = ((square + 1) / 2 - self.pixel_mean.float()) / self.pixel_std.float()
        return self.tokens(pixels.to(picture.dtype))

    def tokens(self, pixels: Tensor) -> Tensor:
        """pixels: (b, 3, size, size), of zero mean and unit deviation.  Returns tokens (b, n, width)."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        whole = self.cls_embedding.expand(len(patches), 1, -1)
        x = self.pre_norm(torch.cat([whole, patches], 1) + self.pos_embedding)
        for layer in self.layers:
            x = layer(x)
        return x
