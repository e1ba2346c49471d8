"""Strips of frames, sheets of strips, and videos, for what figures of a rollout do not show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reverie.engine.media.video import VideoWriter
from reverie.overlay import add_keys
from reverie.types import FPS, Action, ActionSpace, Frames


def save_video(video: Frames, actions: Sequence[Action], space: ActionSpace, path: Path) -> None:
    """An MP4 of a rollout with the keys drawn below: frame i + 1 shows action i."""
    shown = [Action(), *actions]
    height, width = add_keys(video[0], shown[0], space).shape[:2]
    with VideoWriter(path, (height, width), {"kind": "reverie.evaluate"}) as writer:
        for frame, action in zip(video, shown, strict=True):
            writer.write(add_keys(frame, action, space)[None])


def save_strip(video: Frames, times_s: Sequence[float], path: Path) -> None:
    """The frames of a video at some seconds side by side as a small JPEG; times past its end are left out."""
    places = [round(s * FPS) for s in times_s]
    save_frames([video[i] for i in places if i < len(video)], path)


def save_frames(frames: Frames | Sequence[Frames], path: Path) -> None:
    """Frames (H, W, 3) side by side as a small JPEG, as the page shows it: whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(np.concatenate(frames, axis=1)).save(partial, "JPEG", quality=72, optimize=True)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def stack_strips(files: Sequence[Path], path: Path) -> None:
    """Strips under each other as one PNG; shorter ones end in black."""
    strips = [np.asarray(Image.open(file, formats=("JPEG", "PNG"))) for file in files]
    width = max(strip.shape[1] for strip in strips)
    rows = [np.pad(strip, ((0, 4), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)
