"""Reports of a training: to a display, a JSONL log and a tracker."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO

from reverie.train.checkpoints import Progress
from reverie.train.config import TrainerConfig
from reverie.train.display import Display
from reverie.train.throughput import Work
from reverie.train.tracking import Tracker, open_tracker

SAMPLES = "samples"
"""The folder, in a training's own, that its images are written to."""


class Report:
    """Collects scalars and writes their means every `log_steps`.  `folder/log.jsonl` has one object a line.

    Where they are known, also: tokens_per_s, of all processes together; tflops, arithmetic of each process in 1e12 a
    second; mfu, the share of `peak` (operations a second of the device) that this is.  Time spent on figures, images
    and checkpoints does not count for them; for steps_per_s it does.
    """

    def __init__(
        self, config: TrainerConfig, first_step: int, display: Display, active: bool = True, peak: float = math.nan
    ) -> None:
        self._config, self._first_step, self._active = config, first_step, active
        self._sums: dict[str, float] = {}
        self._count = 0
        self._peak, self._work = peak, Work()
        self._last_log = time.monotonic()
        self._speed = 0.0
        self._log: IO[str] | None = None
        self._tracker: Tracker | None = None
        self._shown: dict[Path, float] = {}
        self._display, self._shows = display, ExitStack()
        self._show: Callable[[float, str], None] = lambda share, text: None

    def __enter__(self) -> Report:
        if not self._active:
            return self
        config = {name: value for name, value in asdict(self._config).items() if name != "folder"}
        self._tracker = open_tracker(self._config.track, self._config.folder, self._first_step, config)
        self._shown = _times(self._config.folder / SAMPLES)
        self._log = self._open_log()
        self._show = self._shows.enter_context(self._display.training())
        return self

    def __exit__(self, *_: object) -> None:
        self._shows.close()
        if self._log is not None:
            self._log.close()
        if self._tracker is not None:
            self._tracker.close()

    def step(self, progress: Progress, fraction: float, scalars: dict[str, float], work: Work) -> None:
        """Take one step's scalars, and what was done for them."""
        if not self._active:
            return
        self._work += work
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self._count >= self._config.log_steps:
            self._write(progress, fraction)

    def prepared(self, seconds: float | None) -> None:
        """Reports how long the command has prepared, before the first step; None: unknown."""
        if not self._active or seconds is None:
            return
        minutes = self._config.minutes
        budget = f"{self._config.steps} steps" if minutes is None else f"the {minutes:g} minutes of training"
        self._display.line(
            f"prepared in {seconds / 60:.1f} min; {budget} begin now, and the last figures come after them"
        )

    def validation(self, progress: Progress, metrics: dict[str, float]) -> None:
        """Write the figures of a validation."""
        if not self._active or not metrics:
            return
        self._emit(progress, {f"val/{name}": value for name, value in metrics.items()})
        text = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._display.line(f"validation at step {progress.step}: {text}")

    def samples(self, progress: Progress) -> None:
        """Give the tracker what has been written into `folder/samples` since the last time."""
        if self._tracker is None:
            return
        there = _times(self._config.folder / SAMPLES)
        self._tracker.files(progress.step, [path for path, time in there.items() if self._shown.get(path) != time])
        self._shown = there

    def _write(self, progress: Progress, fraction: float) -> None:
        now = time.monotonic()
        self._speed = self._count / max(now - self._last_log, 1e-9)
        means = {name: total / self._count for name, total in self._sums.items()}
        rates, self._work = self._work.rates(self._peak), Work()
        self._sums, self._count, self._last_log = {}, 0, now
        self._emit(progress, means | {"steps_per_s": self._speed} | rates)
        self._show(fraction, self._line(progress, means, rates))

    def _line(self, progress: Progress, means: dict[str, float], rates: dict[str, float]) -> str:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items() if name not in ("lr", "skipped"))
        steps, minutes = self._config.steps, self._config.minutes
        left_s = (minutes or 0) * 60 - progress.elapsed_s if steps is None else (steps - progress.step) / self._speed
        speed = f"{self._speed:.2f} steps/s"
        if "tokens_per_s" in rates:
            speed += f"  {rates['tokens_per_s']:.4g} tokens/s"
        if "tflops" in rates:
            speed += f"  {rates['tflops']:.3g} TFLOP/s"
        if "mfu" in rates:
            speed += f" ({rates['mfu']:.0%} of the device)"
        return f"step {progress.step}  {shown}  {speed}  {max(0.0, left_s) / 60:.1f} min left"

    def _emit(self, progress: Progress, scalars: dict[str, float]) -> None:
        if self._log is not None:
            row = {"step": progress.step, "elapsed_s": round(progress.elapsed_s, 2)} | scalars
            self._log.write(json.dumps(row) + "\n")
            self._log.flush()
        if self._tracker is not None:
            self._tracker.scalars(progress.step, scalars)

    def _open_log(self) -> IO[str]:
        """The log, without the lines of steps that a kill undid."""
        path = self._config.folder / "log.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= self._first_step]
            path.write_text("".join(f"{line}\n" for line in kept))
        return path.open("a")


def _times(folder: Path) -> dict[Path, float]:
    """The files of a folder, with the times of their last change."""
    return {path: path.stat().st_mtime for path in sorted(folder.glob("*")) if path.is_file()}


def _step_of(line: str) -> float:
    """The step of a log line; a line that a kill cut short counts as one to drop."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
