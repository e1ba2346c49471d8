"""Training of the depth network, on the depth and the body masks that games give.

Legend: n images, b of a batch, (h w) = 64 x 112.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.errors import DataError
from reverie.models.depth import BODY_LOGIT, MAX_DEPTH_M, MIN_DEPTH_M, DepthNet
from reverie.train.device import fast_autocast
from reverie.train.spatial.fitting import lr_at, take_step
from reverie.vision.pixels import shrink_frames, to_bytes, to_pixels

if TYPE_CHECKING:
    from reverie.data.dataset import Dataset

NEAR_LOG_M = 4.0
"""Logarithm of the depth in metres, 55 m, below which errors count as near: the sky is at 400 m."""
PEAK_LR, WEIGHT_DECAY = 3e-3, 0.02
CHECKED_AT_ONCE = 64
IMAGES = 6000
"""Images of a game, at most: of longer recordings they are spread evenly."""


@dataclass(frozen=True, slots=True)
class DepthImages:
    """Images with the game's depth.  colour: (n, 3, h, w) uint8; depth: (n, h, w) in metres, float16; hidden:
    (n, h, w) bool, the player's own body and what is fixed to the screen; game: (n,), which of the names each is of."""

    colour: Tensor
    depth: Tensor
    hidden: Tensor
    game: npt.NDArray[np.intp]

    @classmethod
    def join(cls, parts: Sequence[DepthImages]) -> DepthImages:
        """Images of several episodes.  Raises DataError where there are none."""
        if not sum(len(part.game) for part in parts):
            raise DataError("expected frames with depth, got none; record the game longer")
        colour, depth, hidden = (torch.cat([getattr(p, name) for p in parts]) for name in ("colour", "depth", "hidden"))
        return cls(colour, depth, hidden, np.concatenate([part.game for part in parts]))

    def to(self, device: torch.device) -> DepthImages:
        return DepthImages(self.colour.to(device), self.depth.to(device), self.hidden.to(device), self.game)

    def log_depth(self, index: Tensor) -> Tensor:
        return self.depth[index].float().clamp(MIN_DEPTH_M, MAX_DEPTH_M).log()


@dataclass(frozen=True, slots=True)
class DepthErrors:
    """Median relative errors of depth, everywhere and nearer than 55 m (NaN where nothing is); shares of the bodies'
    pixels that are found, and of all pixels that are taken for one wrongly."""

    depth: float
    near: float
    body_found: float
    body_false: float

    def __str__(self) -> str:
        return (
            f"{100 * self.depth:.1f} % off (median; {100 * self.near:.1f} % nearer than 55 m), body "
            f"{100 * self.body_found:.0f} % found, {100 * self.body_false:.1f} % of the view taken for one wrongly"
        )


def read_depth_images(folders: Sequence[Path], seed: int = 0) -> tuple[DepthImages, DepthImages, tuple[str, ...]]:
    """Reads frames that have depth, at most `IMAGES` of a game and 43 KB each: those to train on, those of held-out
    episodes (`is_held_out`), and the games' names, which are the folders'.

    folders: LeRobot datasets, one a game; seed: decides what is held out where nothing is marked.  Raises DataError for
    recordings without depth.
    """
    from reverie.scenes.recordings import mark_held_out, open_recordings  # recipes run without what reads these

    parts: tuple[list[DepthImages], list[DepthImages]] = ([], [])
    names = []
    for game, folder in enumerate(folders):
        datasets, _ = open_recordings([folder])
        names.append(folder.resolve().name)
        episodes = [(d, i) for d in datasets for i, episode in enumerate(d.episodes) if episode.depth_file is not None]
        most = -(-IMAGES // max(1, len(episodes)))
        for is_held_out, (dataset, number) in zip(mark_held_out(episodes, seed), episodes, strict=True):
            parts[is_held_out].append(_read_episode(dataset, number, game, most))
    return DepthImages.join(parts[False]), DepthImages.join(parts[True]), tuple(names)


def _read_episode(dataset: Dataset, number: int, game: int, most: int) -> DepthImages:
    clip = dataset.clip(number)
    assert clip.depth is not None
    count = len(clip.depth.frames)
    index = np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)
    colour = shrink_frames(torch.from_numpy(clip.frames[clip.depth.frames[index]]).permute(0, 3, 1, 2))
    depth, hidden = torch.from_numpy(clip.depth.depth[index]).half(), torch.from_numpy(clip.depth.body[index])
    return DepthImages(to_bytes(colour), depth, hidden, np.full(len(depth), game, np.intp))


def train_depth(network: DepthNet, images: DepthImages, seconds: float, batch: int = 64) -> int:
    """Fits the network to the games' depth, every game drawn equally often.  Returns the number of updates."""
    device = images.colour.device
    # on a CPU with AMX the usual order is a quarter faster
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    network.train().requires_grad_(True).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_LR, weight_decay=WEIGHT_DECAY)
    counts = np.bincount(images.game)
    share = torch.from_numpy(1 / counts[images.game]).to(device)
    generator = torch.Generator(device).manual_seed(0)
    started, step = time.monotonic(), 0
    while (spent := time.monotonic() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(spent / seconds, step, PEAK_LR)
        index = share.multinomial(batch, replacement=True, generator=generator)
        colour, target, body = to_pixels(images.colour[index]), images.log_depth(index), images.hidden[index].float()
        if step % 2:
            colour, target, body = colour.flip(-1), target.flip(-1), body.flip(-1)
        colour = colour + torch.randn(colour.shape, device=device, generator=generator) * 0.03
        if step % 3 == 0:  # generated frames are softer than the game's
            colour = F.interpolate(F.avg_pool2d(colour, 2), scale_factor=2, mode="bilinear")
        with fast_autocast(device):
            log_depth, logits = network(colour.contiguous(memory_format=layout))
        take_step(_loss(log_depth - target, logits, body), network, optimizer)
        step += 1
    network.eval().requires_grad_(False)
    return step


def _loss(error: Tensor, logits: Tensor, body: Tensor) -> Tensor:
    """Loss of errors of the log depth and of its slopes, and of body masks."""
    slope = (error[:, :, 1:] - error[:, :, :-1]).abs().mean() + (error[:, 1:] - error[:, :-1]).abs().mean()
    return error.abs().mean() + 0.5 * slope + 0.3 * F.binary_cross_entropy_with_logits(logits, body)


@torch.no_grad()
def check_depth(network: DepthNet, images: DepthImages, names: Sequence[str]) -> dict[str, DepthErrors]:
    """Errors on images of each game that has some."""
    device = images.colour.device
    parts = []
    for colour in images.colour.split(CHECKED_AT_ONCE):
        with fast_autocast(device):
            parts.append(network(to_pixels(colour)))
    log_depth, logits = (torch.cat(x) for x in zip(*parts, strict=True))
    return {
        name: _errors(log_depth[mine], logits[mine], images.log_depth(mine), images.hidden[mine])
        for number, name in enumerate(names)
        if len(mine := torch.from_numpy(np.flatnonzero(images.game == number)).to(device))
    }


def _errors(log_depth: Tensor, logits: Tensor, true: Tensor, body: Tensor) -> DepthErrors:
    error, said = (log_depth - true).abs().exp() - 1, logits > BODY_LOGIT
    return DepthErrors(
        depth=_median(error),
        near=_median(error[true < NEAR_LOG_M]),
        body_found=((said & body).sum() / body.sum().clamp(min=1)).item(),
        body_false=(said & ~body).float().mean().item(),
    )


def _median(values: Tensor) -> float:
    return values.float().median().item() if values.numel() else float("nan")
