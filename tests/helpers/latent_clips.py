"""Latents that the actions decide, and trainings of a tiny world on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from reverie.models import presets
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.config import TrainerConfig
from reverie.train.encode import LatentClips
from reverie.train.latents import Clips
from reverie.train.world import WorldTask, new_bundle
from reverie.train.world_options import TrainWorldConfig

PRESET = presets.tiny()


def recording(episodes: int = 6, length: int = 20, seed: int = 0) -> LatentClips:
    """Latents that the actions decide: the first key's share of a step's frames is added to all of the latent."""
    rng = np.random.default_rng(seed)
    count = episodes * length
    rows = np.zeros((count, 4, 6), np.float32)
    rows[..., 0] = rng.integers(0, 2, (count, 1))
    level = 2 * rows[..., 0].mean(1) - 1
    z = np.broadcast_to(level[:, None, None, None], (count, 16, 4, 8)).astype(np.float16)
    return LatentClips(
        z=z,
        still=z,
        rows=rows,
        picture=rng.integers(0, 255, (count, 3, 16, 32), dtype=np.uint8),
        episode=np.repeat(np.arange(episodes), length).astype(np.int32),
        opens=np.arange(count),
        action_space=PRESET.world.action_space,
    )


def clips(seed: int = 0) -> Clips:
    return Clips([recording(seed=seed)])


def config(folder: Path, **changes: object) -> TrainWorldConfig:
    base = TrainWorldConfig(
        data=(folder,),
        tokenizer=folder,
        output=folder,
        preset="tiny",
        steps=60,
        batch=4,
        clip_steps=5,
        copies=1,
        lr=3e-3,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def task(folder: Path, **changes: object) -> WorldTask:
    torch.manual_seed(0)
    return world_task(PRESET, config(folder, **changes), clips(), clips(seed=1))


def world_task(preset: presets.Preset, options: TrainWorldConfig, train: Clips, held_out: Clips) -> WorldTask:
    bundle = new_bundle(preset, options, VideoTokenizer(preset.tokenizer))
    return WorldTask(bundle, options, train, held_out)


def trainer(folder: Path, steps: int) -> TrainerConfig:
    return TrainerConfig(folder=folder, steps=steps, lr=3e-3, warmup_steps=5, ema=0.9, device="cpu", track="none")
