"""The most exact number type of a device."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of device that refuse float64 tensors."""


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has nothing better.

    Rotary angles are computed in it from absolute latent steps.  In float32 they are exact to 0.002 rad after an hour.
    """
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def exact(x: Tensor) -> Tensor:
    """`x` in `exact_dtype` of its device."""
    return x.to(exact_dtype(x.device))
