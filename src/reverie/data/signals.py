"""Cheap measures of frames: the change from frame to frame, and the image motion.  Numpy alone.

Every measure looks at one colour of a few rows and columns, so that a frame costs microseconds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reverie.types import Frames

GRID = (20, 36)
"""Rows and columns of the thumbnail that changes are measured on."""

LINES = 8
"""Lines of the image on which its motion is measured."""

HORIZON = (0.25, 0.58)
"""Sideways motion is measured in this part of the height: far away, where walking and driving move little."""

SIDEWAYS, UPRIGHT = 2, 1
"""Axes of frames `(f, H, W, 3)` along which an image can slide."""

Numbers = npt.NDArray[np.float32]


def thumbnails(frames: Frames) -> npt.NDArray[np.int16]:
    """The green of points on a grid, `(f, 20, 36)` int16: brightness, near enough, at a hundredth of the cost."""
    rows, columns = (_spread(size, count) for size, count in zip(frames.shape[1:3], GRID, strict=True))
    return frames[:, rows[:, None], columns[None], 1].astype(np.int16)


def change(thumbs: npt.NDArray[np.int16], stride: int = 1) -> Numbers:
    """Mean absolute difference of each thumbnail from the one `stride` before, `(f - stride,)`, levels of 0 to 255."""
    return np.abs(thumbs[stride:] - thumbs[:-stride]).mean(axis=(1, 2), dtype=np.float32)


def slide(before: Frames, after: Frames, axis: int) -> Numbers:
    """Image motion between frames, `(n,)` pixels; to the right (SIDEWAYS) or down (UPRIGHT) is positive.

    before, after: `(n, H, W, 3)`.  A camera that turns right moves the image to the left, one that turns up moves it
    down.  Method: phase correlation (Kuglin and Hines 1975) of a few lines at half size, their peaks added; the peak's
    neighbours give the fraction.  Motion of up to a quarter of the image is measured.
    """
    a, b = _lines(before, axis), _lines(after, axis)
    n = a.shape[-1]
    cross = np.conj(np.fft.rfft(a)) * np.fft.rfft(b)
    cross /= np.abs(cross) + 1e-3 * np.abs(cross).mean(axis=-1, keepdims=True) + 1e-9
    peaks = np.fft.irfft(cross.mean(axis=1), n)
    best = peaks.argmax(axis=-1)
    index = np.arange(len(best))
    left, top, right = (peaks[index, (best + step) % n] for step in (-1, 0, 1))
    fraction = 0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9)
    place = best + np.clip(fraction, -0.5, 0.5)
    return (2.0 * np.where(place > n / 2, place - n, place)).astype(np.float32)


def _lines(frames: Frames, axis: int) -> Numbers:
    """`(n, LINES, size / 2)`: lines along `axis`, halved, without their mean, faded out at both ends."""
    if axis == SIDEWAYS:
        top, bottom = (int(edge * frames.shape[1]) for edge in HORIZON)
        frames = frames[:, top:bottom]
    across = SIDEWAYS + UPRIGHT - axis
    chosen = np.take(frames[..., 1], _spread(frames.shape[across], LINES), axis=across)
    lines = np.moveaxis(chosen, axis, -1).astype(np.float32)
    even = lines.shape[-1] // 2 * 2
    half = 0.5 * (lines[..., 0:even:2] + lines[..., 1:even:2])
    return (half - half.mean(axis=-1, keepdims=True)) * np.hanning(half.shape[-1]).astype(np.float32)


def _spread(size: int, count: int) -> npt.NDArray[np.intp]:
    """`count` positions spread evenly over `size`."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)
