"""Updates of the small geometry networks: learning rate and step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lr_at(fraction: float, step: int, peak: float) -> float:
    """Warm-up over 40 steps, then linearly to zero."""
    return peak * (1 - fraction) * min(1.0, (step + 1) / 40)


def take_step(loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One update, its gradient clipped to length 1."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
