"""The noise levels and step sizes that training clips are drawn at."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_noise_levels(
    shape: tuple[int, int], pure_noise: float, generator: torch.Generator, shift: float = 3.0
) -> Tensor:
    """Logit-normal noise levels moved towards 1 by `shift`, a share `pure_noise` at exactly 1, where blocks begin."""
    s = torch.randn(*shape, generator=generator, device=generator.device).sigmoid()
    s = shift * s / (1 + (shift - 1) * s)
    pure = torch.rand(*shape, generator=generator, device=generator.device) < pure_noise
    return torch.where(pure, torch.ones_like(s), s)


def draw_large_steps(shape: tuple[int, int], step_sizes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Step sizes above the smallest of `step_sizes`, the largest most often, and noise levels on their grids."""
    device = generator.device
    halvings = max(1, step_sizes - 1)
    share = torch.tensor([0.5 ** (i + 1) for i in range(halvings)], device=device)
    bounds = (share / share.sum()).cumsum(0)[:-1]
    power = torch.bucketize(torch.rand(*shape, generator=generator, device=device), bounds)
    step = 0.5 ** power.float()
    count = (2.0**power).round()
    place = torch.rand(*shape, generator=generator, device=device)
    return step, 1 - (place * count).floor().clamp(max=count - 1) * step
