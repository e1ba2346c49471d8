"""Contact sheets of a dataset: a row an episode, frames over time, the keys under each and an arrow for the mouse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.overlay import add_arrow, add_keys, contact_sheet

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MAX_PIXELS = 80_000_000
"""A sheet larger than this is refused."""


def image_format(path: Path) -> str:
    """PNG or JPEG, by the suffix.  Raises DataError for another, and where the file cannot be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a picture ends in .png, .jpg or .jpeg; choose another name")
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; make it, or choose another")
    return SUFFIXES[path.suffix.lower()]


def draw_sheet(
    dataset: Dataset, episodes: list[int], num_frames: int, apart_s: float | None = None, scale: int = 1
) -> Image.Image:
    """Rows of `num_frames` frames, `apart_s` seconds apart, or spread over the whole episode if None.

    Under a frame are the keys of its own row, which show in the next frame.  Raises DataError for damaged files and
    for a sheet that would be too large.
    """
    height, width = dataset.resolution
    if len(episodes) * num_frames * height * width * scale**2 > MAX_PIXELS:
        raise DataError(f"a sheet of {len(episodes)} x {num_frames} pictures is too large; ask for fewer")
    pictures: list[npt.NDArray[np.uint8]] = []
    captions: list[str] = []
    for index in episodes:
        episode = dataset.episodes[index]
        moments = frame_moments(episode.length, num_frames, apart_s, dataset.fps)
        for moment in moments:
            pictures.append(_picture(dataset, index, moment, scale))
            name = f"{index} {episode.meta.get('map') or ''}  " if moment == moments[0] else ""
            captions.append(f"{name}{moment / dataset.fps:.2f} s")
        blank = np.full_like(pictures[-1], 18)
        pictures += [blank] * (num_frames - len(moments))
        captions += [""] * (num_frames - len(moments))
    return contact_sheet(pictures, captions, columns=num_frames)


def frame_moments(length: int, count: int, apart_s: float | None, fps: int) -> list[int]:
    """Picks the frames of an episode to show: at most `count`, from the first on."""
    if apart_s is None:
        return sorted({round(i * (length - 1) / max(1, count - 1)) for i in range(count)})
    step = max(1, round(apart_s * fps))
    return list(range(0, length, step))[:count]


def choose_episodes(dataset: Dataset, count: int, seed: int | None) -> list[int]:
    """`count` episodes spread evenly, or drawn by `seed`; in order."""
    total = dataset.num_episodes
    if count >= total:
        return list(range(total))
    if seed is None:
        return np.linspace(0, total - 1, count).round().astype(int).tolist()
    return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())


def _picture(dataset: Dataset, index: int, moment: int, scale: int) -> npt.NDArray[np.uint8]:
    clip = dataset.clip(index, moment, 1, depth=False)
    action = dataset.action_space.decode(clip.actions)[0]
    frame = clip.frames[0].repeat(scale, axis=0).repeat(scale, axis=1)
    return add_keys(add_arrow(frame, action.mouse), action, dataset.action_space)
