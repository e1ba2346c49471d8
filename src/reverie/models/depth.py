"""Depth of generated frames: a small U-Net, trained on the depth that games give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.errors import ShapeError

MIN_DEPTH_M, MAX_DEPTH_M = 0.05, 400.0
"""Depths are held to this range before their logarithm is taken; the sky is at its end."""
MEAN_LOG_DEPTH = 2.3
"""Depths are about 10 m: the network predicts the logarithm around this."""
BODY_LOGIT = -1.0
"""Above this logit a pixel counts as the player's own body: better one too many than a body in the memory."""
WIDTHS = (24, 48, 96, 128)


class DepthNet(nn.Module):
    """Half-size frames to log depth, and to the mask of the player's own body and what is fixed to the screen."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (5, *WIDTHS[:-1])  # colour, and the pixel's place in the frame
        self.down = nn.ModuleList(_stage(i, o) for i, o in zip(inputs, WIDTHS, strict=True))
        self.up = nn.ModuleList(_stage(WIDTHS[i] + WIDTHS[i - 1], WIDTHS[i - 1]) for i in (3, 2, 1))
        self.out = nn.Conv2d(WIDTHS[0], 2, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames: (b, 3, h, w) in [-1, 1], h and w multiples of 8.

        Returns log depth (b, h, w) in log metres and body logits (b, h, w).
        """
        b, _, h, w = frames.shape
        if h % 8 or w % 8:
            raise ShapeError(f"the depth network takes frames in multiples of 8 pixels, got {h}x{w}")
        y = torch.linspace(-1, 1, h, device=frames.device, dtype=frames.dtype)
        x = torch.linspace(-1, 1, w, device=frames.device, dtype=frames.dtype)
        place = torch.stack([y[:, None].expand(h, w), x[None].expand(h, w)]).expand(b, 2, h, w)
        hidden, levels = torch.cat([frames, place], 1), []
        for i, stage in enumerate(self.down):
            hidden = stage(hidden if i == 0 else F.avg_pool2d(hidden, 2))
            levels.append(hidden)
        for i, stage in enumerate(self.up):
            hidden = stage(torch.cat([F.interpolate(hidden, scale_factor=2, mode="nearest"), levels[2 - i]], 1))
        out = self.out(hidden).float()
        return out[:, 0] + MEAN_LOG_DEPTH, out[:, 1]


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (inputs, outputs):
        layers += [nn.Conv2d(before, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
    return nn.Sequential(*layers)
