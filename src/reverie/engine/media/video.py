"""Frames -> a video file (MP4, WebM or GIF) with metadata of how it was made.  Torch-free."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.errors import DataError, ShapeError
from reverie.paths import local_path
from reverie.types import FPS, Frames


class _Codec(NamedTuple):
    name: str
    options: dict[str, str]
    container: dict[str, str]


_CODECS = {
    ".mp4": _Codec("libx264", {"crf": "16", "preset": "medium"}, {"movflags": "+faststart"}),
    ".webm": _Codec("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "5"}, {}),
}
SUFFIXES = (*_CODECS, ".gif")
"""The files that videos are written as."""


def check_output(path: Path, *suffixes: str) -> Path:
    """Raise DataError if a file called `path` cannot be written: before the work, not after it."""
    if path.suffix.lower() not in suffixes:
        raise DataError(f"the output must be a {' or '.join(suffixes)} file, got {str(path)!r}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"cannot write {str(path)!r}: its folder must exist and be writable")
    return path


def open_video(path: Path, resolution: tuple[int, int], log: dict[str, Any]) -> VideoWriter | GifWriter:
    """The writer for `path`, by its suffix; see VideoWriter."""
    return (GifWriter if path.suffix.lower() == ".gif" else VideoWriter)(path, resolution, log)


class VideoWriter:
    """Writes an MP4 (H.264) or WebM (VP9), 25 frames a second, under a temporary name; it appears, whole, when the
    `with` ends well.

        with VideoWriter(path, (H, W), log) as video:
            video.write(frames)          # uint8 (f, H, W, 3), H and W even

    log: what made the video, kept as JSON in the file's comment; `read_log` gives it back.
    """

    def __init__(self, path: Path, resolution: tuple[int, int], log: dict[str, Any]) -> None:
        self.path = check_output(path, *_CODECS)
        import av  # not where videos are neither read nor written

        codec = _CODECS[path.suffix.lower()]
        self._partial = _partial(path)
        self._container = av.open(local_path(self._partial), "w", options=codec.container)
        self._container.metadata["comment"] = json.dumps(log)
        stream = self._container.add_stream(codec.name, rate=FPS, options=codec.options)
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        self._stream.height, self._stream.width = resolution
        self._stream.pix_fmt = "yuv420p"

    def write(self, frames: Frames) -> None:
        import av

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


class GifWriter:
    """Writer of an endless GIF with 256 colours a frame; the interface is VideoWriter's."""

    def __init__(self, path: Path, resolution: tuple[int, int], log: dict[str, Any]) -> None:
        self.path = check_output(path, ".gif")
        self._partial = _partial(path)
        self._resolution, self._log = resolution, log
        self._frames: list[Image.Image] = []

    def write(self, frames: Frames) -> None:
        for frame in frames:
            if frame.shape[:2] != self._resolution:
                raise ShapeError(f"the video has frames of {self._resolution}, got {frame.shape[:2]}")
            self._frames.append(Image.fromarray(frame).quantize(256, Image.Quantize.FASTOCTREE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None and self._frames:
                first, *others = self._frames
                comment = json.dumps(self._log).encode()
                first.save(
                    self._partial, "GIF", save_all=True, append_images=others, duration=1000 // FPS, loop=0,
                    comment=comment,
                )  # fmt: skip
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix.lower()}")


def read_log(path: str | Path) -> dict[str, Any]:
    """The log that `open_video` put into a video.  Raises DataError for any other file."""
    import av.error

    try:
        log = json.loads(_read_comment(path))
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise DataError(f"{str(path)!r} is not a video made by `reverie generate` ({type(error).__name__})") from None
    if not isinstance(log, dict):
        raise DataError(f"{str(path)!r} is not a video made by `reverie generate`")
    return log


def _read_comment(path: str | Path) -> str:
    if Path(path).suffix.lower() == ".gif":
        with Image.open(path, formats=("GIF",)) as image:
            return bytes(image.info.get("comment", b"")).decode()
    import av

    with av.open(local_path(path)) as container:
        return next((text for name, text in container.metadata.items() if name.lower() == "comment"), "")


def read_frames(path: str | Path) -> npt.NDArray[np.uint8]:
    """All frames of a video, `(f, H, W, 3)`."""
    import av

    with av.open(local_path(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.uint8, copy=False)
