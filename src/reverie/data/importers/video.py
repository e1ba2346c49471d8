"""Frames of videos that others made, cut to the shape asked for: any container, codec and rate that FFmpeg reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.data.container import decode_from, frame_times, is_turned, upright, video_head
from reverie.data.video import ToRgb
from reverie.errors import DataError
from reverie.types import Frames

__all__ = ["VIDEO_SUFFIXES", "fit", "frame_times", "numbered_pictures", "pictures"]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
SAME_TIME_S = 1e-3
"""A decoded frame is the listed one whose time is as near as this: containers round to milliseconds."""


def pictures(
    path: Path, times: npt.NDArray[np.float64], wanted: Collection[int], size: tuple[int, int]
) -> Iterator[Frames]:
    """The frames of `numbered_pictures`, without their numbers."""
    for _, picture in numbered_pictures(path, times, wanted, size):
        yield picture


def numbered_pictures(
    path: Path, times: npt.NDArray[np.float64], wanted: Collection[int], size: tuple[int, int]
) -> Iterator[tuple[int, Frames]]:
    """The frames whose index is in `wanted`, in order, each with its index: `(H, W, 3)` uint8, as a player shows them,
    cut to the shape of `size` (H, W).

    Frames that cannot be decoded are left out.  Raises DataError for a file that shows other frames than it lists.

    Args:
        times: all frames' times, from `frame_times`.
    """
    if not wanted:
        return
    chosen, last, middles = set(wanted), max(wanted), (times[1:] + times[:-1]) / 2
    aspect, to_rgb = video_head(path).pixel_aspect, ToRgb()
    for shown in decode_from(path, float(times[min(chosen)]), threads=True):
        index = int(np.searchsorted(middles, shown.time_s))
        if index in chosen and not shown.is_damaged:
            if abs(times[index] - shown.time_s) > SAME_TIME_S:
                raise DataError(
                    f"{path}: shows a frame at {shown.time_s:.3f} s that its packets do not list; put it into another"
                    " container, such as .mkv, or encode it again"
                )
            picture = upright(to_rgb(shown.frame), shown.frame, path)
            yield index, fit(picture, size, 1 / aspect if is_turned(shown.frame) else aspect)
        if index >= last:
            return


def fit(picture: Frames, size: tuple[int, int], pixel_aspect: float = 1.0) -> Frames:
    """The middle of `picture` (h, w, 3) of the same aspect as `size` (H, W), averaged down (or drawn out) to it.

    Args:
        pixel_aspect: width of a pixel of `picture` over its height; the result's pixels are square.
    """
    (height, width), (tall, wide) = size, picture.shape[:2]
    if (tall, wide) == (height, width) and pixel_aspect == 1.0:
        return np.ascontiguousarray(picture)
    scale = min(wide * pixel_aspect / width, tall / height)
    box_width, box_height = width * scale / pixel_aspect, height * scale
    left, top = max(0.0, (wide - box_width) / 2), max(0.0, (tall - box_height) / 2)
    box = (left, top, min(wide, left + box_width), min(tall, top + box_height))
    kind = Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize((width, height), kind, box=box))
