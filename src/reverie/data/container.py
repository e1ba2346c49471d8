"""Video containers, read as a player shows them.

A container holds more than frames: an edit list hides packets and moves the first frame away from 0, a display
matrix turns the stored frame, a sample aspect ratio stretches it, and frames need not be evenly spaced.  All
readers of videos go through this module, so that none of them misses one.

PyAV is imported where a file is opened: a training from cached latents needs no FFmpeg.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.paths import local_path
from reverie.types import Frames

if TYPE_CHECKING:
    import av
    import av.container
    import av.video.stream

SEEK_MARGINS_S = (0.0, 1.0, 8.0, float("inf"))
"""A seek that lands behind its target is repeated so much earlier; the last starts at the beginning."""
ASPECT_TOLERANCE = 0.02
"""Pixels whose sides differ by less than this count as square: encoders round."""
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,h264,hevc,ivf,yuv4mpegpipe"
"""The containers that are opened, by FFmpeg's names, whatever a file is called.  FFmpeg reads many more, and some of
them (playlists, scripts, patterns of names) open other files."""
_HDR_CURVES = (16, 18)
"""SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG), by their numbers in H.273."""
_B_FRAME = 3
_UNCOUNTED = frozenset({"vp8", "mpeg4", "msmpeg4v3", "h263"})
"""Codecs with packets that no frame comes out of: their frames are counted by decoding."""


@dataclass(frozen=True, slots=True)
class Head:
    """Properties of a video that are read before its frames.

    Args:
        first_s: when the first frame is shown, in seconds of the container's clock: 0 in most files, not in all.
        pixel_aspect: width of a stored pixel over its height as it is shown; 1 if the file does not state it.
        is_hdr: its brightness follows the curve of an HDR display (PQ or HLG), which makes dull colours elsewhere.
    """

    first_s: float
    pixel_aspect: float
    is_hdr: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded frame.

    Args:
        time_s: when it is shown, in seconds of the container's clock.
        frame: the frame as PyAV has it, neither turned nor stretched.
        is_damaged: it or a frame that it builds on could not be decoded properly.
    """

    time_s: float
    frame: av.VideoFrame
    is_damaged: bool


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Opens the container at `path` and its first video stream.

    Raises DataError, naming the file, for one that is missing, unreadable or has no video, and for what goes wrong
    while it is read.
    """
    import av
    import av.error

    if not path.is_file():
        raise DataError(f"{path}: the video is missing; record it again or download it anew")
    try:
        with av.open(local_path(path), options={"format_whitelist": FORMATS}) as container:
            stream = container.streams.best("video")  # not the cover image of a file that has one
            if stream is None:
                raise DataError(f"{path}: has no video")
            if not stream.time_base or stream.codec_context is None:
                raise DataError(
                    f"{path}: not a readable video (no codec or no clock); record it again or download it anew"
                )
            yield container, stream  # type: ignore[misc]
    except (av.error.FFmpegError, OSError, EOFError, OverflowError, ValueError) as error:
        reason = str(error).replace(local_path(path), path.name)
        raise DataError(
            f"{path}: not a readable video, cut short perhaps ({reason}); record it again or download it anew"
        ) from error


def frame_times(path: Path) -> npt.NDArray[np.float64]:
    """Returns when each frame is shown, `(f,)` seconds of the container's clock, growing.

    Packets that an edit list hides are no frames.  Nothing is decoded, but for codecs whose packets cannot be counted.
    Raises DataError for a file that is missing, is no video, or has no frames.
    """
    return _frame_times(path, _stamp(path)).copy()


def video_head(path: Path) -> Head:
    """Reads the properties of a video that come before its frames.  Raises DataError as `open_video` does."""
    return _video_head(path, _stamp(path))


def decode_from(path: Path, time_s: float, threads: bool = False) -> Iterator[Shown]:
    """Yields the frames of `path` in display order; the first is shown at `time_s` or before, where there is one.

    Raises DataError for a file that cannot be read, and where frames come without a time or out of order.
    """
    for margin in SEEK_MARGINS_S:
        with open_video(path) as (container, stream):
            stream.thread_type = "SLICE" if threads else "NONE"  # frame threads race where a frame is damaged
            if np.isfinite(margin):
                container.seek(int((time_s - margin) / stream.time_base), stream=stream)  # type: ignore[operator]
            frames = _decoded(path, container, stream)
            head = next(frames, None)
            is_late = head is None or head.time_s > time_s + 1e-6
            if is_late and np.isfinite(margin):
                continue
            if head is not None:
                yield head
                yield from frames
            return


def packet_digest(path: Path, begin_s: float, end_s: float) -> bytes:
    """Hashes the coded frames that are shown from `begin_s` until `end_s`, and when: the content of a part of a file.

    The part keeps its hash when others are appended to the file.
    """
    import hashlib

    found: list[tuple[float, bytes]] = []
    with open_video(path) as (container, stream):
        container.seek(int(begin_s / stream.time_base), stream=stream)  # type: ignore[operator]
        late = 0
        for packet in container.demux(stream):
            if packet.pts is None or not packet.size:
                continue
            time_s = float(packet.pts * packet.time_base)
            late = late + 1 if time_s >= end_s else 0
            if begin_s <= time_s < end_s:
                found.append((round(time_s - begin_s, 4), hashlib.sha256(bytes(packet)).digest()))
            elif late > 64:  # no codec reorders over so many frames
                break
    digest = hashlib.sha256()
    for time_s, content in sorted(found):
        digest.update(f"{time_s:.4f}".encode() + content)
    return digest.digest()


def upright(picture: Frames, frame: av.VideoFrame, path: Path) -> Frames:
    """Turns and mirrors `picture` (h, w, 3), decoded from `frame`, by the frame's display matrix.

    Raises DataError for a matrix of another angle than quarter turns.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return picture
    a, b, c, d = matrix
    large = max(abs(a), abs(b), abs(c), abs(d))
    is_level = min(abs(a), abs(d)) > 0.99 * large and max(abs(b), abs(c)) < 0.01 * large
    is_turned = min(abs(b), abs(c)) > 0.99 * large and max(abs(a), abs(d)) < 0.01 * large
    if not (is_level or is_turned) or not large:
        raise DataError(f"{path}: its frames are to be shown at an angle that is no quarter turn; encode it upright")
    # Stored pixel (x, y) is shown at (a x + c y, b x + d y).
    right, down = (a, d) if is_level else (c, b)
    shown = picture if is_level else picture.transpose(1, 0, 2)
    return np.ascontiguousarray(shown[:: 1 if down > 0 else -1, :: 1 if right > 0 else -1])


def is_turned(frame: av.VideoFrame) -> bool:
    """True where the display matrix exchanges width and height."""
    matrix = _display_matrix(frame)
    return matrix is not None and abs(matrix[1]) > abs(matrix[0])


def _pixel_aspect(stream: av.video.stream.VideoStream) -> float:
    ratio = stream.sample_aspect_ratio
    value = float(ratio) if ratio else 1.0
    if not np.isfinite(value) or not 0.1 <= value <= 10.0:
        return 1.0
    return 1.0 if abs(value - 1.0) < ASPECT_TOLERANCE else value


def _decoded(path: Path, container: Any, stream: Any) -> Iterator[Shown]:
    """Decodes on from where the container stands; passes over packets that cannot be decoded."""
    before, is_damaged = -np.inf, False
    held: list[Shown] = []  # B-frames, which build on the frame behind them too
    for frame in _frames(container, stream):
        if frame is None:
            is_damaged = True
            continue
        if frame.pts is None or frame.time is None:
            raise DataError(f"{path}: has frames without a time; put it into another container, such as .mkv")
        time_s = float(frame.time)
        if time_s <= before:
            raise DataError(
                f"{path}: the times of its frames run backwards at {time_s:.3f} s; put it into another container,"
                " such as .mp4, with a program that reorders them"
            )
        before = time_s
        if frame.is_corrupt:
            is_damaged = True
        elif frame.key_frame:
            is_damaged = False
        if frame.pict_type == _B_FRAME:
            held.append(Shown(time_s, frame, is_damaged))
            continue
        for one in held:
            yield replace(one, is_damaged=True) if frame.is_corrupt else one
        held = []
        yield Shown(time_s, frame, is_damaged)
    yield from held


def _frames(container: Any, stream: Any) -> Iterator[av.VideoFrame | None]:
    """Decoded frames in display order; None for a packet that cannot be decoded."""
    import av.error

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            yield None
        except EOFError:
            return


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    values = np.frombuffer(bytes(data), np.int32)
    if len(values) != 9:
        return None
    a, b, _, c, d = (int(value) for value in values[:5])
    return a, b, c, d


def _stamp(path: Path) -> tuple[int, int]:
    """Fingerprint of a file: modification time in ns and size in bytes; zeros if it is missing."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=4096)
def _video_head(path: Path, stamp: tuple[int, int]) -> Head:
    with open_video(path) as (container, stream):
        stream.thread_type = "NONE"
        aspect = _pixel_aspect(stream)
        head = next(_decoded(path, container, stream), None)
    if head is None:
        raise DataError(f"{path}: the video has no frames; record it again or download it anew")
    return Head(head.time_s, aspect, head.frame.color_trc in _HDR_CURVES)


@functools.lru_cache(maxsize=16)
def _frame_times(path: Path, stamp: tuple[int, int]) -> npt.NDArray[np.float64]:
    with open_video(path) as (container, stream):
        if stream.codec_context.name in _UNCOUNTED:
            times = np.array([shown.time_s for shown in _decoded(path, container, stream)])
        else:
            base = float(stream.time_base or 0)
            stamps = [
                packet.pts
                for packet in container.demux(stream)
                if packet.pts is not None and packet.size and not packet.is_discard
            ]
            times = np.sort(np.asarray(stamps, np.float64)) * base
    if not len(times):
        raise DataError(f"{path}: the video has no frames")
    for same in np.flatnonzero(np.diff(times) <= 0)[:1]:
        raise DataError(
            f"{path}: frames {same} and {same + 1} are shown at the same time, {times[same]:.3f} s; encode it again"
        )
    return times
