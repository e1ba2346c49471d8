"""Checks of the machine before a recipe begins: memory, cores, disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch

from reverie.errors import DeviceError, TrainError
from reverie.hardware import memory_free_mib, num_cores
from reverie.models.presets import Preset
from reverie.train.spatial.plans import Recipe
from reverie.vision.projection import VIEW_SIZE

GIB = 2**30


def gpu_memory_gib() -> float:
    """Memory of the GPU in GiB; 0 where there is none."""
    return torch.cuda.mem_get_info()[1] / GIB if torch.cuda.is_available() else 0.0


def free_memory_gib() -> float:
    """Free memory in GiB, within a container's limit; infinite if the system does not report it."""
    free = memory_free_mib()
    return math.inf if math.isnan(free) else free / 1024


def bytes_per_step(preset: Preset, num_views: int) -> int:
    """Bytes of a latent step in memory: frames, half-size frames, latents, depth, and the conditions of its views."""
    height, width = preset.resolution
    c, u, v = preset.world.latent
    view = VIEW_SIZE[0] * VIEW_SIZE[1]
    frames = 2 * 3 * height * width + 4 * 3 * view  # the last frame, keyframes of at most every step, half-size frames
    return frames + 2 * 2 * c * u * v + 3 * view + 2 * num_views * (8 + c) * u * v


def _check_device(recipe: Recipe, device: torch.device) -> None:
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] / GIB
        if free < recipe.gpu_memory_gib:
            raise DeviceError(
                f"the recipe needs {recipe.gpu_memory_gib:g} GiB of GPU memory, {free:.1f} are free; end what else "
                "uses it, or take a cpu recipe"
            )
    elif recipe.gpu_memory_gib:
        raise DeviceError("the recipe is for a GPU and this machine has none; take --recipe cpu-12h")


def check_machine(recipe: Recipe, device: torch.device, output: Path, disk_gib: float) -> None:
    """Raises DeviceError or TrainError, in one line, for a machine that is too small for a recipe, before any data.

    disk_gib: that will be written below `output`.
    """
    _check_device(recipe, device)
    if (cores := num_cores()) < recipe.cores:
        raise TrainError(f"the recipe needs {recipe.cores} cores, this machine has {cores}; take a cpu recipe")
    if (free := free_memory_gib()) < recipe.memory_gib:
        raise TrainError(f"the recipe needs {recipe.memory_gib:g} GiB of memory, {free:.1f} are free; free some")
    free = shutil.disk_usage(output).free / GIB
    if free < disk_gib:
        raise TrainError(f"{output} needs {disk_gib:.1f} GiB of disk, {free:.1f} are free; give another folder with -o")


def check_data_fits(steps: int, episodes: int, preset: Preset, recipe: Recipe, device: torch.device) -> None:
    """Raises TrainError, with a number of episodes that fits, where so many steps do not fit the device's memory."""
    needed = steps * bytes_per_step(preset, 3 if recipe.half_known else 2) / GIB
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] / GIB - recipe.gpu_memory_gib
    else:
        free = free_memory_gib() - recipe.memory_gib
    if needed > free:
        fits = max(0, int(episodes * free / needed))
        raise TrainError(
            f"{episodes} episodes ({steps} steps) need {needed:.1f} GiB of memory, {max(0.0, free):.1f} are free for "
            f"them; give packs of {fits} episodes in all, or take fewer of each with --limit"
        )


def disk_needed_gib(recipe: Recipe, steps: int, preset: Preset, recorded_frames: int) -> float:
    """Checkpoints, models and samples, kept latents, and what is recorded here (0.6 MB a second of play)."""
    c, u, v = preset.world.latent
    latents = steps * 4 * c * u * v if recipe.keep_latents else 0
    if recipe.keep_latents and recipe.decode:
        latents += steps * 3 * preset.resolution[0] * preset.resolution[1]
    fixed = 0.02 if recipe.preset.startswith("tiny") else 1.0
    return fixed + (latents + recorded_frames * 24_000) / GIB
