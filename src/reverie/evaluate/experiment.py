"""Experiment: one model on one recording, piece by piece, each piece made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reverie.evaluate.display import Display
from reverie.evaluate.model_under_test import ModelUnderTest
from reverie.evaluate.perceptual import LPIPS
from reverie.evaluate.rollout import Tick, roll
from reverie.evaluate.store import R, Store
from reverie.types import Action, Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One model on one recording.

    name: of the recording.  folder: of the report.  seed: of the rollouts' noise.  lpips: where it is installed.
    """

    name: str
    model: ModelUnderTest
    store: Store
    folder: Path
    display: Display
    seed: int = 0
    videos: bool = True
    lpips: LPIPS | None = None

    def get(self, piece: str, kind: type[R], make: Callable[[Tick], R], num_frames: int = 1) -> R:
        """Returns a piece's stored result, or makes it, with a bar of so many frames."""
        with self.display.bar(f"{self.name}: {piece}", -(-num_frames // self.model.block_frames)) as tick:
            return self.store.get(f"{self.name}-{piece}", kind, lambda: make(tick))

    def each(
        self, section: str, count: int, kind: type[R], make: Callable[[int, Tick], R], num_frames: int = 1
    ) -> list[R]:
        """`get` of so many pieces of a section; make: is given their number."""
        return [self.get(f"{section}-{k}", kind, partial(make, k), num_frames) for k in range(count)]

    def strip(self, piece: str) -> Path:
        """Path of a piece's strip of frames."""
        return self._file("pictures", f"{piece}.jpg")

    def clip(self, piece: str) -> Path:
        """Path of a piece's video."""
        return self._file("clips", f"{piece}.mp4")

    def roll(self, image: Frames, actions: Sequence[Action], k: int, tick: Tick) -> Frames:
        """Rolls the model out, with the noise of start k."""
        return roll(self.model.dreamer, image, actions, self.seed + k, tick)

    def _file(self, kind: str, name: str) -> Path:
        (self.folder / kind).mkdir(exist_ok=True, parents=True)
        return self.folder / kind / f"{self.name}-{name}"
