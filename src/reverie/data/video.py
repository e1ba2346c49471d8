"""H.264 files of a recording: written with a key picture twice a second, read from any frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from reverie.errors import DataError
from reverie.types import Frames

KEY_EVERY_FRAMES = 12
QUALITY_CRF = 17


def write_video(path: Path, frames: Frames, fps: int) -> None:
    """Encode `(f, H, W, 3)` uint8 at `path`: H.264, yuv420p, no B-frames, one thread."""
    _, height, width, _ = frames.shape
    options = {"crf": str(QUALITY_CRF), "preset": "superfast", "bf": "0"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = KEY_EVERY_FRAMES
        stream.thread_count = 1
        stream.time_base = Fraction(1, fps)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(path: Path, start: int, length: int, fps: int, resolution: tuple[int, int]) -> Frames:
    """Frames `start` to `start + length`, `(length, H, W, 3)` uint8, by seeking to the key picture before.

    Raises DataError for a missing, damaged or too short file, and for another resolution than (H, W).
    """
    if not path.is_file():
        raise DataError(f"{path}: the video is missing; record or download it again")
    try:
        frames = _decode(path, start, length, fps)
    except (av.error.FFmpegError, IndexError, ValueError, StopIteration) as error:
        raise DataError(f"{path}: not a readable video, cut short perhaps ({error}); record it again") from error
    if len(frames) != length:
        raise DataError(f"{path}: ends after {start + len(frames)} frames, needs {start + length}; record it again")
    got = frames[0].shape[:2]
    if got != tuple(resolution):
        raise DataError(f"{path}: pictures of {got[0]}x{got[1]}, meta/info.json says {resolution[0]}x{resolution[1]}")
    return np.stack(frames)


def _decode(path: Path, start: int, length: int, fps: int) -> list[Frames]:
    frames: list[Frames] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        if start and stream.time_base:
            container.seek(int(start / fps / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            index = round(float(frame.time or 0.0) * fps)
            if index < start:
                continue
            if index != start + len(frames):
                raise ValueError(f"frame {start + len(frames)} is missing")
            frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            if len(frames) == length:
                break
    return frames
