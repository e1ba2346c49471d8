"""A training of a tiny world on made-up latents, for processes that share it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.models import presets
from reverie.models.checkpoint import save_weights
from reverie.models.dit import WorldModel
from reverie.train.config import TrainerConfig
from reverie.train.forcing import Past, clean_estimates, noise_like
from reverie.train.task import Task

STEPS = 6

WORLD = presets.tiny().world


class Dream(Task):
    """A tiny world that learns made-up latents; next to it, a part outside of all blocks."""

    def __init__(self, start: int = 0, dies_at: int | None = None) -> None:
        torch.manual_seed(start)
        self.world = WorldModel(WORLD)
        self.encoder = nn.Linear(WORLD.image.dim, WORLD.image.dim)
        self.model = nn.ModuleDict({"world": self.world, "encoder": self.encoder})
        self.dies_at, self.calls = dies_at, 0

    def blocks(self) -> list[nn.Module]:
        return self.world.shard_units()

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        shapes = {"z": (2, 4, *WORLD.latent), "image": (2, WORLD.image.tokens, WORLD.image.dim)}
        found = {name: torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}
        return found | {"rows": torch.from_numpy(rng.integers(0, 2, (2, 12, WORLD.action_space.size))).float()}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += self.model.training
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        z, sigma = batch["z"], torch.full((2, 3), 0.7)
        given = (Past(z, z, torch.zeros(2, 4)), noise_like(z[:, 1:], generator), sigma, batch["rows"])
        found = clean_estimates(self.world, *given, self.encoder(batch["image"]))
        with torch.no_grad():  # a pass that keeps nothing, as self-made context is
            clean_estimates(self.world, *given, self.encoder(batch["image"]))
        error = (found - z[:, 1:]).square().mean()
        return error, {"first": found[0].mean()}

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return 2 * 3 * WORLD.tokens_per_step

    def validate(self) -> dict[str, float]:
        """In the first process alone, as an ordinary model: by other methods too."""
        batch = self.batch(np.random.default_rng(0))
        loss, _ = self.loss(batch, torch.Generator().manual_seed(0))
        keys, _ = self.world.image_keys_values(batch["image"])[0]
        return {"loss": loss.item(), "keys": keys.mean().item()}

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        save_weights(folder / "out", self.model)


def config(folder: Path, **changes: Any) -> TrainerConfig:
    base: dict[str, Any] = {
        "steps": STEPS,
        "lr": 3e-3,
        "warmup_steps": 2,
        "ema": 0.9,
        "log_steps": 1,
        "dtype": "float32",
    }
    return TrainerConfig(folder=folder, device="cpu", track="none", **(base | changes))
