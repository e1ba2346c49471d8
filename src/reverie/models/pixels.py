"""The two ranges that pixels have: 0 to 255 stored and sent, [-1, 1] in the networks.  Nothing else converts."""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.types import Frames


def to_pixels(stored: Tensor) -> Tensor:
    """uint8 of any layout -> float32 in [-1, 1]."""
    return stored.float().div(127.5).sub_(1)


def to_bytes(pixels: Tensor) -> Tensor:
    """Float of any layout, about [-1, 1] -> uint8, rounded and clipped."""
    return pixels.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_frames(video: Tensor) -> Frames:
    """(f, 3, H, W), about [-1, 1] -> (f, H, W, 3) uint8, owned by the caller."""
    return to_stored(video).cpu().numpy()


def to_stored(video: Tensor) -> Tensor:
    """Converts a video as `to_frames` does, but leaves it on its device."""
    return to_bytes(video).permute(0, 2, 3, 1).contiguous()
