"""Packs: recordings with geometry in files that a bare machine can read (torch, numpy, OpenCV).

    pack.json       name, fov_deg, pixel_aspect, keys, mouse, depth_every (frames between depth images)
    00012.mp4       frames
    00012.npz       pose (f, 6), actions (f - 1, a), depth (d, 64, 112) uint8, body (bits), place

Depth is stored as 8 bits of its logarithm (`encode_depth`).  `reverie data pack` writes packs from datasets.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.types import ActionSpace, Frames
from reverie.vision.depth_codec import decode_depth, encode_depth
from reverie.vision.projection import VIEW_SIZE


@dataclass(frozen=True, slots=True)
class PackInfo:
    """`pack.json`."""

    name: str
    fov_deg: float
    pixel_aspect: float
    action_space: ActionSpace
    depth_every: int

    @classmethod
    def read(cls, folder: Path) -> PackInfo:
        """Raises DataError for a folder that is no pack."""
        try:
            raw = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
            space = ActionSpace(tuple(raw["keys"]), raw["mouse"])
            return cls(raw["name"], raw["fov_deg"], raw["pixel_aspect"], space, raw["depth_every"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{folder} is not a pack ({error!r}); make one with `reverie data pack`") from error

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        raw = {"name": self.name, "fov_deg": self.fov_deg, "pixel_aspect": self.pixel_aspect}
        raw |= {"keys": list(self.action_space.keys), "mouse": self.action_space.mouse, "depth_every": self.depth_every}
        (folder / "pack.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class PackedEpisode:
    """frames: (f, H, W, 3); pose: (f, 6); actions: (f - 1, a) of its pack's space; depth: (d, h, w) metres of every
    `depth_every`-th frame; body: (d, h, w) bool; place: episodes of one place share a world."""

    info: PackInfo
    name: str
    frames: Frames
    pose: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    depth: npt.NDArray[np.float32]
    body: npt.NDArray[np.bool_]
    place: str = ""


def read_episode(info: PackInfo, path: Path, max_frames: int | None = None, frames: bool = True) -> PackedEpisode:
    """Reads one episode, whole latent steps of it (1 + 4 n frames).  path: of its `.npz`.

    Raises DataError for a video with fewer frames than poses, and for numbers that cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file) as raw:
            pose, actions = raw["pose"], raw["actions"]
            levels = raw["depth"]
            h, w = levels.shape[1:]
            place = str(raw["place"]) if "place" in raw else ""
            body = np.unpackbits(raw["body"])[: levels.size].reshape(-1, h, w).astype(bool)
    except DAMAGE as error:
        raise _damaged(path, error) from error
    count = min(len(pose), max_frames or len(pose))
    count -= (count - 1) % 4
    images = 1 + (count - 1) // info.depth_every
    pictures = read_frames(path.with_suffix(".mp4"), count) if frames else np.empty((0, 0, 0, 3), np.uint8)
    return PackedEpisode(
        info,
        path.stem,
        pictures,
        pose[:count],
        actions[: count - 1],
        decode_depth(levels[:images]),
        body[:images],
        place,
    )


DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""Errors that reading a file raises which was cut short or written over."""


def _damaged(path: Path, error: BaseException) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"{path} is damaged ({reason}); pack the recording again")


@dataclass(frozen=True, slots=True)
class PackSummary:
    """episodes, steps: how many will be read; identity: name, episodes and bytes of each pack."""

    episodes: int
    steps: int
    identity: list[list[Any]]


def check_packs(
    folders: Sequence[Path],
    resolution: tuple[int, int],
    space: ActionSpace,
    limit: int | None = None,
    max_frames: int | None = None,
) -> PackSummary:
    """Checks every episode without decoding it, so that errors are raised before anything is computed.

    resolution: (H, W) of the model; space: its actions.
    Raises DataError for a file that is missing or cut short, and for videos of another resolution or with other keys.
    """
    import cv2

    steps, sizes = 0, dict.fromkeys(folders, 0)
    episodes = list_episodes(folders, limit)
    for info, path in episodes:
        video = path.with_suffix(".mp4")
        if not video.is_file():
            raise DataError(f"{video} is missing; pack the recording again")
        if missing := [key for key in info.action_space.keys if key not in space.keys]:
            raise DataError(f"{path.parent} has the key {missing[0]}, the model has {', '.join(space.keys)}")
        try:
            with path.open("rb") as file, np.load(file) as raw:
                length = len(raw["pose"])
        except DAMAGE as error:
            raise _damaged(path, error) from error
        reader = cv2.VideoCapture(str(video))
        opened = reader.isOpened()
        found, width, height = (
            int(reader.get(x)) for x in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        reader.release()
        if not opened or found < length:
            raise DataError(f"{video} is cut short: {max(0, found)} of {length} frames; pack the recording again")
        if (height, width) != resolution:
            raise DataError(
                f"{video} is {height}x{width}, the model takes {resolution[0]}x{resolution[1]}; record at that "
                "resolution, or take the preset of this one"
            )
        steps += 1 + (min(length, max_frames or length) - 1) // 4
        sizes[path.parent] += path.stat().st_size + video.stat().st_size
    names = [folder.resolve().name for folder in folders]
    counts = [sum(path.parent == folder for _, path in episodes) for folder in folders]
    identity = [[name, count, size] for name, count, size in zip(names, counts, sizes.values(), strict=True)]
    return PackSummary(len(episodes), steps, identity)


def read_frames(path: Path, count: int) -> Frames:
    """The first `count` frames of a pack's video, with OpenCV."""
    import cv2

    cv2.setNumThreads(1)
    video = cv2.VideoCapture(str(path))
    out: Frames | None = None
    for i in range(count):
        ok, image = video.read()
        if not ok:
            raise DataError(f"{path}: has {i} frames, expected {count}; pack the recording again")
        if out is None:
            out = np.empty((count, *image.shape), np.uint8)
        out[i] = image[..., ::-1]
    video.release()
    if out is None:
        raise DataError(f"{path}: expected frames, got none")
    return out


def write_episode(
    folder: Path,
    name: str,
    pose: npt.NDArray[np.float32],
    actions: npt.NDArray[np.float32],
    depth: npt.NDArray[np.floating[Any]],
    body: npt.NDArray[np.bool_],
    place: str = "",
) -> None:
    """Writes an episode's numbers; its video, `name`.mp4, is written beside it."""
    if depth.shape[1:] != VIEW_SIZE or body.shape != depth.shape:
        raise DataError(f"depth images are {VIEW_SIZE}, got {depth.shape} and bodies {body.shape}")
    np.savez_compressed(
        folder / f"{name}.npz",
        pose=pose.astype(np.float32),
        actions=actions.astype(np.float32),
        depth=encode_depth(depth),
        body=np.packbits(body),
        place=np.array(place),
    )


def list_episodes(folders: Sequence[Path], limit: int | None = None) -> list[tuple[PackInfo, Path]]:
    """All episodes of some packs; at most `limit` of each.  Raises DataError where there are none."""
    found = []
    for folder in folders:
        info = PackInfo.read(folder)
        episodes = sorted(folder.glob("[!.]*.npz"))[:limit]
        if not episodes:
            raise DataError(f"{folder}: expected episodes (*.npz with *.mp4), got none; pack the recording again")
        found += [(info, path) for path in episodes]
    return found


def read_episodes(
    episodes: Sequence[tuple[PackInfo, Path]], threads: int, max_frames: int | None = None, ahead: int = 40
) -> Iterator[PackedEpisode]:
    """Episodes in order, decoded ahead by threads."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[PackedEpisode]] = []
        for info, path in episodes:
            waiting.append(pool.submit(read_episode, info, path, max_frames))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
