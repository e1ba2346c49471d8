"""Interface between a training and the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.errors import TrainError


class Task(ABC):
    """Model, data and loss of a training.

    Subclasses set `model`; the trainer sets `device` before anything else and the rest always.

    model: every trained weight; its state is what checkpoints hold.  progress: part of the budget used, 0..1.
    step_seed: the same for all micro-batches of a step, in all processes.  Every choice of a loss's passes, or of the
    scalars it logs, must follow from it, and not from the micro-batch's generator: processes wait for each other's
    passes and scalars.
    """

    model: nn.Module
    device: torch.device = torch.device("cpu")
    progress: float = 0.0
    step_seed: int = 0

    @abstractmethod
    def batch(self, rng: np.random.Generator) -> Any:
        """A training batch on the CPU (tensors, or tuples, lists and dicts of them), a function of `rng` alone.

        Called ahead of time from another thread.
        """

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The scalar to minimise, and scalars to log.  `batch` is on the device; draw noise from `generator`."""

    def validate(self) -> dict[str, float]:
        """Figures on held-out data.  Called with the averaged weights, in eval mode, without gradients."""
        return {}

    def sample(self, folder: Path, step: int) -> None:  # noqa: B027  # optional
        """Writes images to look at into `folder`.  Called after `validate`, in the same way."""

    def export_so_far(self, folder: Path, summary: dict[str, Any]) -> None:  # noqa: B027  # optional
        """Writes the model into `folder` as it is: a training that is cut off leaves one.

        Called after each checkpoint, with the averaged weights.  The training goes on: nothing may be changed.
        """

    def export(self, folder: Path, summary: dict[str, Any]) -> None:  # noqa: B027  # optional
        """Write the finished model into `folder`.  Called once at the end with the averaged weights."""

    def prefers_adamw(self, name: str) -> bool:
        """Tests whether a matrix of this name is left to AdamW although Muon is on (embeddings, first and last
        layers)."""
        return False

    def lr_factor(self, name: str) -> float:
        """Factor on the learning rate for the parameter of this name."""
        return 1.0

    def networks(self) -> list[nn.Module]:
        """The networks that compute in `loss`, whose known pieces are compiled: `model`, and frozen ones beside it."""
        return [self.model]

    def compile(self) -> None:
        """Compile the heavy part, in place.  Called if the networks have none of the known pieces."""
        self.model.compile()

    def blocks(self) -> list[nn.Module]:
        """The modules that `shard` splits, as `Shards` takes them.  None: the task cannot be sharded."""
        return []

    def remat(self) -> None:
        """Turns on activation checkpointing.  Raises TrainError where no module of the model has a `remat` to set."""
        offers = [module for module in self.model.modules() if hasattr(module, "remat")]
        if not offers:
            raise TrainError("this model cannot work its activations out again; leave --remat out")
        for module in offers:
            module.remat = True  # type: ignore[assignment]

    def tokens(self, batch: Any) -> int:
        """Tokens that the model learns from in a batch, for the log; 0 where the word means nothing."""
        return 0

    def data_size(self) -> int:
        """Amount of data to draw from, in any unit; 0 for data that may change between resumes."""
        return 0
