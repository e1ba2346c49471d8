"""The machine's hardware: devices by name, cores, memory, the processor, the speed of matrix products."""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path

import torch

from reverie.errors import DeviceError


def find_device(name: str) -> torch.device:
    """Finds a device by its name: `cpu`, `mps`, `cuda`, `cuda:1`.

    Raises DeviceError for a device that this machine does not have.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}; expected auto, cpu, mps, cuda or cuda:N") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "mps":
        if not has_mps():
            raise DeviceError("mps was asked for, but torch finds no Apple GPU; use --device cpu or auto")
        return torch.device("mps")
    if device.type != "cuda":
        raise DeviceError(f"the device {name!r} is not supported; expected auto, cpu, mps, cuda or cuda:N")
    if not torch.cuda.is_available():
        why = "torch was installed without CUDA" if torch.version.cuda is None else "torch finds no NVIDIA GPU"
        raise DeviceError(f"cuda was asked for, but {why}; use --device cpu or auto")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise DeviceError(f"{name} was asked for, but this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def has_mps() -> bool:
    """Returns whether torch can use Apple's GPU here (Metal Performance Shaders)."""
    return torch.backends.mps.is_available()


def num_cores() -> int:
    """Cores that this process may use: its affinity, cut to the quota of its control group."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        available = os.cpu_count() or 1
    return max(1, int(min(available, _cpu_quota())))


def memory_free_mib() -> float:
    """Memory that can still be had, in MiB, a container's limit counted; nan where the system does not report it."""
    fields = _meminfo()
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    left = (limit - used) / 2**20 if limit is not None and used is not None else math.inf
    return min(fields["MemAvailable"] / 1024, left) if "MemAvailable" in fields else math.nan


def memory_total_mib() -> float:
    """Memory that there is, in MiB, a container's limit counted; nan where the system does not report it."""
    fields = _meminfo()
    limit = _cgroup_bytes("memory.max")
    return min(fields["MemTotal"] / 1024, math.inf if limit is None else limit / 2**20) if fields else math.nan


def rss_mib() -> float:
    """Memory of this process now, in MiB; nan where the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError, AttributeError):
        return math.nan


def cpu_name() -> str:
    """The processor's name, as the system reports it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The vector instruction sets that matter here, of those the processor has."""
    flags = set(_cpuinfo().get("flags", _cpuinfo().get("Features", "")).split())
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16")
    return [name for name in wanted if name in flags]


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU has already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@torch.inference_mode()
def measure_matmul_gflops(dtype: torch.dtype, device: torch.device, size: int = 1024) -> float:
    """Speed of a square matrix product, in GFLOP/s; the best of a few tries, about a tenth of a second."""
    a = torch.randn(size, size, device=device).to(dtype)  # a card is up to 13 % faster on equal numbers
    best, deadline = math.inf, time.perf_counter() + 0.1
    while math.isinf(best) or time.perf_counter() < deadline:
        start = time.perf_counter()
        torch.mm(a, a)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def _cpu_quota() -> float:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _cgroup_bytes(name: str) -> int | None:
    """A figure of this process's control group; None for no limit, or none known."""
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):
        return None


def _cpuinfo() -> dict[str, str]:
    """Reads the fields of the first processor from /proc/cpuinfo."""
    return _colon_table("/proc/cpuinfo")


def _meminfo() -> dict[str, int]:
    return {name: int(value.split()[0]) for name, value in _colon_table("/proc/meminfo").items()}


def _colon_table(path: str) -> dict[str, str]:
    try:
        head = Path(path).read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in head.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
