"""The device, the number type and the threads that a model is played with."""

from __future__ import annotations

import math
import os
import time

import torch
from torch.nn import functional as F

from reverie.engine.loading.forking import ForkState
from reverie.errors import DeviceError
from reverie.hardware import find_device, has_mps, num_cores, synchronize

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BF16_MARGIN = 1.15
"""bfloat16 must be this much faster than float32 on a CPU to be picked: it is also less exact."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto`: CUDA if there is one, else Apple's GPU (`mps`), else the CPU; or a name as `find_device` takes it.

    Raises DeviceError as `find_device` does, and for CUDA in a process that was forked from one that uses it.
    """
    if name.startswith(("auto", "cuda")):
        _check_fork()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps() else "cpu")
    return find_device(name)


def _mps_has_bf16() -> bool:
    """Returns whether Apple's GPU computes in bfloat16: from macOS 14 on."""
    return torch.backends.mps.is_macos_or_newer(14, 0)


def _check_fork() -> None:
    """Raise DeviceError in a forked child that cannot use the CUDA of its parent."""
    if ForkState.is_child and ForkState.had_cuda:
        raise DeviceError(
            "this process was forked from one that uses CUDA, and CUDA does not survive a fork; start processes with "
            "'spawn' (AsyncVectorEnv(..., context=\"spawn\")), or use device='cpu'"
        )


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: on a GPU bfloat16 where it has it (Apple's from macOS 14 on); on a CPU whichever of bfloat16 and
    float32 is measured to be faster.

    Raises DeviceError for an unknown number type, or one that the device cannot use.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        if device.type == "mps":
            return torch.bfloat16 if _mps_has_bf16() else torch.float32
        seconds = {dtype: measure_work_s(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
        return torch.bfloat16 if seconds[torch.bfloat16] * BF16_MARGIN < seconds[torch.float32] else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"unknown dtype {name!r}; expected auto, {', '.join(DTYPES)}")
    if device.type == "cpu" and name == "float16":
        raise DeviceError("float16 is only supported on a GPU; use --dtype float32, bfloat16 or auto")
    if device.type == "mps" and name == "bfloat16" and not _mps_has_bf16():
        raise DeviceError("bfloat16 on an Apple GPU needs macOS 14 or newer; use --dtype float32 or auto")
    return DTYPES[name]


@torch.inference_mode()
def measure_work_s(dtype: torch.dtype, device: torch.device, repeats: int = 5) -> float:
    """Seconds for a sip of a block's work, a feed-forward layer and a convolution; the best of `repeats` tries."""
    tokens = torch.ones(112, 448, device=device, dtype=dtype)
    weight = torch.ones(1792, 448, device=device, dtype=dtype)
    picture = torch.ones(1, 64, 64, 112, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.ones(64, 64, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(4):
            F.linear(tokens, weight)
        F.conv2d(picture, kernel, padding=1)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def set_threads() -> int:
    """Use every core that this process may use, and no more (a container's quota counts); returns their number.

    Where OMP_NUM_THREADS is set, it decides.  A forked child keeps its one thread (`reverie.engine.loading.forking`).
    """
    if ForkState.is_child:
        return torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() != num_cores():
        torch.set_num_threads(num_cores())
    return torch.get_num_threads()
