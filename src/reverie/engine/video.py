"""Frames -> an H.264 file that says how it was made.  Torch-free."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.paths import local_path
from reverie.types import FPS, Frames


def check_output(path: Path, suffix: str) -> Path:
    """Raise DataError if a file called `path` cannot be written: before the work, not after it."""
    if path.suffix.lower() != suffix:
        raise DataError(f"the output must be a {suffix} file, got {str(path)!r}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"cannot write {str(path)!r}: its folder must exist and be writable")
    return path


class VideoWriter:
    """Writes an MP4 (H.264, 25 frames a second) under a temporary name; it appears, whole, when the `with` ends well.

        with VideoWriter(path, (H, W), log) as video:
            video.write(frames)          # uint8 (f, H, W, 3), H and W even

    log: what made the video, kept as JSON in the file's comment; `read_log` gives it back.
    """

    def __init__(self, path: Path, resolution: tuple[int, int], log: dict[str, Any]) -> None:
        self.path = check_output(path, ".mp4")
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.mp4")
        self._container = av.open(local_path(self._partial), "w", options={"movflags": "+faststart"})
        self._container.metadata["comment"] = json.dumps(log)
        self._stream = self._container.add_stream("libx264", rate=FPS, options={"crf": "16", "preset": "medium"})
        self._stream.height, self._stream.width = resolution
        self._stream.pix_fmt = "yuv420p"

    def write(self, frames: Frames) -> None:
        for frame in frames:
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if kind is None:
                os.replace(self._partial, self.path)
        finally:
            with suppress(FileNotFoundError):
                self._partial.unlink()


def read_log(path: str | Path) -> dict[str, Any]:
    """The log that `VideoWriter` put into a video.  Raises DataError for any other file."""
    try:
        with av.open(local_path(path)) as container:
            log = json.loads(container.metadata.get("comment", ""))
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise DataError(f"{str(path)!r} is not a video made by `reverie generate` ({type(error).__name__})") from None
    if not isinstance(log, dict):
        raise DataError(f"{str(path)!r} is not a video made by `reverie generate`")
    return log


def read_frames(path: str | Path) -> npt.NDArray[np.uint8]:
    """All frames of a video, `(f, H, W, 3)`."""
    with av.open(local_path(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.uint8, copy=False)
