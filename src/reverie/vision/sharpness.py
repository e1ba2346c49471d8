"""How sharp frames are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from reverie.errors import ShapeError
from reverie.types import Frames


def sharpness(frames: Frames) -> npt.NDArray[np.float32]:
    """Standard deviation of each frame's Laplacian, `(f,)`, grey levels; 0 for a flat picture.

    The 4-neighbour Laplacian of the grey picture (Pech-Pacheco et al. 2000 use its variance).  No target of its own:
    compare with real frames of the same places.  Blur lowers it, noise and flicker raise it: near the real value is
    best.
    """
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64).view(1, 1, 3, 3)
    return F.conv2d(grey(frames), kernel).flatten(1).std(1, correction=0).float().numpy()


def grey(frames: Frames) -> Tensor:
    """`(f, 1, H, W)` float64 grey levels of `(f, H, W, 3)` uint8: Rec. 601 luma.  Raises ShapeError."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ShapeError(f"frames must be (f, H, W, 3), got {tuple(frames.shape)}")
    luma = frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return rearrange(torch.from_numpy(luma), "f h w -> f 1 h w")
