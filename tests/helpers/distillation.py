"""Settings that distillations of tests share."""

from __future__ import annotations

from pathlib import Path

import torch

from reverie.models.checkpoint import ModelBundle
from reverie.train.distill_dmd import DmdTask


def common(folder: Path) -> dict[str, object]:
    paths = {"teacher": folder, "data": (folder,), "output": folder}
    return {**paths, "sigmas": (1.0, 0.5), "clip_steps": 5, "batch": 4, "steps": 1}


def students_turn(dmd: DmdTask) -> None:
    """Choose a step in which the student learns."""
    share = 1 / (1 + dmd.config.critic_updates)
    dmd.step_seed = next(seed for seed in range(1000) if torch.rand((), generator=seeded(seed)).item() < share)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def folder_of(teacher: ModelBundle, folder: Path) -> Path:
    from reverie.models.checkpoint import save_model

    save_model(folder / "copy", teacher, dtype=None)
    return folder / "copy"
