"""A training of a moment: the task learns y = 2x."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.train.config import TrainerConfig
from reverie.train.task import Task


class Line(Task):
    """Learns y = 2x with a network that has matrices, kernels, biases and dropout.  `broken` steps give NaN."""

    def __init__(self, broken: frozenset[int] = frozenset(), huge: frozenset[int] = frozenset(), pause_s: float = 0.0):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(0.1), nn.Flatten(), nn.Linear(32, 4))
        self.model.to(memory_format=torch.channels_last)
        self.broken, self.huge, self.pause_s, self.calls = broken, huge, pause_s, 0
        self.seen: list[float] = []
        self.validated: list[bool] = []
        self.exported: dict[str, Any] = {}

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"x": torch.from_numpy(rng.normal(size=(4, 1, 2, 2)).astype(np.float32))}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        x = batch["x"] + 0.01 * torch.randn(4, 1, 2, 2, generator=generator)
        loss = (self.model(x) - 2 * x.flatten(1)).square().mean()
        self.seen.append(loss.item())
        time.sleep(self.pause_s)
        self.calls += 1
        if self.calls - 1 in self.broken:
            loss = loss * float("nan")
        if self.calls - 1 in self.huge:
            loss = loss * 1e6
        return loss, {"half": loss / 2, "constant": 1.0}

    def validate(self) -> dict[str, float]:
        self.validated.append(self.model.training or torch.is_grad_enabled())
        return {"weight": self.model[3].weight.abs().mean().item()}

    def sample(self, folder: Path, step: int) -> None:
        (folder / f"{step}.txt").write_text("picture")

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        self.exported = summary


def config(folder: Path, **changes: Any) -> TrainerConfig:
    base = TrainerConfig(folder=folder, steps=30, lr=3e-3, warmup_steps=3, device="cpu", log_steps=5, track="none")
    return replace(base, **changes)


def weights(task: Task) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in task.model.parameters()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
