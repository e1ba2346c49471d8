"""H.264 files of a recording: small, of the right colours, and read from any frame.

Colours are BT.601 in the limited range, and the file says so; that is also what readers assume of files that do not
say.  Both ways are converted with exact rounding and full chroma, so that a trip through a file shifts no colour.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from reverie.errors import DataError
from reverie.types import Frames

KEY_EVERY_FRAMES = 25
QUALITY_CRF = 26
PRESET = "ultrafast"
X264_PARAMS = "cabac=1:deblock=1,0,0:subme=1:scenecut=0"

_EXACT = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
)
_SMPTE170M = 6
"""BT.601 of 525 lines: the primaries, the transfer curve and the matrix have this number in H.264."""


def write_video(path: Path, frames: Frames, fps: int) -> None:
    """Encode `(f, H, W, 3)` uint8 at `path`: H.264, yuv420p, no B-frames, one thread.

    Frames that lie in memory as planes (by their strides) are read as planes.
    """
    _, height, width, _ = frames.shape
    options = {"crf": str(QUALITY_CRF), "preset": PRESET, "tune": "psnr", "bf": "0", "x264-params": X264_PARAMS}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = KEY_EVERY_FRAMES
        stream.thread_count = 1
        stream.time_base = Fraction(1, fps)
        context = stream.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, _SMPTE170M
        context.color_primaries, context.color_trc = _SMPTE170M, _SMPTE170M
        to_yuv = _ToYuv(height, width)
        for index, picture in enumerate(frames):
            frame = to_yuv(picture)
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class _ToYuv:
    """RGB pictures of one size -> yuv420p frames, BT.601 limited."""

    def __init__(self, height: int, width: int) -> None:
        self._planes = av.VideoFrame(width, height, "gbrp")
        self._reformatter = VideoReformatter()

    def __call__(self, picture: Frames) -> av.VideoFrame:
        """`(H, W, 3)` uint8 in any layout of memory."""
        planes = picture.transpose(2, 0, 1)
        if planes.flags.c_contiguous and self._planes.planes[0].line_size == picture.shape[1]:
            for plane, colour in zip(self._planes.planes, (1, 2, 0), strict=True):
                plane.update(planes[colour])
            source = self._planes
        else:
            source = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture))
        return self._reformatter.reformat(
            source,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_EXACT,
            threads=1,
        )


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
    reformatter = VideoReformatter()
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
            rgb = reformatter.reformat(
                frame, format="rgb24", dst_color_range=ColorRange.JPEG, interpolation=_EXACT, threads=1
            )
            frames.append(np.asarray(rgb.to_ndarray(), np.uint8))
            if len(frames) == length:
                break
    return frames
