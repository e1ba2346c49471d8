"""Optimizers of a training: AdamW, and Muon for whatever is a matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reverie.errors import TrainError

if TYPE_CHECKING:
    from reverie.train.loop import TrainerConfig


def build_optimizers(
    model: nn.Module,
    config: TrainerConfig,
    prefers_adamw: Callable[[str], bool] = lambda name: False,
    lr_factor: Callable[[str], float] = lambda name: 1.0,
) -> list[torch.optim.Optimizer]:
    """AdamW for all (decay on matrices and kernels only), or Muon for those.  Raises TrainError without Muon.

    Sharded and whole parameters are groups of their own: one update of many tensors takes one kind of tensor.
    """
    adamw: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    muon: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if config.muon and parameter.ndim >= 2 and not prefers_adamw(name):
            muon.setdefault(lr_factor(name), []).append(parameter)
        else:
            key = (lr_factor(name), parameter.ndim >= 2, isinstance(parameter, DTensor))
            adamw.setdefault(key, []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": config.weight_decay if decays else 0.0, "lr_factor": factor}
        for (factor, decays, _), parameters in adamw.items()
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if groups:
        optimizers.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas))
    optimizers += [MatrixMuon(parameters, config, factor) for factor, parameters in muon.items()]
    return optimizers


class MatrixMuon(torch.optim.Optimizer):
    """torch's Muon over parameters of two or more dimensions, each seen as the matrix (first dimension, the rest)."""

    def __init__(self, parameters: list[nn.Parameter], config: TrainerConfig, lr_factor: float = 1.0) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise TrainError(f"torch {torch.__version__} has no Muon; train without it, or install torch 2.9 or newer")
        self._parameters = parameters
        self._matrices = [nn.Parameter(as_matrix(p.detach())) for p in parameters]
        self._muon = torch.optim.Muon(
            self._matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        super().__init__(parameters, {"lr": config.lr, "lr_factor": lr_factor})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # no closures here
        """Update the parameters in place."""
        for group in self._muon.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        for parameter, matrix in zip(self._parameters, self._matrices, strict=True):
            matrix.data = as_matrix(parameter)
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad)
        self._muon.step()
        for parameter, matrix in zip(self._parameters, self._matrices, strict=True):
            target = parameter if parameter.ndim == 2 else parameter.movedim(1, -1)
            target.copy_(matrix.view(target.shape))

    def state_dict(self) -> dict[str, Any]:
        """The inner Muon's."""
        return self._muon.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inner Muon's."""
        self._muon.load_state_dict(state_dict)


def as_matrix(tensor: Tensor) -> Tensor:
    """`o ...` -> `o n`; kernels with the channels last, which makes it a view in channels_last."""
    return tensor if tensor.ndim == 2 else tensor.movedim(1, -1).flatten(1)
