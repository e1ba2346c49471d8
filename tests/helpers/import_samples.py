"""Small recordings as others make them: a camera in front of a blotchy wall, every frame with its number in stripes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reverie.data.dataset import Dataset
from reverie.data.importers.config import ImportConfig
from reverie.data.importers.import_takes import import_takes
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


FRONT = "observation.images.front"


def lerobot_set(
    root: Path,
    lengths: tuple[int, ...] = (40, 50, 60),
    *,
    listed: tuple[int, ...] | None = None,
    fps: float = 25,
    files: dict[int, int] | None = None,
    drop: tuple[str, ...] = (),
    **encoder: Any,
) -> Path:
    """A LeRobot v3 dataset: all episodes in one video of numbered frames, `mouse.yaw` of row i is i / 100.

    listed: episodes in the table; files: the data file that the table names for an episode, 0 if not said (what is in
    file 1 is the rows of the last episode); drop: columns that the rows do not have.
    """
    total, begins = sum(lengths), np.concatenate([[0], np.cumsum(lengths)])
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    video = root / f"videos/{FRONT}/chunk-000/file-000.mp4"
    encode(video, scene(np.zeros(total)), fps, **encoder)
    frame = np.concatenate([np.arange(length) for length in lengths])
    action = np.stack([frame == 20, np.zeros(total), np.arange(total) / 100], 1).astype(np.float32)
    columns = {
        "action": pa.array(action.tolist(), pa.list_(pa.float32())),
        "timestamp": pa.array((frame / fps).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.repeat(np.arange(len(lengths)), lengths)),
        "index": pa.array(np.arange(total)),
    }
    rows = pa.table({name: column for name, column in columns.items() if name not in drop})
    parts = {0: rows} if files is None else {0: rows.slice(0, begins[-2]), 1: rows.slice(begins[-2])}
    for number, part in parts.items():
        pq.write_table(part, root / f"data/chunk-000/file-{number:03d}.parquet")
    table = [
        {"episode_index": i, "length": lengths[i], "data/chunk_index": 0, "data/file_index": (files or {}).get(i, 0),
         "dataset_from_index": int(begins[i]), f"videos/{FRONT}/chunk_index": 0, f"videos/{FRONT}/file_index": 0,
         f"videos/{FRONT}/from_timestamp": begins[i] / fps}
        for i in (range(len(lengths)) if listed is None else listed)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table), root / "meta/episodes/chunk-000/file-000.parquet")
    features = {
        "action": {"dtype": "float32", "shape": [3], "names": ["key.jump", "mouse.pitch", "mouse.yaw"]},
        FRONT: {"dtype": "video", "shape": [*SIZE, 3], "names": ["height", "width", "channels"]},
    }
    info = {"codebase_version": "v3.0", "fps": fps, "features": features}
    info |= {"total_episodes": len(table), "total_frames": sum(row["length"] for row in table)}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def encode(path: Path, frames: np.ndarray, fps: float = 25, container: dict[str, str] | None = None, **options: Any):
    """Encode frames at `fps` with options of x264, and of the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as out:
        rate = Fraction(fps).limit_denominator(1001)
        stream = out.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "ultrafast", **options})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def actions_by_frame(path: Path, frames: int, jump: int = 20) -> Path:
    """A table for `import folder`: the yaw of row i is i / 100, key.jump is held in row `jump`."""
    rows = [f"{i},{int(i == jump)},{i / 100}" for i in range(frames)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["frame,key.jump,mouse.yaw", *rows]) + "\n")
    return path


def pairs(dataset: Dataset) -> list[tuple[int, int]]:
    """(number in the frame, number in its row) of every frame of every episode: equal where the pairing is right.

    For sources of 25 frames a second whose row i turns by i / 100 degrees.
    """
    found: list[tuple[int, int]] = []
    for index in range(dataset.num_episodes):
        turned = np.round(rows(dataset, "mouse.yaw", index) * 100).astype(int).tolist()
        found += zip(numbers(dataset.clip(index).frames), turned, strict=True)
    return found
