"""A tiny model whose frames depend on actions, noise and the past, for tests that compare frames."""

from __future__ import annotations

from pathlib import Path

import torch

from reverie.engine.engine import Engine, load
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.presets import Preset
from reverie.models.start_frames import STARTS
from reverie.sampling import Schedule


def small_engine(folder: Path, preset: Preset) -> Engine:
    """Saves a model with random weights in `folder`, with one start image, and loads it."""
    from PIL import Image

    torch.manual_seed(0)
    config = ModelConfig(
        name=folder.name,
        resolution=preset.resolution,
        schedule=Schedule((1.0, 0.5), renoise=True, context_sigma=0.1),
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
        memory=preset.memory,
    )
    bundle = ModelBundle.new(config)
    with torch.no_grad():
        for module in bundle.modules().values():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.08)
    save_model(folder, bundle, card="# tiny\n")
    (folder / STARTS).mkdir(exist_ok=True)
    image = Image.linear_gradient("L").resize((64, 48))
    Image.merge("RGB", (image, image.rotate(90).resize((64, 48)), image)).save(folder / STARTS / "dusk.png")
    return load(folder, device="cpu", dtype="float32")
