"""Packs: recordings with geometry in files that a bare machine can read (torch, numpy, OpenCV).

    pack.json       name, fov_deg, pixel_aspect, keys, mouse, depth_every (frames between depth images)
    00012.mp4       frames
    00012.npz       pose (f, 6), actions (f - 1, a), depth (d, 64, 112) uint8, body (bits), place

Depth is stored as 8 bits of its logarithm (`encode_depth`).  `reverie data pack` writes packs from datasets.
"""

from __future__ import annotations

import json
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

    Raises DataError for a video with fewer frames than poses.
    """
    with np.load(path) as raw:
        pose, actions = raw["pose"], raw["actions"]
        levels = raw["depth"]
        h, w = levels.shape[1:]
        place = str(raw["place"]) if "place" in raw else ""
        body = np.unpackbits(raw["body"])[: levels.size].reshape(-1, h, w).astype(bool)
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
