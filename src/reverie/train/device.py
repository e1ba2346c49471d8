"""The device of a training, and the number type it computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reverie.errors import DeviceError
from reverie.hardware import find_device

FAILURES = ("CUDA error", "CUDA out of memory", "cuDNN error", "CUBLAS_STATUS", "NCCL error")
"""Beginnings of torch's messages when a GPU fails."""


def is_device_failure(error: BaseException) -> bool:
    """Tests whether an error is a GPU's: one that has vanished, hangs, or has no memory left."""
    known = isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError)
    return known or (isinstance(error, RuntimeError) and str(error).startswith(FAILURES))


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Selects autocast's data type; `auto` is bfloat16 on a GPU that has it and on a CPU with AMX, else float32.

    Raises DeviceError for another name.
    """
    if name == "auto":
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        on_cpu = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if on_gpu or on_cpu else torch.float32
    if name not in ("float32", "bfloat16"):
        raise DeviceError(f"cannot train in {name!r}; expected auto, float32 or bfloat16")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def fast_autocast(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where `pick_dtype` takes it by itself; elsewhere float32 stays."""
    return torch.autocast(device.type, torch.bfloat16, enabled=pick_dtype("auto", device) == torch.bfloat16)


@contextmanager
def matrix_precision(device: torch.device) -> Iterator[None]:
    """While it lasts, float32 matrix products on a GPU use its TF32 units: ten times the rate, and three digits, which
    training does not miss.  Elsewhere nothing changes."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA if there is one, else the CPU, never Apple's GPU; or a name as `find_device` takes it.

    Raises DeviceError as `find_device` does.
    """
    return find_device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
