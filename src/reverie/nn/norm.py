"""Normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-6
"""Added to mean squares and variances before their root is taken, here and in layer norms."""


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis with a learned gain and, if asked for, a learned offset.

    A constant offset on normalised queries and keys makes rotary attention start local: two tokens then agree by how
    near their positions are, before anything is learned.  Method: Zhang & Sennrich, arXiv 1910.07467.
    """

    def __init__(self, dim: int, *, offset: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if offset else None

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), EPS)
        return y if self.bias is None else y + self.bias.to(x.dtype)
