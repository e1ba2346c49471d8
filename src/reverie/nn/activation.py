"""Activations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TANH_FACTOR = math.sqrt(2 / math.pi)
"""GELU's tanh approximation is x (1 + tanh(u)) / 2 with u = factor (x + cubic x³), which equals x sigmoid(2 u)."""
TANH_CUBIC = 0.044715


class TanhGELU(nn.Module):
    """GELU in its tanh approximation; compiled code computes it by a sigmoid, which equals it and takes a CPU half as
    long."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return nn.functional.gelu(x, approximate="tanh")
        y = x.float()
        return (y * torch.sigmoid(2 * TANH_FACTOR * y * (1 + TANH_CUBIC * y * y))).to(x.dtype)
