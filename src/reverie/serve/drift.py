"""The drift of a dream from its game, live: the evaluation's collapse statistics, second by second.

The game's own seconds set the limits, once it has been played for long enough; the dream's frames are judged twice, by
the game's limits and by those of the game as the model's tokenizer shows it.  All of it is worked out on a thread of
its own, so that a block never waits for it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reverie.evaluate.collapse import KINDS, MIN_SECONDS, SIGNS, Detector, Looks, collapse_kind, detail, looks
from reverie.evaluate.collapse import moved_seconds as camera_moved
from reverie.evaluate.metrics import psnr_db
from reverie.serve.protocol import Drift
from reverie.types import FPS, Frames, Pose

log = logging.getLogger("reverie.serve")

MAX_REAL_S, MAX_JUDGED_S = 300, 900
REFIT_EVERY_S = 10
MAX_SHARE = 9.99
"""Largest share that is reported; larger ones are clipped to it."""

Picture = npt.NDArray[np.uint8]

Judged = tuple[int, dict[str, float | None], str | None, float | None]
"""Seconds, the shares of the last one, and the collapse with its second."""
NOTHING_JUDGED: Judged = (0, dict.fromkeys(KINDS), None, None)


@dataclass(slots=True)
class _Stretch:
    """Frames that follow each other, cut into seconds."""

    start: Picture
    pose: Pose | None
    frames: list[Picture] = field(default_factory=list)

    def add(self, frames: Frames, pose: Pose | None) -> tuple[Frames, npt.NDArray[np.bool_] | None] | None:
        """The second that is whole now, and whether the camera moved in it; None while there is none.

        frames: fewer than a second; pose: of the camera after them.
        """
        self.frames += list(frames)
        if len(self.frames) < FPS:
            return None
        second, self.frames = np.stack(self.frames[:FPS]), self.frames[FPS:]
        moved = None
        if pose is not None and self.pose is not None:
            moved = camera_moved(np.stack([self.pose] * FPS + [pose]))
        self.pose = pose
        return second, moved


class DriftMeter:
    """Judges a dream beside its game.  Methods come from one thread; `latest` may be read from any."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reverie-drift")
        self._game: _Stretch | None = None
        self._dream: _Stretch | None = None
        self._real: deque[list[Looks]] = deque()
        self._seen: list[Looks] = []
        self._pair: tuple[Picture, Picture] | None = None
        self._fitted: Detector | None = None
        self._fitted_s = 0
        self._detectors: list[Detector] = []
        self._judged = NOTHING_JUDGED
        self._psnr_db: float | None = None

    @property
    def latest(self) -> Drift:
        """The latest figures."""
        seconds, shares, collapsed, collapsed_s = self._judged
        return Drift(
            psnr_db=self._psnr_db, seconds=seconds, shares=dict(shares), collapsed=collapsed, collapsed_s=collapsed_s,
            real_s=self._real_s, real_needed_s=MIN_SECONDS,
        )  # fmt: skip

    def begin_game(self, first: Picture, pose: Pose | None) -> None:
        """The game stands at a frame (H, W, 3) that does not follow from the one before."""
        self._game = _Stretch(first, pose)
        self._later(lambda: self._real.append([]))

    def begin_dream(self, real: Picture, first: Picture, pose: Pose | None) -> None:
        """A dream begins.  real: (H, W, 3), the frame of the game; first: the same as the dream shows it."""
        self._dream, self._psnr_db = _Stretch(first, pose), None
        self._judged = NOTHING_JUDGED
        self._later(lambda: self._begin(real, first))

    def add_game(self, frames: Frames, pose: Pose | None) -> None:
        """Frames (f, H, W, 3) that the game has shown, f < 25; pose: of its camera after them."""
        assert self._game is not None, "begin_game comes first"
        if (second := self._game.add(frames, pose)) is not None:
            start = self._game.start
            self._later(lambda: self._learn(start, *second))

    def add_dream(self, frames: Frames, pose: Pose | None, real: Frames | None) -> None:
        """Frames of the dream; real: those of the game under the same actions, where it is played as well."""
        assert self._dream is not None, "begin_dream comes first"
        self._psnr_db = None if real is None else round(float(psnr_db(frames, real).mean()), 2)
        if (second := self._dream.add(frames, pose)) is not None:
            start = self._dream.start
            self._later(lambda: self._judge(start, *second))

    def settle(self) -> None:
        """Waits until all is judged."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------------------------------ on the own thread

    def _later(self, work: Callable[[], object]) -> None:
        self._thread.submit(_logged, work)

    @property
    def _real_s(self) -> int:
        return sum(map(len, tuple(self._real)))

    def _begin(self, real: Picture, first: Picture) -> None:
        self._seen, self._pair = [], (real, first)
        self._choose()

    def _learn(self, start: Picture, second: Frames, moved: npt.NDArray[np.bool_] | None) -> None:
        """Takes in a second of the game; one in which nothing moves tells nothing new."""
        if moved is not None and not moved[0]:
            return
        self._real[-1].append(looks(second, start, moved)[0])
        while self._real_s > MAX_REAL_S and len(self._real) > 1:
            self._real.popleft()
        if self._real_s >= max(MIN_SECONDS, self._fitted_s + REFIT_EVERY_S):
            self._fitted_s = self._real_s
            self._fitted = Detector.of([np.stack(clip) for clip in self._real if clip])
            self._choose()

    def _choose(self) -> None:
        """The detectors for the dream at hand."""
        if self._pair is None:
            return
        real, first = self._pair
        plain = self._fitted or Detector.unfitted(detail(real))
        self._detectors = [plain, plain.seen_through(real[None], first[None])]

    def _judge(self, start: Picture, second: Frames, moved: npt.NDArray[np.bool_] | None) -> None:
        self._seen.append(looks(second, start, moved)[0])
        del self._seen[:-MAX_JUDGED_S]
        seen = np.stack(self._seen).reshape(-1, SIGNS)
        shares = np.minimum.reduce([detector.shares_of(seen[-1:])[0] for detector in self._detectors])
        known = [None if np.isnan(share) else round(min(float(share), MAX_SHARE), 3) for share in shares]
        when, kind = collapse_kind(self._detectors, seen) or (None, None)
        self._judged = (len(self._seen), dict[str, float | None](zip(KINDS, known, strict=True)), kind, when)


def _logged(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:
        log.exception("judging the drift failed")
