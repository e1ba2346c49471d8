"""Conversion between the two ranges that pixels have, 0 to 255 stored and sent and [-1, 1] in the networks, and
between the two sizes that frames have, the model's and that of views."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.types import Frames
from reverie.vision.projection import VIEW_SIZE


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


def shrink_frames(frames: Tensor, size: tuple[int, int] = VIEW_SIZE) -> Tensor:
    """Resamples frames to a smaller size, that of views, by area.

    frames: (..., 3, H, W), uint8 or floats in [-1, 1].  Returns (..., 3, h, w) in [-1, 1], floats as they came.
    """
    pixels = frames if frames.is_floating_point() else to_pixels(frames)
    small = F.interpolate(pixels.flatten(0, -4), size, mode="area")
    return small if frames.ndim == 4 else small.unflatten(0, frames.shape[:-3])


def psnr_db(mse: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error of pixels in [-1, 1], dB; 96 at most."""
    return -10 * math.log10(max(mse, 1e-9) / 4)
