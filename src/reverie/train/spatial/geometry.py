"""Training of the geometry networks: depth, and the closed-form view encoder."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.models.conditioning.spatial_memory import SpatialMemory, ViewEncoder
from reverie.models.depth import BODY_LOGIT, DepthNet
from reverie.models.pixels import to_pixels
from reverie.train.spatial.ego_motion import check_ego_motion, train_ego_motion
from reverie.train.spatial.fitting import lr_at, take_step
from reverie.train.spatial.store import Store, half_size

Say = Callable[[str], None]


def train_depth(network: DepthNet, store: Store, seconds: float, batch: int = 64) -> int:
    """Fits the depth network to engine depth and body masks.  Returns the number of updates."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frames = half_size(store.key_colour) if store.device.type == "cpu" else None
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.02)
    target, body = store.key_depth.clamp(0.05, 400).log(), store.key_hidden
    generator = torch.Generator(store.device).manual_seed(0)
    started, step = time.monotonic(), 0
    while (spent := time.monotonic() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(spent / seconds, step, 3e-3)
        k = torch.randint(len(target), (batch,), device=store.device, generator=generator)
        x = half_size(store.key_colour[k]) if frames is None else frames[k]
        y, mask = target[k], body[k].float()
        if step % 2:
            x, y, mask = x.flip(-1), y.flip(-1), mask.flip(-1)
        x = x + torch.randn(x.shape, device=x.device, generator=generator) * 0.03
        if step % 3 == 0:  # generated frames are softer than the game's
            x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
        with store.autocast():
            log_depth, logits = network(x.contiguous(memory_format=torch.channels_last))
        error = log_depth - y
        slope = (error[:, :, 1:] - error[:, :, :-1]).abs().mean() + (error[:, 1:] - error[:, :-1]).abs().mean()
        loss = error.abs().mean() + 0.5 * slope + 0.3 * F.binary_cross_entropy_with_logits(logits, mask)
        take_step(loss, network, optimizer)
        step += 1
    network.eval().requires_grad_(False)
    return step


@torch.no_grad()
def check_depth(network: DepthNet, store: Store) -> dict[str, dict[str, float]]:
    """Median relative errors of depth, and of bodies recall and false alarms, for each game."""
    parts = []
    for i in range(0, len(store.key_depth), 64):
        with store.autocast():
            parts.append(network(half_size(store.key_colour[i : i + 64])))
    log_depth, logits = (torch.cat(x) for x in zip(*parts, strict=True))
    game = store.game[store.key_step.cpu().numpy()]
    found = {}
    for number, name in enumerate(store.games):
        mine = torch.from_numpy(game == number).to(store.device)
        if not mine.any():
            continue
        true = store.key_depth[mine].clamp(0.05, 400).log()
        error = ((log_depth[mine] - true).abs().exp() - 1).flatten()
        near = error[(true < 4).flatten()]
        body, said = store.key_hidden[mine], logits[mine] > BODY_LOGIT
        found[name] = {
            "depth_error": _median(error),
            "depth_error_near": _median(near),
            "body_recall": ((said & body).sum() / body.sum().clamp(min=1)).item(),
            "body_false": (said & ~body).float().mean().item(),
        }
    return found


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
    updates = train_depth(memory.depth, train, seconds, batch)
    for name, figures in check_depth(memory.depth, held_out).items():
        say(f"depth {name}, {updates} updates: " + _words(figures))


def train_ego_motion_of(
    memory: SpatialMemory, train: Store, held_out: Store, seconds: float, say: Say, batch: int
) -> None:
    """Trains the ego-motion network, and fits the view encoder.  Both stores have their depth measured."""
    updates = train_ego_motion(memory.ego_motion, train.motions(), seconds=seconds, batch=batch)
    for name, drift in check_ego_motion(memory.ego_motion, held_out.motions(), held_out.games).items():
        say(f"ego-motion {name}, {updates} updates, after a second: {drift}")
    say(f"view encoder: {fit_view_encoder(memory.view_encoder, train):.4f} of the variance unexplained")


def _words(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _median(values: Tensor) -> float:
    return values.float().median().item() if values.numel() else float("nan")
