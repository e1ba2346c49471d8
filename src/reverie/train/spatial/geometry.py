"""The geometry networks of a spatial memory, trained on a store: depth, ego-motion, and the view encoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from reverie.models.conditioning.spatial_memory import SpatialMemory, ViewEncoder
from reverie.train.spatial.depth import check_depth, train_depth
from reverie.train.spatial.ego_motion import check_ego_motion, train_ego_motion
from reverie.train.spatial.encoded_recordings import Store
from reverie.vision.pixels import to_pixels

Say = Callable[[str], None]


@torch.no_grad()
def fit_view_encoder(encoder: ViewEncoder, store: Store, samples: int = 4000, ridge: float = 1e-3) -> float:
    """Least squares from four half-size frames to the tokenizer's latent.  Returns the share left unexplained."""
    inside = np.setdiff1d(np.arange(store.count), store.first[:-1])
    chosen = np.random.default_rng(0).choice(inside, min(len(inside), samples), replace=False)
    steps = torch.from_numpy(chosen).to(store.device)
    conv = encoder.conv
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    size = conv.in_channels * kernel * kernel + 1
    gram = torch.zeros(size, size, dtype=torch.float64, device=store.device)
    cross = torch.zeros(size, conv.out_channels, dtype=torch.float64, device=store.device)
    for part in steps.split(64):
        x = encoder.inputs(to_pixels(store.views[part]))
        columns = F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2).flatten(0, 1).double()
        columns = torch.cat([columns, torch.ones_like(columns[:, :1])], 1)
        gram += columns.T @ columns
        cross += columns.T @ store.z[part].flatten(2).transpose(1, 2).flatten(0, 1).double()
    gram += torch.eye(size, dtype=torch.float64, device=store.device) * gram[-1, -1] * ridge
    weights = torch.linalg.solve(gram, cross).float()
    conv.weight.copy_(weights[:-1].T.unflatten(1, conv.weight.shape[1:]))
    assert conv.bias is not None
    conv.bias.copy_(weights[-1])
    encoder.requires_grad_(False)
    error = [
        (conv(encoder.inputs(to_pixels(store.views[part]))) - store.z[part].float()).square().mean().item()
        for part in steps[:640].split(64)
    ]
    return float(np.mean(error)) / store.z[steps].float().var().item()


def train_depth_of(memory: SpatialMemory, train: Store, held_out: Store, seconds: float, say: Say, batch: int) -> None:
    """Trains the depth network of a spatial memory, with figures on held-out recordings."""
    updates = train_depth(memory.depth, train.depth_images(), seconds, batch)
    for name, errors in check_depth(memory.depth, held_out.depth_images(), held_out.games).items():
        say(f"depth {name}, {updates} updates: {errors}")


def train_ego_motion_of(
    memory: SpatialMemory, train: Store, held_out: Store, seconds: float, say: Say, batch: int
) -> None:
    """Trains the ego-motion network, and fits the view encoder.  Both stores have their depth measured."""
    updates = train_ego_motion(memory.ego_motion, train.motions(), seconds=seconds, batch=batch)
    for name, drift in check_ego_motion(memory.ego_motion, held_out.motions(), held_out.games).items():
        say(f"ego-motion {name}, {updates} updates, after a second: {drift}")
    say(f"view encoder: {fit_view_encoder(memory.view_encoder, train):.4f} of the variance unexplained")
