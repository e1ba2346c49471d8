"""Mirror symmetry of video frames: a world that folds shows itself twice, the second time mirrored.

A frame is compared with its own mirror image at every axis (a fold inside of the frame), and with the mirror image of
the start at every offset (a mirrored view of it).  Frames are small and grey, and structures that any mirror leaves as
they are (horizons for a vertical axis, posts for a horizontal one) are taken out first.

Legend: n frames, (h w) = 32 x 56, s = (2 h, 2 w) offsets.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from reverie.types import Frames

SIZE = (32, 56)
MIN_OVERLAP = 0.4
"""Share of the frame that must lie on both sides of an axis, or inside of both frames."""
SMOOTH = 15
"""Cells over which a line's local mean is taken."""
NOISE = 4.0
"""Squared grey levels that count as texture of both sides: what is flat matches nothing."""

Small = npt.NDArray[np.float32]


def small_grey(frames: Frames) -> Small:
    """Frames (n, H, W, 3) as grey levels, (n, h, w)."""
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    return np.stack([cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA) @ luma for frame in frames])


def fold_score(frames: Small) -> npt.NDArray[np.float64]:
    """Likeness of each frame to itself mirrored at its best axis, upright or level, `(n,)`, -1 to 1 (a fold)."""
    upright, level = _detail(frames, 2), _detail(frames, 1)
    rows, columns = range(1), range(1)
    scores = (_best_match(upright, upright[:, :, ::-1], rows, None), _best_match(level, level[:, ::-1], None, columns))
    return np.maximum(*scores)


def mirror_score(frames: Small, start: Small) -> npt.NDArray[np.float64]:
    """Likeness of each frame to the start (h, w) mirrored at either axis, at its best offset, `(n,)`, -1 to 1."""
    whole = np.broadcast_to(start, frames.shape)
    scores = []
    for axis in (2, 1):
        ours, theirs = _detail(frames, axis), np.flip(_detail(whole, axis), axis)
        scores.append(_best_match(ours, theirs, None, None))
    return np.maximum(*scores)


def _detail(frames: Small, axis: int) -> Small:
    """Frames less their local mean along an axis (1: down, 2: across), which mirroring across it would leave alone."""
    size = (SMOOTH, 1) if axis == 2 else (1, SMOOTH)
    return np.stack([frame - cv2.blur(np.ascontiguousarray(frame), size) for frame in frames])


def _best_match(first: Small, second: Small, down: range | None, across: range | None) -> npt.NDArray[np.float64]:
    """The best normalised correlation of two sets of frames over offsets, `(n,)`; `range(1)` allows no offset."""
    height, width = SIZE
    size = (2 * height, 2 * width)

    def spectrum(x: Small) -> npt.NDArray[np.complex128]:
        return np.fft.rfft2(x.astype(np.float64), size)

    def correlate(a: npt.NDArray[np.complex128], b: npt.NDArray[np.complex128]) -> npt.NDArray[np.float64]:
        return np.fft.irfft2(a * b.conj(), size)

    inside = spectrum(np.ones((1, *SIZE), np.float32))
    overlap = correlate(inside, inside).round()
    energy = correlate(spectrum(first**2), inside), correlate(inside, spectrum(second**2))
    shared = np.sqrt(np.maximum(energy[0], 0) * np.maximum(energy[1], 0)) + NOISE * overlap
    match = correlate(spectrum(first), spectrum(second)) / np.maximum(shared, 1e-9)
    match[:, overlap[0] < MIN_OVERLAP * height * width] = -1
    if down is not None:
        match[:, len(down) :] = -1
    if across is not None:
        match[:, :, len(across) :] = -1
    return match.max((1, 2))
