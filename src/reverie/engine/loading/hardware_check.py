"""Before gigabytes are read: what the device is, what is free, what will be needed, and which preset to use."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from reverie.engine.loading.device import pick_device, pick_dtype
from reverie.engine.loading.hub import is_cached
from reverie.engine.loading.memory_estimate import Need, fitting, gib, needed
from reverie.engine.loading.models import bundled_models, find_model
from reverie.engine.loading.presets import BY_SIZE, PRESETS, Settings, settings
from reverie.engine.loading.source import open_source
from reverie.errors import CheckpointError, DeviceError
from reverie.hardware import cpu_name, memory_free_mib, memory_total_mib
from reverie.models.checkpoint import ModelConfig
from reverie.models.wan_vae import WanVAEConfig

BF16_CAPABILITY = (8, 0)
"""NVIDIA's compute capability that has bfloat16: Ampere (2020)."""
WORKING_BYTES = 256 * 2**20
"""Memory for scenes, sessions and what is computed with: a second nano, with its first scene, took 292 MiB in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Hardware that a model would run on.  free_bytes: memory still available, nan where unknown; capability: of an
    NVIDIA GPU; oldest: the oldest capability that the installed torch has kernels for."""

    device: str
    name: str
    driver: str
    free_bytes: float
    total_bytes: float
    capability: tuple[int, int] | None = None
    oldest: tuple[int, int] | None = None

    @property
    def device_type(self) -> str:
        return self.device.partition(":")[0]

    def __str__(self) -> str:
        capability = f", compute capability {self.capability[0]}.{self.capability[1]}" if self.capability else ""
        free = "unknown" if math.isnan(self.free_bytes) else gib(self.free_bytes)
        return f"{self.device} ({self.name}{capability}), {self.driver}, {free} of {gib(self.total_bytes)} free"


def read_machine(device: torch.device) -> Machine:
    if device.type != "cuda":
        free, total = memory_free_mib() * 2**20, memory_total_mib() * 2**20
        return Machine(device="cpu", name=cpu_name(), driver="no driver needed", free_bytes=free, total_bytes=total)
    free, total = torch.cuda.mem_get_info(device)
    return Machine(
        device=str(device),
        name=torch.cuda.get_device_name(device),
        driver=f"driver {driver_version()}, CUDA {torch.version.cuda}",
        free_bytes=free,
        total_bytes=total,
        capability=torch.cuda.get_device_capability(device),
        oldest=oldest_capability(torch.cuda.get_arch_list()),
    )


def driver_version(path: str = "/proc/driver/nvidia/version") -> str:
    """NVIDIA's driver, as its kernel module reports; `unknown` where it does not."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", Path(path).read_text())
    except OSError:
        return "unknown"
    return found[0] if found else "unknown"


def oldest_capability(architectures: Iterable[str]) -> tuple[int, int] | None:
    """Finds the oldest compute capability among names such as `sm_75` and `compute_90`; None for none."""
    numbers = [int(found[1]) for name in architectures if (found := re.search(r"_(\d+)", name))]
    return divmod(min(numbers), 10) if numbers else None


def is_matrix_game(config: ModelConfig) -> bool:
    """Returns whether a model is of Matrix-Game 2.0's kind, large enough to be checked and to need presets."""
    return isinstance(config.tokenizer, WanVAEConfig)


def check(
    config: ModelConfig, settings: Settings, dtype: torch.dtype, found: Machine, files: Iterable[Path] = ()
) -> str:
    """Checks that a model can run on the hardware found; returns one line for `doctor` and for loading.

    files: what will be read.  Raises DeviceError for a card that is too old or too little memory, CheckpointError for
    a decoder that the model has not.
    """
    check_decoder(config, settings)
    check_card(found, dtype)
    need = needed(config, settings, dtype, found.device_type)
    if need.total > found.free_bytes:
        raise DeviceError(_too_little(config, need, found, dtype))
    preset = fitting(config, found.free_bytes, found.device_type)
    read = sum(file.stat().st_size for file in files)
    return (
        f"{found}; {config.name} in {_name(dtype)} needs about {need}{f', {gib(read)} to read' if read else ''}; "
        f"preset to use: {preset or 'none'}"
    )


def memory_to_load(
    model: str,
    *,
    device: str = "auto",
    variant: str | None = None,
    decoder: str = "auto",
    preset: str | None = None,
    weights: str = "auto",
) -> tuple[float, float] | None:
    """Bytes that loading a model takes, about, and bytes that are free on the device; None for files that are not here.

    Of our own models: their files twice, once as they are read and once as they are computed with, and WORKING_BYTES.
    Raises CheckpointError and DeviceError as `reverie.load` does.
    """
    if not (Path(model).is_dir() or model in (one.name for one in bundled_models()) or is_cached(model, variant)):
        return None
    source = open_source(find_model(model, variant), variant)
    found = read_machine(pick_device(device))
    if not is_matrix_game(source.config):
        return 2 * sum(file.stat().st_size for file in source.files) + WORKING_BYTES, found.free_bytes
    chosen = settings(preset, "auto", decoder, weights)
    dtype = pick_dtype(chosen.dtype, torch.device(found.device))
    return needed(source.config, chosen, dtype, found.device_type).total, found.free_bytes


def check_decoder(config: ModelConfig, settings: Settings) -> None:
    if settings.decoder == "tiny" and config.tiny_decoder is None:
        raise CheckpointError(
            f"{config.name} has no tiny decoder; put taew2_1.pth (github.com/madebyollin/taehv) into its folder, "
            "or use --decoder full"
        )


def check_card(found: Machine, dtype: torch.dtype) -> None:
    """Raise DeviceError for a GPU that torch has no kernels for, or that has no bfloat16."""
    if found.capability is None:
        return
    said = f"{found.name} ({found.device}) has compute capability {found.capability[0]}.{found.capability[1]}"
    if found.oldest is not None and found.capability < found.oldest:
        oldest = ".".join(map(str, found.oldest))
        raise DeviceError(f"{said}; the installed torch needs {oldest} or later: use --device cpu")
    if dtype == torch.bfloat16 and found.capability < BF16_CAPABILITY:
        needs = ".".join(map(str, BF16_CAPABILITY))
        raise DeviceError(
            f"{said}; bfloat16 needs {needs} or later (Ampere, 2020): use --dtype float32 or --device cpu"
        )


def _too_little(config: ModelConfig, need: Need, found: Machine, dtype: torch.dtype) -> str:
    said = (
        f"too little memory for {config.name} in {_name(dtype)}: it needs about {need}, "
        f"{gib(found.free_bytes)} is free on {found.device}"
    )
    preset = fitting(config, found.free_bytes, found.device_type)
    if preset is not None:
        return f"{said}; --preset {preset} would fit"
    smallest = next(n for n in reversed(BY_SIZE) if PRESETS[n].decoder == "full" or config.tiny_decoder is not None)
    least = needed(config, PRESETS[smallest], torch.bfloat16, found.device_type)
    hint = "" if config.tiny_decoder is not None else ", and 8gb with taew2_1.pth in the model's folder less"
    return f"{said}; no preset fits, the smallest ({smallest}) needs about {gib(least.total)}{hint}: free some memory"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
