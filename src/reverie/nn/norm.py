"""Normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        y = rms_norm(x, self.weight.to(x.dtype))
        return y if self.bias is None else y + self.bias.to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Divides `x` by its root mean square over the last axis, and multiplies by `weight`."""
    if x.device.type != "cpu" or not (torch.is_grad_enabled() and x.requires_grad) or torch.compiler.is_compiling():
        return nn.functional.rms_norm(x, x.shape[-1:], weight, EPS)
    y: Tensor = _Normalise.apply(x)  # type: ignore[no-untyped-call]
    return y if weight is None else y * weight


class _Normalise(torch.autograd.Function):
    """RMS normalisation with its own backward pass.  torch has no kernel for it on a CPU: it runs as about twenty
    operations, most of them in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        exact = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
        mean_square = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square() / x.shape[-1]
        inverse = (mean_square + EPS).rsqrt()
        y = exact.mul_(inverse).to(x.dtype)
        ctx.save_for_backward(y, inverse.to(x.dtype))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # decorated
        (grad,) = grads
        y, inverse = ctx.saved_tensors
        along = (grad * y).mean(-1, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1).mul_(inverse)
