"""Tiny models whose frames depend on actions, noise and the past, for tests that compare frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from reverie.engine.engine import Engine, load
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.presets import Preset, tiny, tiny_memory
from reverie.models.start_frames import STARTS
from reverie.sampling import Schedule
from reverie.types import ActionSpace

ONE_PASS = Schedule((1.0,), renoise=True, context_sigma=0.1)
TWO_PASSES = Schedule((1.0, 0.5), renoise=True, context_sigma=0.1)


def config_of(preset: Preset, name: str = "tiny", schedule: Schedule = TWO_PASSES) -> ModelConfig:
    """The configuration of a model that consists of a preset's networks."""
    return ModelConfig(
        name=name,
        resolution=preset.resolution,
        schedule=schedule,
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
        memory=preset.memory,
    )


def random_bundle(config: ModelConfig, noise: float = 0.08) -> ModelBundle:
    """Networks with random weights; `noise` is added to each, because fresh ones add nothing in some layers."""
    torch.manual_seed(0)
    bundle = ModelBundle.new(config)
    with torch.no_grad():
        for module in bundle.modules().values():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=noise)
    return bundle


def save_small_model(
    folder: Path, preset: Preset | None = None, schedule: Schedule = TWO_PASSES, noise: float = 0.08, **options: Any
) -> Path:
    """Saves a model with random weights as a model folder; `options` are those of `save_model`."""
    config = config_of(preset or tiny(), folder.name, schedule)
    save_model(folder, random_bundle(config, noise), **{"card": "# tiny\n", **options})
    return folder


def add_start_image(folder: Path, image: Image.Image) -> None:
    """Gives a model folder the start image `dusk`."""
    (folder / STARTS).mkdir(exist_ok=True)
    image.save(folder / STARTS / "dusk.png")


def save_fresh_model(folder: Path, preset: Preset, schedule: Schedule = ONE_PASS) -> Path:
    """Saves an untrained model with one start image, of one colour."""
    save_small_model(folder, preset, schedule, noise=0.0)
    add_start_image(folder, Image.new("RGB", (64, 48), (200, 100, 50)))
    return folder


def save_untrained_model(folder: Path, space: ActionSpace) -> Path:
    """Saves an untrained model of the preset tiny-memory, for trainings that need a tokenizer."""
    return save_small_model(folder, tiny_memory(space), Schedule((1.0,)), noise=0.0)


def small_engine(folder: Path, preset: Preset) -> Engine:
    """Saves a model with random weights in `folder`, with a start image of colour ramps, and loads it."""
    save_small_model(folder, preset)
    ramp = Image.linear_gradient("L").resize((64, 48))
    add_start_image(folder, Image.merge("RGB", (ramp, ramp.rotate(90).resize((64, 48)), ramp)))
    return load(folder, device="cpu", dtype="float32")
