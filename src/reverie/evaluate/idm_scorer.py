"""Inverse-dynamics model as a scorer: the actions that it names from frames, and distances in its features.

No pretrained network can be had offline, so these distances are not LPIPS and not FVD, and their figures compare with
none but their own: they are always of the model that is named beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from reverie.errors import ShapeError
from reverie.evaluate.action_mapping import Rows, columns_of
from reverie.models.idm import InverseDynamics, Views, look
from reverie.types import ActionSpace, Frames

Features = npt.NDArray[np.floating]

EDGE_STEPS = 8
"""Steps at either end that the inverse-dynamics model is not asked about: there its context is cut."""
INSIDE = slice(EDGE_STEPS, -EDGE_STEPS)


@dataclass(frozen=True, slots=True)
class IDMScorer:
    """An inverse-dynamics model.

    held_out: its own accuracy on held-out data, by action.
    space: the actions that it has in common with model and recording.
    """

    name: str
    model: InverseDynamics
    held_out: dict[str, float]
    space: ActionSpace

    def name_actions(self, frames: Frames, views: Views | None = None) -> Rows:
        """Names the action of every step of a clip, `(f - 1, space.size)`."""
        return columns_of(self.model.label(frames, views), self.model.config.action_space, self.space)

    def pool_features(self, frames: Frames) -> npt.NDArray[np.float32]:
        """Features of each frame, averaged over the image: `(f, c)`."""
        return image_maps(self.model, frames).mean((2, 3)).cpu().numpy()


@torch.inference_mode()
def image_maps(idm: InverseDynamics, frames: Frames) -> torch.Tensor:
    """Features of the image tower's first layers, `(f, c, h, w)`, each cell scaled to length one (as LPIPS does)."""
    doubled = frames if len(frames) > 1 else np.repeat(frames, 2, 0)
    small = torch.from_numpy(np.array(look(doubled).pictures[: len(frames)]))
    rgb = small.to(idm.turn.weight.device).float() / 127.5 - 1
    return F.normalize(idm.seen(torch.cat((rgb, rgb, torch.zeros_like(rgb)), 1)), dim=1)


def image_distance(idm: InverseDynamics, frames: Frames, truth: Frames) -> npt.NDArray[np.float32]:
    """Mean squared distance of the two images' features, `(f,)`, 0 (equal) to 4, lower is better.

    LPIPS's formula (Zhang et al. 2018, arXiv 1801.03924, eq. 1) with all weights one, on one layer of our own network.
    """
    if frames.shape != truth.shape or frames.ndim != 4:
        raise ShapeError(f"two videos (f, H, W, 3) of one shape are compared, got {frames.shape} and {truth.shape}")
    return (image_maps(idm, frames) - image_maps(idm, truth)).square().sum(1).mean((1, 2)).cpu().numpy()


@torch.inference_mode()
def play_features(idm: InverseDynamics, frames: Frames, views: Views | None = None) -> npt.NDArray[np.float32]:
    """Features of each step before the action head, `(f - 1, width)`: image and motion together."""
    views, device = views or look(frames), idm.turn.weight.device
    x = idm.think(torch.from_numpy(views.flow)[None].to(device), torch.from_numpy(views.pictures)[None].to(device))
    return x[0].float().cpu().numpy()


def frechet_distance(first: Features, second: Features) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features `(n, d)`; 0 if equal, lower is better.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) (Heusel et al. 2017, arXiv 1706.08500).  It is biased upwards for few
    samples: compare sets of one size only.  Raises ShapeError for fewer than two samples.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ShapeError(f"two sets (n > 1, d) of features are compared, got {first.shape} and {second.shape}")
    first, second = first.astype(np.float64), second.astype(np.float64)
    mean = first.mean(0) - second.mean(0)
    a, b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second))
    # the eigenvalues of a @ b are those of a^1/2 b a^1/2: real and not negative
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ b @ root).clip(0)
    return float(max(0.0, mean @ mean + np.trace(a) + np.trace(b) - 2 * np.sqrt(cross).sum()))
