"""Sheets of frames, and videos, for what figures of a rollout do not show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reverie.engine.media.video import VideoWriter
from reverie.overlay import add_keys, contact_sheet
from reverie.types import FPS, Action, ActionSpace, Frames


@dataclass(slots=True)
class Row:
    """Frames (H, W, 3) of one start, side by side, each with its caption."""

    pictures: list[Frames]
    captions: list[str]

    def add(self, picture: Frames, caption: str) -> None:
        self.pictures.append(picture.copy())
        self.captions.append(caption)


def timeline(
    video: Frames,
    label: str,
    times_s: Sequence[float],
    actions: Sequence[Action] | None = None,
    space: ActionSpace | None = None,
) -> Row:
    """The frames of a video at some seconds; with `actions`, each with the keys that led to it.  Later times are left
    out.
    """
    row = Row([], [])
    for time_s in times_s:
        i = round(time_s * FPS)
        if i >= len(video):
            continue
        picture = video[i]
        if actions is not None and space is not None:
            picture = add_keys(picture, actions[i - 1] if i else Action(), space)
        row.add(picture, f"{label}, {time_s:g} s")
    return row


def save(rows: Sequence[Row], path: Path) -> None:
    """One PNG with a line of frames for each row; rows must be equally long."""
    pictures = [picture for row in rows for picture in row.pictures]
    captions = [caption for row in rows for caption in row.captions]
    contact_sheet(pictures, captions, columns=len(rows[0].pictures)).save(path, optimize=True)


def save_video(video: Frames, actions: Sequence[Action], space: ActionSpace, path: Path) -> None:
    """An MP4 of a rollout with the keys drawn below: frame i + 1 shows action i."""
    shown = [Action(), *actions]
    first = add_keys(video[0], shown[0], space)
    with VideoWriter(path, (first.shape[0], first.shape[1]), {"kind": "reverie.evaluate"}) as writer:
        for frame, action in zip(video, shown, strict=True):
            writer.write(add_keys(frame, action, space)[None])


def strip(video: Frames, times_s: Sequence[float]) -> Frames:
    """The frames of a video at some seconds side by side, `(H, n W, 3)`; times past its end are left out."""
    places = [round(s * FPS) for s in times_s]
    return np.concatenate([video[i] for i in places if i < len(video)], axis=1)


def save_strip(video: Frames, times_s: Sequence[float], path: Path) -> None:
    """A `strip` as a small JPEG, as the page shows it."""
    save_jpeg(strip(video, times_s), path)


def save_jpeg(picture: Frames, path: Path) -> None:
    """(H, W, 3) as JPEG: whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(np.ascontiguousarray(picture)).save(partial, "JPEG", quality=72, optimize=True)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def stack_strips(files: Sequence[Path], path: Path) -> None:
    """Strips under each other as one PNG; shorter ones end in black."""
    strips = [np.asarray(Image.open(file, formats=("JPEG", "PNG"))) for file in files]
    width = max(picture.shape[1] for picture in strips)
    rows = [np.pad(picture, ((0, 4), (0, width - picture.shape[1]), (0, 0))) for picture in strips]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)
