"""25 frames a second out of a video of any rate, with the action of every frame.

No frame is interpolated: output frame k shows the source frame nearest to its time.  Its row is what was done from
that source frame up to the one that the next output frame shows, so that the action of row k shows in frame k + 1:
turns are added up, a key is held if it was held at any time in between.  Where a source below 25 frames a second
shows a frame twice, nothing turns in between, and the keys stay held.  The angles of all rows add up to those of the
source, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie.data.importers.take import Mask, Table, Track
from reverie.types import FPS

MAX_GAP_S = 0.25
"""A pause of the video longer than this, and than four usual frames, ends an episode: its actions are unknown."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch that becomes one episode.  shown: `(k,)` source frames; actions `(k, size)`; poses `(k, 5)` or None."""

    from_s: float
    shown: npt.NDArray[np.intp]
    actions: npt.NDArray[np.float32]
    poses: npt.NDArray[np.float32] | None

    def part(self, start: int, end: int) -> Piece:
        """Frames `start` to `end` of the piece."""
        poses = None if self.poses is None else self.poses[start:end]
        return Piece(round(self.from_s + start / FPS, 3), self.shown[start:end], self.actions[start:end], poses)


def stretches(keep: Mask, times: Table) -> list[tuple[int, int]]:
    """Runs [start, end) of frames to keep, without pauses in between."""
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 1.0 / FPS
    pause = np.diff(times) > max(MAX_GAP_S, 4 * usual)
    together = np.concatenate([[False], keep[1:] & keep[:-1] & ~pause])
    starts = np.flatnonzero(keep & ~together)
    ends = [start + 1 + _leading(together[start + 1 :]) for start in starts]
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def resample(track: Track, times: Table, num_keys: int, max_frames: int, min_frames: int) -> list[Piece]:
    """Cut a take into pieces of at most `max_frames` frames at 25 a second; shorter than `min_frames`: dropped.

    times: `(f,)` seconds of the track's frames.  What is dropped is counted in `track.dropped`.
    """
    pieces: list[Piece] = []
    for start, end in stretches(track.keep, times):
        whole = resample_stretch(track, times, start, end, num_keys)
        if len(whole.shown) < min_frames:
            track.drop(slice(start, end), "in a stretch too short")
            continue
        parts = np.array_split(np.arange(len(whole.shown)), -(-len(whole.shown) // max_frames))
        pieces += [whole.part(int(part[0]), int(part[-1]) + 1) for part in parts]
    return pieces


def resample_stretch(track: Track, times: Table, start: int, end: int, num_keys: int) -> Piece:
    """Frames `start` to `end` of a track as one piece at 25 frames a second."""
    stretch = times[start:end]
    count = int(np.floor((stretch[-1] - stretch[0]) * FPS + 1e-3)) + 1
    moments = stretch[0] + np.arange(count) / FPS
    shown = np.searchsorted((stretch[1:] + stretch[:-1]) / 2, moments - 1e-6)
    bounds = np.append(shown, end - start)
    rows = track.actions[start:end]
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    actions = sums[bounds[1:]] - sums[bounds[:-1]]
    keys = np.where((bounds[1:] > bounds[:-1])[:, None], actions[:, :num_keys], rows[shown, :num_keys]) > 0.5
    poses = None if track.poses is None else track.poses[start:end][shown].astype(np.float32)
    actions[:, :num_keys] = keys
    return Piece(round(float(stretch[0]), 3), shown + start, actions.astype(np.float32), poses)


def _leading(mask: Mask) -> int:
    """Counts the True at the start of the mask."""
    return len(mask) if mask.all() else int(np.argmin(mask))
