"""A tiny random model, saved as a model folder and loaded once for all engine tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.engine.engine import Engine, load
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.presets import tiny
from reverie.sampling import Schedule


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny model that has been shaken, so that actions, noise and the past all reach its pictures."""
    torch.manual_seed(0)
    preset = tiny()
    bundle = ModelBundle.new(
        ModelConfig(
            name="tiny",
            resolution=preset.resolution,
            schedule=Schedule((1.0, 0.5), renoise=True, context_sigma=0.1),
            world=preset.world,
            tokenizer=preset.tokenizer,
            image_encoder=preset.image_encoder,
            summary={"steps": 0},
        )
    )
    with torch.no_grad():
        for module in bundle.modules().values():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.08)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, bundle, card="# tiny\n")
    return folder


@pytest.fixture(scope="session")
def engine(model_folder) -> Engine:
    return load(model_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
