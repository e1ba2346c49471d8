"""Small recordings as others make them: a camera in front of a blotchy wall, every frame with its number in stripes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from reverie.data.dataset import Dataset
from reverie.data.importers.command import ImportConfig, import_takes
from reverie.data.importers.transfer import Report

SIZE = (64, 112)
BITS = 10
PX_PER_DEG = 1.5


def scene(yaw_deg: np.ndarray, pitch_deg: np.ndarray | None = None, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Frames `(f, H, W, 3)`, each turned by its row of angles from the one before, numbered in the top 8 rows."""
    rng = np.random.default_rng(3)
    height, width = size
    blots = [np.kron(rng.normal(0, 20, (640 // s, 3200 // s)), np.ones((s, s))) for s in (4, 8, 16, 32, 64)]
    wall = np.clip(np.sum(blots, axis=0) + 120, 20, 235).astype(np.uint8)
    pitch_deg = np.zeros(len(yaw_deg)) if pitch_deg is None else pitch_deg
    x = np.round(1500 + PX_PER_DEG * np.cumsum(yaw_deg)).astype(int).clip(0, 3200 - width)
    y = np.round(300 - PX_PER_DEG * np.cumsum(pitch_deg)).astype(int).clip(0, 640 - height)
    frames = np.stack([wall[b : b + height, a : a + width] for a, b in zip(x, y, strict=True)])
    for number, frame in enumerate(frames):
        for bit in range(BITS):
            frame[: height // 8, bit * width // BITS : (bit + 1) * width // BITS] = 235 if number >> bit & 1 else 20
    return frames[..., None].repeat(3, axis=-1)


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of frames, read back from their stripes; a quarter of the stripes' height is enough."""
    _, height, width, _ = frames.shape
    middles = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    levels = frames[:, height // 16, middles, 1] > 128
    return (levels * 2 ** np.arange(BITS)).sum(axis=1).tolist()


def write(path: Path, frames: np.ndarray, fps: float, times_s: list[float] | None = None) -> Path:
    """Encode frames at `fps`, or at the times given; .mp4 or .mkv by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if times_s is not None else 1 / rate
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = index if times_s is None else round(times_s[index] * 1000)
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def jsonl(path: Path, rows: list[Any]) -> Path:
    """One JSON value a line; strings are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def shaking(frames: int, seed: int = 0) -> np.ndarray:
    """Turns `(f,)` in degrees that change from frame to frame, as a hand does."""
    rng = np.random.default_rng(seed)
    return np.round(3 * np.sin(np.arange(frames) / 9) + rng.choice([-1.0, 1.0], frames), 2)


def after(turns: np.ndarray) -> np.ndarray:
    """What the frames show of turns whose row is the frame before."""
    return np.concatenate([[0.0], turns[:-1]])


def bring(kind: Any, src: Path, dst: Path, **options: Any) -> tuple[Dataset, Report]:
    """Import with the sample's resolution and no checks, unless asked otherwise."""
    options = {"resolution": SIZE, "checks": False, "min_episode_seconds": 0.2, **options}
    report = import_takes(ImportConfig(kind=kind, src=src, dst=dst, **options))
    return Dataset(dst), report


def rows(dataset: Dataset, name: str, episode: int = 0) -> np.ndarray:
    """One dimension of an episode's actions."""
    return dataset.clip(episode).actions[:, dataset.action_space.names.index(name)]
