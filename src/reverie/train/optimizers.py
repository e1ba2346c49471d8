"""Optimizers of a training: AdamW, and Muon for whatever is a matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from reverie.train.config import TrainerConfig


def build_optimizers(
    model: nn.Module,
    config: TrainerConfig,
    prefers_adamw: Callable[[str], bool] = lambda name: False,
    lr_factor: Callable[[str], float] = lambda name: 1.0,
) -> list[torch.optim.Optimizer]:
    """AdamW for all (decay on matrices and kernels only), or Muon for those.

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
        is_gpu = all(p.device.type == "cuda" for group in groups for p in group["params"])
        optimizers.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=is_gpu or None))
    optimizers += [MatrixMuon(parameters, config, factor) for factor, parameters in muon.items()]
    return optimizers


class MatrixMuon(torch.optim.Optimizer):
    """Muon over parameters of two or more dimensions, each reshaped to the matrix (first dimension, the rest).

    All matrices of one shape are updated together: a network has few shapes, and a GPU would spend longer on a thousand
    small launches than on the arithmetic.  The numbers are those of torch.optim.Muon with `match_rms_adamw`,
    rounded less where the iteration runs in float32.
    Method: Jordan et al., kellerjordan.github.io/posts/muon; scale: Moonlight, arXiv 2502.16982.
    """

    def __init__(self, parameters: list[nn.Parameter], config: TrainerConfig, lr_factor: float = 1.0) -> None:
        super().__init__(parameters, {"lr": config.lr, "weight_decay": config.weight_decay, "lr_factor": lr_factor})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # no closures here
        """Update the parameters in place."""
        for group in self.param_groups:
            alike: dict[tuple[Any, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shape = as_matrix(parameter).shape
                    alike.setdefault((shape, parameter.dtype, parameter.device), []).append(parameter)
            for parameters in alike.values():
                self._update(parameters, group["lr"], group["weight_decay"])

    def _update(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        """Updates parameters whose matrices have one shape."""
        grads = [as_matrix(p.grad) for p in parameters if p.grad is not None]
        momenta = [self._momentum(p, grad) for p, grad in zip(parameters, grads, strict=True)]
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)  # pyright: ignore[reportPrivateImportUsage]
        nesterov = torch._foreach_lerp(grads, momenta, MOMENTUM)  # pyright: ignore[reportPrivateImportUsage]
        updates = orthogonal(torch.stack(nesterov)).to(parameters[0].dtype)
        targets = [p.detach() if p.ndim == 2 else p.detach().movedim(1, -1) for p in parameters]
        rows, columns = grads[0].shape
        parts = [update.view(target.shape) for update, target in zip(updates.unbind(), targets, strict=True)]
        torch._foreach_mul_(targets, 1 - lr * weight_decay)  # pyright: ignore[reportPrivateImportUsage]
        scale = 0.2 * max(rows, columns) ** 0.5  # as large as AdamW's
        torch._foreach_add_(targets, parts, alpha=-lr * scale)  # pyright: ignore[reportPrivateImportUsage]

    def _momentum(self, parameter: nn.Parameter, grad: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad, memory_format=torch.contiguous_format)
        return state["momentum_buffer"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The momenta; how fast to go stays as configured.  Raises ValueError for those of other parameters."""
        saved = sum(len(group["params"]) for group in state_dict["param_groups"])
        if saved != (own := sum(len(group["params"]) for group in self.param_groups)):
            raise ValueError(f"the saved Muon has {saved} matrices, this one {own}")
        super().load_state_dict(state_dict | {"param_groups": self.state_dict()["param_groups"]})


MOMENTUM = 0.95
ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
"""Newton-Schulz iterations and coefficients, tuned to bring all singular values near 1 fast."""


def orthogonal(x: Tensor) -> Tensor:
    """(k, n, m) matrices -> nearly orthogonal ones of the same singular vectors, in `iteration_dtype`."""
    a, b, c = COEFFICIENTS
    is_tall = x.shape[1] > x.shape[2]
    y = x.to(iteration_dtype(x.device))
    y = y.mT if is_tall else y
    y = y / torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = torch.bmm(y, y.mT)
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.mT.contiguous() if is_tall else y


@cache
def iteration_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has instructions for it, else float32: emulated, it takes a CPU six times as long."""
    if device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


def as_matrix(tensor: Tensor) -> Tensor:
    """`o ...` -> `o n`; kernels with the channels last, which makes it a view in channels_last."""
    return tensor if tensor.ndim == 2 else tensor.movedim(1, -1).flatten(1)
