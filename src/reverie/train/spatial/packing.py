"""Recordings with poses and depth, written as packs for `reverie.train.recipes`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reverie.data.dataset import Dataset, Episode
from reverie.data.video import write_video
from reverie.errors import DataError
from reverie.scenes.recordings import game_of, is_held_out, open_recordings, place_of
from reverie.train.spatial.packs import PackInfo, write_episode
from reverie.types import STEP_FRAMES, Clip

CRF, PIXELS = 21, "yuv444p"
"""Quality and pixel format of a pack's video: colours at full resolution, for the networks' inputs are small."""
MIN_FRAMES = 33
"""Shorter episodes are left out: training clips are longer."""


def pack(
    recordings: Sequence[Path],
    output: Path,
    *,
    part: str = "all",
    depth_every: int = 16,
    fov_deg: float | None = None,
    report: Callable[[float], None] | None = None,
) -> tuple[int, int]:
    """Writes a pack and returns its numbers of episodes and frames.

    Raises DataError for recordings that cannot be packed, and for a folder that has a pack already.
    """
    if depth_every < STEP_FRAMES or depth_every % STEP_FRAMES:
        raise DataError(f"--depth-every must be a multiple of {STEP_FRAMES}, got {depth_every}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} is there and not empty; name another folder with -o")
    datasets, angle = open_recordings(recordings, fov_deg)
    wanted = [
        (dataset, number, dataset.episodes[number])
        for dataset in datasets
        for number in range(len(dataset.episodes))
        if part == "all" or is_held_out(dataset, number) == (part == "held-out")
    ]
    info = PackInfo(output.resolve().name, angle, datasets[0].pixel_aspect, datasets[0].action_space, depth_every)
    packed, frames = 0, 0
    for done, (dataset, number, episode) in enumerate(wanted):
        if report is not None:
            report(done / len(wanted))
        clip = _read(dataset, number, episode)
        if clip is None:
            continue
        if not packed:
            info.write(output)
        _write(output, f"{packed:05d}", clip, info, f"{game_of(dataset)}/{place_of(dataset, episode)}", dataset, number)
        packed, frames = packed + 1, frames + len(clip.frames)
    if not packed:
        raise DataError(
            f"expected episodes (part: {part}) of at least {MIN_FRAMES} frames with depth, got none of {len(wanted)}; "
            "record longer ones, or take another --part"
        )
    return packed, frames


def _read(dataset: Dataset, number: int, episode: Episode) -> Clip | None:
    """Whole latent steps of an episode; None where it is too short or has no depth."""
    length = episode.length - (episode.length - 1) % STEP_FRAMES
    if length < MIN_FRAMES or episode.depth_file is None:
        return None
    return dataset.clip(number, 0, length)


def _write(folder: Path, name: str, clip: Clip, info: PackInfo, place: str, dataset: Dataset, number: int) -> None:
    """Writes the video, then the numbers, which make it an episode."""
    assert clip.depth is not None
    assert clip.poses is not None
    needed = np.arange(0, len(clip.frames), info.depth_every)
    found = np.searchsorted(clip.depth.frames, needed)
    there = np.append(clip.depth.frames, -1)[found] == needed
    if not there.all():
        gap = int(np.diff(clip.depth.frames).max(initial=0)) or len(clip.frames)
        raise DataError(
            f"{dataset.path}: episode {number} has no depth for frame {needed[~there][0]} (it has one every {gap} "
            f"frames); take a --depth-every that is a multiple of that, or record with --depth-every 4"
        )
    if not np.isfinite(clip.poses).all():
        raise DataError(f"{dataset.path}: episode {number} has poses that are not numbers; record it again")
    temporary = folder / f".{name}.{os.getpid()}.mp4"
    write_video(temporary, clip.frames, dataset.fps, crf=CRF, pixels=PIXELS)
    os.replace(temporary, folder / f"{name}.mp4")
    write_episode(folder, name, clip.poses, clip.actions[:-1], clip.depth.depth[found], clip.depth.body[found], place)
