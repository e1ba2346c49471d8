"""The tokenizer's linear maps in closed form: a start that needs no training.

The encoder's are the principal components of 4x8x8 patches, each divided by the square root of its deviation, so that
coarse components stay louder than fine ones; then all are scaled to unit deviation overall.  The decoder's are least
squares from the latents of the neighbourhood (3x3 cells, now and one step before) to the patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from reverie.models.tokenizer import CELL, CHANNELS, PATCH, VideoTokenizer, patches


@torch.no_grad()
def fit_linear(tokenizer: VideoTokenizer, clips: Sequence[Tensor], noise: float) -> None:
    """Set the linear maps from `clips` (each `b 1+4n 3 H W` in [-1, 1]), for latents disturbed by `noise`."""
    weight, bias = fit_components(clips)
    linear = tokenizer.encoder.linear
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    kernel, offset = fit_readout(tokenizer, clips, noise)
    tokenizer.decoder.linear.conv.weight.copy_(kernel)
    bias_out = tokenizer.decoder.linear.conv.bias
    assert bias_out is not None
    bias_out.copy_(offset)


def fit_components(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight `(16, 768)` and bias `(16,)` of the tempered principal components."""
    count, total, square = 0, torch.zeros(PATCH, dtype=torch.float64), torch.zeros(PATCH, PATCH, dtype=torch.float64)
    for clip in clips:
        rows = rearrange(patches(_whole_steps(clip), CELL), "b t c h w -> (b t h w) c")
        count += len(rows)
        total += rows.sum(0, dtype=torch.float64).cpu()
        square += (rows.T @ rows).double().cpu()
    mean = total / count
    values, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    deviation = values[-CHANNELS:].flip(0).clamp_min(1e-8).sqrt()
    weight = (vectors[:, -CHANNELS:].flip(1) / (deviation * deviation.mean()).sqrt()).T
    return weight.float(), -(weight @ mean).float()


def fit_readout(tokenizer: VideoTokenizer, clips: Sequence[Tensor], noise: float) -> tuple[Tensor, Tensor]:
    """Kernel `(768, 32, 3, 3)` and bias `(768,)` of the decoder's least squares."""
    width = 2 * CHANNELS * 9 + 1
    gram, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, PATCH, dtype=torch.float64)
    linear, count = tokenizer.encoder.linear, 0
    for clip in clips:
        targets = patches(_whole_steps(clip), CELL)
        z = linear(targets.movedim(2, -1)).movedim(-1, 2)
        both = torch.cat([z, torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], 1)], 2)
        columns = F.unfold(both.flatten(0, 1).contiguous(), 3, padding=1)
        x = F.pad(rearrange(columns, "n k p -> (n p) k"), (0, 1), value=1.0)
        y = rearrange(targets, "b t c h w -> (b t h w) c")
        gram += (x.T @ x).double().cpu()
        cross += (x.T @ y).double().cpu()
        count += len(x)
    gram.diagonal()[:-1] += count * max(noise, 1e-3) ** 2
    solution = torch.linalg.solve(gram, cross)
    kernel = rearrange(solution[:-1], "(c p q) o -> o c p q", c=2 * CHANNELS, p=3)
    return kernel.float(), solution[-1].float()


def _whole_steps(clip: Tensor) -> Tensor:
    return torch.cat([clip[:, :1].expand(-1, 3, -1, -1, -1), clip], 1)
