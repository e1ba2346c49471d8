"""Low-rank adaptation: a frozen weight W is used as W + scale B A, and only A and B learn.

Source: Hu et al., arXiv 2106.09685; the scale follows Kalajdzievski, arXiv 2312.03732 (1 / sqrt(rank), so that the
same learning rate serves every rank).  The sum is made whenever the weight is used, so a model needs to know nothing of
it; `merge` leaves ordinary weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from reverie.errors import TrainError


class LowRank(nn.Module):
    """Low-rank update of a matrix (out, in): zero at the start.  rank: at most the matrix's sides."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, into = weight.shape
        rank = min(rank, out, into)
        self.scale = rank**-0.5
        self.down = nn.Parameter(torch.randn(rank, into, device=weight.device) / into**0.5)
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # a small sum, rounded once
            return (weight.float() + self.scale * (self.up @ self.down)).to(weight.dtype)


def adapt(model: nn.Module, blocks: nn.Module, rank: int) -> nn.ModuleDict:
    """Freeze `model`, and adapt every linear weight within `blocks`.  Returns the adapters, all that is to be trained,
    by the name of what they adapt.  Raises TrainError for a rank below 1, or blocks that are adapted already."""
    if rank < 1:
        raise TrainError(f"the rank of a low-rank adaptation is at least 1, got {rank}; 0 trains all weights")
    model.requires_grad_(False)
    linears = [(name, module) for name, module in blocks.named_modules() if isinstance(module, nn.Linear)]
    adapters = nn.ModuleDict()
    for name, linear in linears:
        if parametrize.is_parametrized(linear):
            raise TrainError("this model is adapted already; merge it first")
        adapters[name.replace(".", "-")] = adapter = LowRank(linear.weight, rank)
        parametrize.register_parametrization(linear, "weight", adapter)
    return adapters


def merge(model: nn.Module) -> None:
    """Make the adapted weights ordinary ones, for good."""
    adapted = [module for module in model.modules() if parametrize.is_parametrized(module, "weight")]
    for module in adapted:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
