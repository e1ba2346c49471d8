"""H.264 files of a recording: small, of the right colours, and read from any frame.

Colours are BT.601 in the limited range, and the file states it; readers assume the same of files that do not
state it.  Both ways are converted with exact rounding and full chroma, so that a trip through a file shifts no colour.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reverie.data.container import decode_from, upright, video_head
from reverie.errors import DataError
from reverie.paths import local_path
from reverie.types import Frames

if TYPE_CHECKING:
    import av

KEY_EVERY_FRAMES = 25
QUALITY_CRF = 26
PRESET = "ultrafast"
X264_PARAMS = "cabac=1:deblock=1,0,0:subme=1:scenecut=0"

_SMPTE170M = 6
"""BT.601 of 525 lines: the primaries, the transfer curve and the matrix have this number in H.264."""


def write_video(path: Path, frames: Frames, fps: int, *, crf: int = QUALITY_CRF, pixels: str = "yuv420p") -> None:
    """Encode `(f, H, W, 3)` uint8 at `path`: H.264, no B-frames, one thread.

    crf: quality, smaller is better; pixels: yuv420p, or yuv444p for colours at full resolution.
    Frames that lie in memory as planes (by their strides) are read as planes.
    """
    import av
    from av.video.reformatter import ColorRange

    _, height, width, _ = frames.shape
    options = {"crf": str(crf), "preset": PRESET, "tune": "psnr", "bf": "0", "x264-params": X264_PARAMS}
    with av.open(local_path(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.gop_size = KEY_EVERY_FRAMES
        stream.thread_count = 1
        stream.time_base = Fraction(1, fps)
        context = stream.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, _SMPTE170M
        context.color_primaries, context.color_trc = _SMPTE170M, _SMPTE170M
        to_yuv = _ToYuv(height, width, pixels)
        for index, picture in enumerate(frames):
            frame = to_yuv(picture)
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class _ToYuv:
    """RGB frames of one size -> yuv frames, BT.601 limited."""

    def __init__(self, height: int, width: int, pixels: str = "yuv420p") -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._planes = av.VideoFrame(width, height, "gbrp")
        self._reformatter, self._pixels = VideoReformatter(), pixels

    def __call__(self, picture: Frames) -> av.VideoFrame:
        """`(H, W, 3)` uint8 in any layout of memory."""
        import av
        from av.video.reformatter import ColorRange, Colorspace

        planes = picture.transpose(2, 0, 1)
        if planes.flags.c_contiguous and self._planes.planes[0].line_size == picture.shape[1]:
            for plane, colour in zip(self._planes.planes, (1, 2, 0), strict=True):
                plane.update(planes[colour])
            source = self._planes
        else:
            source = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture))
        return self._reformatter.reformat(
            source,
            format=self._pixels,
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_exact(),
            threads=1,
        )


def read_video(
    path: Path, start: int, length: int, fps: float, resolution: tuple[int, int], from_s: float = 0.0
) -> Frames:
    """Frames `start` to `start + length`, `(length, H, W, 3)` uint8, by seeking to the key frame before.

    Frame i is the one shown from_s + i / fps seconds after the file's first, wherever the container's clock begins.
    Raises DataError for a missing, damaged or too short file, for one whose frames do not come at `fps`, and for
    another resolution than (H, W).
    """
    head = video_head(path)
    if head.pixel_aspect != 1.0:
        raise DataError(
            f"{path}: its pixels are {head.pixel_aspect:.3g} times as wide as high; bring it in with"
            " `reverie import lerobot`, which makes them square"
        )
    frames: list[Frames] = []
    to_rgb = ToRgb()
    begin_s = head.first_s + from_s
    for shown in decode_from(path, begin_s + start / fps):
        index = round((shown.time_s - begin_s) * fps)
        if index < start:
            continue
        if index != start + len(frames):
            raise DataError(
                f"{path}: not a readable video of {fps:g} frames a second: frame {start + len(frames)} is missing,"
                f" the next is shown at {shown.time_s:.3f} s; record it again"
            )
        if shown.is_damaged:
            raise DataError(f"{path}: not a readable video: frame {index} is damaged; record it again")
        frames.append(upright(to_rgb(shown.frame), shown.frame, path))
        if frames[-1].shape[:2] != tuple(resolution):
            got = frames[-1].shape
            raise DataError(
                f"{path}: pictures of {got[0]}x{got[1]}, meta/info.json says {resolution[0]}x{resolution[1]}"
            )
        if len(frames) == length:
            return np.stack(frames)
    raise DataError(f"{path}: ends after {start + len(frames)} frames, needs {start + length}; record it again")


class ToRgb:
    """Decoded frames -> RGB `(h, w, 3)` uint8, by the matrix and the range that each frame states."""

    def __init__(self) -> None:
        from av.video.reformatter import ColorRange, VideoReformatter

        self._reformatter = VideoReformatter()
        self._range, self._interpolation = ColorRange.JPEG, _exact()

    def __call__(self, frame: av.VideoFrame) -> Frames:
        rgb = self._reformatter.reformat(
            frame, format="rgb24", dst_color_range=self._range, interpolation=self._interpolation, threads=1
        )
        return np.asarray(rgb.to_ndarray(), np.uint8)


@functools.cache
def _exact() -> int:
    from av.video.reformatter import Interpolation as Flag

    return Flag.BICUBIC | Flag.ACCURATE_RND | Flag.FULL_CHR_H_INP | Flag.FULL_CHR_H_INT
