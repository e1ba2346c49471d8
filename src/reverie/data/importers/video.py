"""Times and pictures of videos that others made: any container, codec and rate that FFmpeg reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.errors import DataError
from reverie.types import Frames

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")


def frame_times(path: Path) -> npt.NDArray[np.float64]:
    """When each frame is shown, `(f,)` seconds, growing; read from the packets, nothing is decoded.

    Raises DataError for a file that is missing, is not a video, or has no frames.
    """
    if not path.is_file():
        raise DataError(f"{path}: the video is missing")
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            base = float(stream.time_base or 0)
            stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None and packet.size]
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path}: not a readable video, cut short perhaps ({error})") from error
    if not stamps:
        raise DataError(f"{path}: the video has no frames")
    times = np.sort(np.asarray(stamps, np.float64)) * base
    return times[np.concatenate([[True], np.diff(times) > 0])]


def pictures(path: Path, times: npt.NDArray[np.float64], wanted: set[int], size: tuple[int, int]) -> Iterator[Frames]:
    """The frames whose index is in `wanted`, in order, `(H, W, 3)` uint8 cut to the shape of `size` (H, W).

    times: all frames' times, from `frame_times`.  Ends early where the video does.
    """
    if not wanted:
        return
    first, last, middles = min(wanted), max(wanted), (times[1:] + times[:-1]) / 2
    with av.open(str(path)) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        if first and stream.time_base:
            container.seek(int(times[first] / stream.time_base), stream=stream)
        try:
            for frame in container.decode(stream):
                index = int(np.searchsorted(middles, float(frame.time or 0.0)))
                if index in wanted:
                    yield fit(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), size)
                if index >= last:
                    return
        except av.error.FFmpegError:
            return


def fit(picture: Frames, size: tuple[int, int]) -> Frames:
    """The middle of `picture` (h, w, 3) of the same aspect as `size` (H, W), averaged down (or drawn out) to it."""
    (height, width), (tall, wide) = size, picture.shape[:2]
    if (tall, wide) == (height, width):
        return np.ascontiguousarray(picture)
    scale = min(wide / width, tall / height)
    left, top = (wide - width * scale) / 2, (tall - height * scale) / 2
    box = (left, top, wide - left, tall - top)
    kind = Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize((width, height), kind, box=box))


def _video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    if not container.streams.video:
        raise DataError(f"{path}: has no video")
    return container.streams.video[0]
