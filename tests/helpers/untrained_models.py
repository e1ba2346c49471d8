"""Models of untrained networks, for trainings that need a tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.presets import tiny_memory
from reverie.models.schedule import Schedule
from reverie.types import ActionSpace


def write_model(folder: Path, space: ActionSpace) -> Path:
    """A model folder of the preset tiny-memory."""
    torch.manual_seed(0)
    preset = tiny_memory(space)
    config = ModelConfig(
        name="tokenizer",
        resolution=preset.resolution,
        schedule=Schedule((1.0,)),
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
        memory=preset.memory,
    )
    save_model(folder, ModelBundle.new(config))
    return folder
