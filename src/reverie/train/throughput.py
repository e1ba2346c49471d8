"""Throughput of a training: tokens a second, and its share of the device's peak arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from reverie.hardware import measure_matmul_gflops

PROBE_SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices that the peak is measured with."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of all processes and arithmetic of this one, in so many seconds."""

    tokens: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.flops + other.flops, self.seconds + other.seconds)

    def rates(self, peak: float) -> dict[str, float]:
        """tokens_per_s, tflops and mfu, the share of `peak` operations a second; only what is known."""
        found = {
            "tokens_per_s": self.tokens / self.seconds,
            "tflops": self.flops / self.seconds / 1e12,
            "mfu": self.flops / self.seconds / peak,
        }
        return {name: value for name, value in found.items() if math.isfinite(value) and value > 0}


class FlopCount(TorchDispatchMode):
    """Adds up the arithmetic run under it, forward and backward: matrix products, convolutions and attentions.

    Those are nearly all of it; element-wise work, norms and optimizers are left out, as is usual.  A product counts
    twice its multiplications.  Attention under a mask counts as what the mask lets through, whatever the kernel does:
    so does attention by steps, which does nothing else; few keys of the action modules, written out on a CPU, count as
    what is computed, far below a hundredth of a step.  What is worked out twice (`--remat`) counts twice.  Compiled
    code is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        """So far; nan once an operation could not be counted."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket) or _CPU_ATTENTION.get(func._overloadpacket)
        if count is not None:
            try:
                self.flops += count(*args, **(kwargs or {}), out_val=out) * _seen(func, args, kwargs or {})
            except Exception:  # a figure of the log is not worth a training
                self.flops = math.nan
        return out


def _seen(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """The share of an attention's products that its mask lets through; 1 for anything else."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    for name in ("attn_mask", "attn_bias"):
        mask = given.get(name)
        if isinstance(mask, Tensor) and mask.numel():
            allowed = mask if mask.dtype == torch.bool else mask > -math.inf
            return allowed.double().mean().item()
    return 1.0


def _by_shapes(formula: Callable[..., int]) -> Callable[..., int]:
    def count(*args: Any, out_val: Any = None, **_: Any) -> int:
        return formula(*(x.shape if isinstance(x, Tensor) else x for x in args))

    return count


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _by_shapes(sdpa_flop),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _by_shapes(sdpa_backward_flop),
}
"""Attentions that torch's own table lacks."""


@torch.no_grad()
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the best of a few tries; takes about a tenth of a second."""
    return 1e9 * measure_matmul_gflops(dtype, device, PROBE_SIZE.get(device.type, 1024))
