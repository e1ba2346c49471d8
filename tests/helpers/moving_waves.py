"""Smooth coloured video that a tiny tokenizer can learn, and settings of its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reverie.train.tokenizer import (
    TrainTokenizerConfig,
)
from reverie.types import Frames

H, W = 32, 48


def moving_waves(seed: int, frames: int) -> Frames:
    """Smooth coloured waves that drift: video that 16 numbers a patch can say well.  `(f, H, W, 3)`."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(H), np.arange(W), indexing="ij")
    waves = [
        np.sin(2 * np.pi * (fx * x + fy * y + ft * t + phase))
        for fx, fy, ft, phase in rng.uniform(-1, 1, (3, 4)) * (0.04, 0.04, 0.03, 1)
    ]
    return np.round(np.stack(waves, -1) * 100 + 127).astype(np.uint8)


def make_clips(count: int) -> Frames:
    return np.stack([moving_waves(seed, 17) for seed in range(count)])


def make_config(tmp_path: Path, **changes: Any) -> TrainTokenizerConfig:
    settings: dict[str, Any] = {"preset": "tiny", "steps": 3, "batch": 2, "crop": (16, 32), "pool_clips": 4}
    return TrainTokenizerConfig(
        data=(tmp_path / "data",), output=tmp_path / "run", device="cpu", **(settings | changes)
    )
