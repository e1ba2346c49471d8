"""When a long dream has stopped being a picture of the game: judged by how much real recordings differ.

A second of video has a look: brightness and the balance of colours; contrast and saturation; how much detail there is,
at three scales, and whether it runs down or across.  A dream that has come to nothing is seldom only too soft or too
harsh: its detail has the wrong scale, or one direction, or one colour.  Real seconds of the same game say how looks are
spread; a dream has collapsed where its look lies further out, for two seconds on end, than all but one in a thousand of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.evaluate import metrics
from reverie.types import FPS, Frames

Looks = npt.NDArray[np.float64]

QUANTILE = 0.999
MARGIN = 1.15
"""The limit is this times the quantile: few recordings show only a part of the spread."""

LOOK_SIZE = 9
SUSTAINED_S = 2
MIN_SECONDS = 40


def looks(frames: Frames) -> Looks:
    """The look of each whole second of a video `(f, H, W, 3)`: `(f // 25, LOOK_SIZE)`; every fifth frame is taken."""
    seconds = len(frames) // FPS
    rows = []
    for second in range(seconds):
        part = frames[second * FPS : (second + 1) * FPS : 5]
        red, green, blue = part.mean((0, 1, 2)) / 255
        fine, middle, coarse, contrast, chroma, down, across = (
            np.log(float(value.mean()) + 1.0)
            for value in (
                metrics.sharpness(part),
                metrics.sharpness(_smaller(part, 2)),
                metrics.sharpness(_smaller(part, 4)),
                metrics.contrast(part),
                metrics.saturation(part),
                np.abs(np.diff(part.astype(np.int16), axis=1)),
                np.abs(np.diff(part.astype(np.int16), axis=2)),
            )
        )
        light = (red + green + blue) / 3
        scales = (fine, fine - middle, middle - coarse)
        rows.append([light, red - green, blue - green, contrast, chroma, *scales, down - across])
    return np.array(rows, np.float64).reshape(seconds, LOOK_SIZE)


def _smaller(frames: Frames, times: int) -> Frames:
    """Averaged over squares of `times` pixels a side; what is left at the edges is cut."""
    height, width = (side // times * times for side in frames.shape[1:3])
    whole = frames[:, :height, :width].astype(np.float32)
    cells = whole.reshape(len(frames), height // times, times, width // times, times, 3)
    return cells.mean((2, 4)).round().astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Detector:
    """centre, inverse: of the looks of real seconds.  limit: the distance beyond which a second is not of this game."""

    centre: npt.NDArray[np.float64]
    inverse: npt.NDArray[np.float64]
    limit: float

    @classmethod
    def fit(cls, real: Sequence[Frames]) -> Detector:
        """From real clips of the game.  Raises DataError for fewer than MIN_SECONDS seconds in all."""
        return cls.of(np.concatenate([looks(frames) for frames in real]))

    @classmethod
    def of(cls, seen: Looks) -> Detector:
        """The same from the `looks` of real seconds."""
        if len(seen) < MIN_SECONDS:
            raise DataError(
                f"the collapse detector needs {MIN_SECONDS} s of real recording, got {len(seen)} s; record more"
            )
        centre = seen.mean(0)
        spread = np.cov(seen, rowvar=False) + 1e-4 * np.eye(seen.shape[1])
        inverse = np.linalg.inv(spread).astype(np.float64)
        return cls(centre, inverse, MARGIN * float(np.quantile(_distance(seen, centre, inverse), QUANTILE)))

    def distance(self, frames: Frames) -> npt.NDArray[np.float64]:
        """How far each second of a video is from the real ones, in deviations (Mahalanobis), `(f // 25,)`."""
        return _distance(looks(frames), self.centre, self.inverse)

    def collapsed_at_s(self, frames: Frames) -> float | None:
        """When the video collapses for SUSTAINED_S seconds or more, in seconds from its start; None if never."""
        return self.collapse_of(looks(frames))

    def collapse_of(self, seen: Looks) -> float | None:
        """The same for a video of which only the `looks` are at hand."""
        return collapse_of([self], seen)


def collapse_of(detectors: Sequence[Detector], seen: Looks) -> float | None:
    """When a video with the looks `seen` collapses: the first of SUSTAINED_S seconds outside of every detector.

    With a second detector for the same game seen through a model's tokenizer, a dream is not blamed for its blur.
    """
    distances = [_distance(seen, d.centre, d.inverse) > d.limit for d in detectors]
    outside = np.logical_and.reduce(distances)
    for second in range(len(seen) - SUSTAINED_S + 1):
        if outside[second : second + SUSTAINED_S].all():
            return float(second)
    return None


def _distance(seen: Looks, centre: npt.NDArray[np.float64], inverse: npt.NDArray[np.float64]) -> Looks:
    away = seen - centre
    return np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away).clip(0))
