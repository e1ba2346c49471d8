"""Collapse of long plays, second by second, judged by how much real recordings differ.

A second of video has a look: brightness and the balance of colours; contrast and saturation; how much detail there is,
at three scales, and whether it runs down or across.  A play that has come to nothing is seldom only too soft or too
harsh: its detail has the wrong scale, or one direction, or one colour.  Beside its look, a second has four signs of
worlds that fail in ways that keep their colours: a fold in the frame, the start mirrored, haze (far less detail
than the start), and an image that does not move though the camera does.

Real seconds of the same game set every limit, so that no limit is one that the game itself often crosses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.evaluate import metrics
from reverie.evaluate.folds import fold_score, mirror_score, small_grey
from reverie.types import FPS, Frames
from reverie.vision.projection import wrap_degrees

Looks = npt.NDArray[np.float64]

QUANTILE = 0.999
MARGIN = 1.15
"""The limit is this times the quantile: few recordings show only a part of the spread."""

LOOK_SIZE = 9
FINE = 5
"""The look's logarithm of fine detail (`metrics.sharpness` + 1)."""
CURVES = {"sharpness": FINE, "contrast": 3, "saturation": 4}
"""The numbers of a look that are logarithms of a metric + 1."""
FOLD, MIRROR, START_FINE, CHANGE = range(LOOK_SIZE, LOOK_SIZE + 4)
SIGNS = LOOK_SIZE + 4
"""Numbers of a second: its look, then fold, mirrored start, fine detail of the start, and change (nan: not known)."""
KINDS = ("look", "fold", "mirror", "haze", "frozen")
SUSTAINED_S = {"look": 2, "fold": 2, "mirror": 2, "haze": 4, "frozen": 4}
"""Seconds on end that a kind of collapse takes."""
MIN_SECONDS = 40
SYMMETRY_FLOOR = 0.55
"""The limits of fold and mirror are this at least: below, textures are alike by chance."""
HAZE_RATIO = 0.4
"""Detail over the start's (or the usual, where that is less) below which a frame is haze."""
STILL_LEVELS = 1.0
"""Mean change of a second, in grey levels, below which a video is frozen."""
MOVED_M, MOVED_DEG = 0.5, 10.0
"""A camera that moves so far in a second must change the image."""


def look(frames: Frames) -> Looks:
    """The look of some frames `(f, H, W, 3)` together, `(LOOK_SIZE,)`."""
    red, green, blue = frames.mean((0, 1, 2)) / 255
    fine, middle, coarse, contrast, chroma, down, across = (
        np.log(float(value.mean()) + 1.0)
        for value in (
            metrics.sharpness(frames),
            metrics.sharpness(_smaller(frames, 2)),
            metrics.sharpness(_smaller(frames, 4)),
            metrics.contrast(frames),
            metrics.saturation(frames),
            np.abs(np.diff(frames.astype(np.int16), axis=1)),
            np.abs(np.diff(frames.astype(np.int16), axis=2)),
        )
    )
    light = (red + green + blue) / 3
    scales = (fine, fine - middle, middle - coarse)
    return np.array([light, red - green, blue - green, contrast, chroma, *scales, down - across], np.float64)


def looks(frames: Frames, start: Frames | None = None, moved: npt.NDArray[np.bool_] | None = None) -> Looks:
    """The signs of each whole second of a video `(f, H, W, 3)`: `(f // 25, SIGNS)`; every fifth frame is taken.

    start: (H, W, 3), the frame that the video began with; without it neither mirrored views nor haze are looked for.
    moved: (f // 25,) whether the camera moved in a second; without it frozen frames are not.
    """
    seconds = len(frames) // FPS
    rows = np.full((seconds, SIGNS), np.nan)
    if not seconds:
        return rows
    for second in range(seconds):
        part = frames[second * FPS : (second + 1) * FPS : 5]
        rows[second, :LOOK_SIZE] = look(part)
        if moved is not None and moved[second]:
            change = np.abs(part[1:].astype(np.int16) - part[:1]).mean((1, 2, 3)).max()
            rows[second, CHANGE] = float(change)
    middles = small_grey(frames[FPS // 2 : seconds * FPS : FPS])
    rows[:, FOLD] = fold_score(middles)
    if start is not None:
        rows[:, MIRROR] = mirror_score(middles, small_grey(start[None])[0])
        rows[:, START_FINE] = look(start[None])[FINE]
    return rows


def curve_of(signs: Looks, name: str) -> Looks:
    """One of CURVES by second, from signs `(..., s, SIGNS)`."""
    return np.expm1(signs[..., CURVES[name]])


def moved_seconds(poses: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Tests for camera motion in each whole second after the first frame.  poses: (1 + f, 6)."""
    ends = poses[::FPS]
    turn = np.abs(wrap_degrees(np.diff(ends[:, 3:5], axis=0))).max(1)
    return (np.linalg.norm(np.diff(ends[:, :3], axis=0), axis=1) >= MOVED_M) | (turn >= MOVED_DEG)


def _smaller(frames: Frames, times: int) -> Frames:
    """Averaged over squares of `times` pixels a side; what is left at the edges is cut."""
    height, width = (side // times * times for side in frames.shape[1:3])
    whole = frames[:, :height, :width].astype(np.float32)
    cells = whole.reshape(len(frames), height // times, times, width // times, times, 3)
    return cells.mean((2, 4)).round().astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Detector:
    """Limits of what a second of the game may be.

    centre, inverse: of the looks of real seconds.  limit: the distance from them beyond which a second is not of this
    game.  fold, mirror: scores above which a frame is folded, or its start mirrored.  usual: logarithm of the detail of
    a usual second.  haze: logarithm of the detail over the start's, below which a second is haze.  still: levels of
    change below which a video is frozen.
    """

    centre: npt.NDArray[np.float64]
    inverse: npt.NDArray[np.float64]
    limit: float
    fold: float
    mirror: float
    usual: float
    haze: float
    still: float

    @classmethod
    def of(cls, clips: Sequence[Looks]) -> Detector:
        """The detector of a game, from the `looks` of real clips.  Raises DataError for fewer than MIN_SECONDS."""
        seen = np.concatenate(clips) if clips else np.zeros((0, SIGNS))
        if len(seen) < MIN_SECONDS:
            raise DataError(
                f"the collapse detector needs {MIN_SECONDS} s of real recording, got {len(seen)} s; record more"
            )
        usual = float(np.median(_detail(seen[:, FINE])))
        clearest = [_clearest(_haziness(clip, usual), SUSTAINED_S["haze"]) for clip in clips]
        moving = seen[:, CHANGE][np.isfinite(seen[:, CHANGE])]
        return cls(
            *_spread(seen[:, :LOOK_SIZE]),
            _symmetry_limit(seen[:, FOLD]),
            _symmetry_limit(seen[:, MIRROR]),
            usual,
            float(min(np.log(HAZE_RATIO), _least(np.concatenate(clearest)) - np.log(MARGIN))),
            min(STILL_LEVELS, _least(moving) / MARGIN),
        )

    @classmethod
    def unfitted(cls, usual: float) -> Detector:
        """The limits that hold for every game, for one without reference clips; its looks are never tested.

        usual: logarithm of the detail of a usual second.
        """
        nothing = np.zeros((LOOK_SIZE, LOOK_SIZE))
        floors = SYMMETRY_FLOOR, SYMMETRY_FLOOR, usual, float(np.log(HAZE_RATIO)), STILL_LEVELS
        return cls(nothing[0], nothing, float("nan"), *floors)

    def of_views(self, views: Looks) -> Detector:
        """The detector of the same game whose looks are those of single views (n, LOOK_SIZE): a scene shows more of a
        place than anybody walked past.  All else is tested by the limits that hold for every game."""
        centre, inverse, limit = _spread(views)
        return replace(Detector.unfitted(self.usual), centre=centre, inverse=inverse, limit=limit)

    def seen_through(self, real: Frames, shown: Frames) -> Detector:
        """The detector of the same game as a model's tokenizer shows it.

        real, shown: (f, H, W, 3), frames of the game, and the same frames decoded.
        """
        before, after = look(real), look(shown)
        blurred = float(_detail(after[FINE]) - _detail(before[FINE]))
        return replace(self, centre=self.centre + (after - before), usual=self.usual + min(blurred, 0.0))

    def shares_of(self, seen: Looks) -> npt.NDArray[np.float64]:
        """Scores each second for each of KINDS, `(seconds, len(KINDS))`: 1 is the limit, nan is not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = (
                _distance(seen[:, :LOOK_SIZE], self.centre, self.inverse) / self.limit,
                seen[:, FOLD] / self.fold,
                seen[:, MIRROR] / self.mirror,
                _haziness(seen, self.usual) / self.haze,
                self.still / seen[:, CHANGE],
            )
        return np.stack(shares, 1)

    def kinds_of(self, seen: Looks) -> npt.NDArray[np.bool_]:
        """Marks the KINDS of collapse in each second of a video with the looks `seen`, `(seconds, len(KINDS))`."""
        beyond = self.shares_of(seen) > 1
        return np.stack([_sustained(beyond[:, i], SUSTAINED_S[kind]) for i, kind in enumerate(KINDS)], 1)


def detectors_of(
    real: Sequence[Looks], rebuilt: Sequence[Looks], notes: list[str], views: Looks | None = None
) -> list[Detector]:
    """One of the real game, one of the game through the model's tokenizer, each where that is 40 s or more, and one of
    the views of a scene, where those are 40 or more.

    views: looks (n, LOOK_SIZE) of the scene's keyframes; notes: takes a remark for the report where there is none.
    """
    try:
        detectors = [Detector.of(real)]
    except DataError:
        notes.append("The recording is too short for the collapse detector (40 s): left out.")
        return []
    with suppress(DataError):
        detectors.append(Detector.of(rebuilt))
    if views is not None and len(views) >= MIN_SECONDS:
        detectors.append(detectors[0].of_views(views))
    return detectors


def collapse_of(detectors: Sequence[Detector], seen: Looks) -> float | None:
    """Finds the first second that every detector calls collapsed, of a video with the looks `seen`; None without one.

    With a second detector for the same game after a model's tokenizer, a rollout is not blamed for its blur; with one
    of a scene's views, not for a way that no recording took.
    """
    found = collapse_kind(detectors, seen)
    return None if found is None else found[0]


def collapse_kind(detectors: Sequence[Detector], seen: Looks) -> tuple[float, str] | None:
    """Finds the first second of collapse of a video, and which of KINDS it is; None if it never collapses."""
    if not len(seen):
        return None
    kinds = np.logical_and.reduce([detector.kinds_of(seen) for detector in detectors])
    second = np.flatnonzero(kinds.any(1))[:1]
    return (float(second[0]), KINDS[int(kinds[second[0]].argmax())]) if len(second) else None


def _spread(own: Looks) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Centre, inverse covariance and limit of looks (n, LOOK_SIZE)."""
    centre = own.mean(0)
    inverse = np.linalg.inv(np.cov(own, rowvar=False) + 1e-4 * np.eye(LOOK_SIZE)).astype(np.float64)
    return centre, inverse, MARGIN * float(np.quantile(_distance(own, centre, inverse), QUANTILE))


def _haziness(seen: Looks, usual: float) -> Looks:
    """Logarithm of the detail of each second over the start's, or the usual where that is less; nan without a start."""
    return _detail(seen[:, FINE]) - np.minimum(_detail(seen[:, START_FINE]), usual)


def detail(frame: npt.NDArray[np.uint8]) -> float:
    """Logarithm of the fine detail of a frame (H, W, 3)."""
    return float(_detail(look(frame[None])[FINE]))


def _detail(fine: Looks) -> Looks:
    """Logarithm of sharpness, from that of sharpness + 1 in a look."""
    return np.log(np.expm1(fine) + 0.1)


def _sustained(flags: npt.NDArray[np.bool_], seconds: int) -> npt.NDArray[np.bool_]:
    """Seconds that lie in a run of at least so many."""
    result = np.zeros(len(flags), np.bool_)
    for first in range(len(flags) - seconds + 1):
        if flags[first : first + seconds].all():
            result[first : first + seconds] = True
    return result


def _clearest(values: Looks, seconds: int) -> Looks:
    """The largest value of every window of so many seconds: what a sustained limit is held to."""
    if len(values) < seconds:
        return values[:0]
    return np.lib.stride_tricks.sliding_window_view(values, seconds).max(1)


def _least(values: Looks) -> float:
    """The smallest number; infinite without any."""
    known = values[np.isfinite(values)]
    return float(known.min()) if len(known) else float("inf")


def _symmetry_limit(scores: Looks) -> float:
    known = scores[np.isfinite(scores)]
    usual = float(np.quantile(known, QUANTILE)) if len(known) else 0.0
    return max(SYMMETRY_FLOOR, usual + 0.5 * (1 - usual) * (MARGIN - 1))


def _distance(seen: Looks, centre: npt.NDArray[np.float64], inverse: npt.NDArray[np.float64]) -> Looks:
    away = seen - centre
    return np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away).clip(0))
