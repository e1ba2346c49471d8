"""Distances in the features of a network of our own: the inverse-dynamics model that is trained on the real game.

No pretrained network can be had offline, so these are not LPIPS and not FVD, and their figures compare with none but
their own: `picture_distance` and `Fréchet distance of play` are always of the model that is named beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from reverie.errors import ShapeError
from reverie.models.idm import InverseDynamics, Views, look
from reverie.types import Frames

Features = npt.NDArray[np.float64]


@torch.inference_mode()
def picture_maps(idm: InverseDynamics, frames: Frames) -> torch.Tensor:
    """Features of the image tower's first layers, `(f, c, h, w)`, each cell scaled to length one (as LPIPS does)."""
    pictures = torch.from_numpy(np.array(look_small(frames)))
    device = idm.turn.weight.device
    rgb = pictures.to(device).float() / 127.5 - 1
    still = torch.cat((rgb, rgb, torch.zeros_like(rgb)), 1)
    return F.normalize(idm.seen(still), dim=1)


def look_small(frames: Frames) -> npt.NDArray[np.uint8]:
    """Frames in the size of the model's image input, `(f, 3, 32, 56)`."""
    doubled = frames if len(frames) > 1 else np.repeat(frames, 2, 0)
    return look(doubled).pictures[: len(frames)]


def picture_distance(idm: InverseDynamics, frames: Frames, truth: Frames) -> npt.NDArray[np.float32]:
    """Mean squared distance of the two images' features, `(f,)`, 0 (equal) to 4, lower is better.

    LPIPS's formula (Zhang et al. 2018, arXiv 1801.03924, eq. 1) with all weights one, on one layer of our own network.
    """
    if frames.shape != truth.shape or frames.ndim != 4:
        raise ShapeError(f"two videos (f, H, W, 3) of one shape are compared, got {frames.shape} and {truth.shape}")
    gap = picture_maps(idm, frames) - picture_maps(idm, truth)
    return gap.square().sum(1).mean((1, 2)).cpu().numpy()


@torch.inference_mode()
def play_features(idm: InverseDynamics, frames: Frames, views: Views | None = None) -> Features:
    """Features of each step before the action head, `(f - 1, width)`: image and motion together."""
    views = views or look(frames)
    device = idm.turn.weight.device
    x = idm.think(torch.from_numpy(views.flow)[None].to(device), torch.from_numpy(views.pictures)[None].to(device))
    return x[0].double().cpu().numpy()


def frechet_distance(first: Features, second: Features) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features `(n, d)`; 0 if equal, lower is better.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) (Heusel et al. 2017, arXiv 1706.08500).  It is biased upwards for few
    samples: compare sets of one size only.  Raises ShapeError for fewer than two samples.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ShapeError(f"two sets (n > 1, d) of features are compared, got {first.shape} and {second.shape}")
    mean = first.mean(0) - second.mean(0)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # the eigenvalues of a @ b are those of a^1/2 b a^1/2: real and not negative
    values, vectors = np.linalg.eigh(np.atleast_2d(a))
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ np.atleast_2d(b) @ root).clip(0)
    return float(
        max(0.0, mean @ mean + np.trace(np.atleast_2d(a)) + np.trace(np.atleast_2d(b)) - 2 * np.sqrt(cross).sum())
    )


def play_distance(idm: InverseDynamics, videos: Sequence[Frames], real: Sequence[Frames]) -> float:
    """Fréchet distance of play: `frechet_distance` of `play_features` over all steps of all videos."""
    return frechet_distance(*(np.concatenate([play_features(idm, v) for v in side]) for side in (videos, real)))
