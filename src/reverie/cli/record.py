"""`reverie record` and `reverie record screen`: games and windows become datasets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from reverie.data.episode import Draft, Outcome
from reverie.data.writer import DatasetWriter
from reverie.types import FPS

if TYPE_CHECKING:
    from reverie.data.record import RecordConfig
    from reverie.data.screen.recording import RecordScreenConfig


def record(config: RecordConfig) -> None:
    """Records with a progress bar on the terminal."""
    from reverie.data.record import record as record_game

    with RecordingBar(config.world, round(config.hours * 3600 * FPS)) as bar:
        record_game(config, bar.update)


def record_screen(config: RecordScreenConfig) -> None:
    """Waits, records, and prints what came of it."""
    from reverie.data.screen.recording import record_screen as record_window

    print(f"recording {config.window!r} in {config.wait_s:g} s; Ctrl-C ends it", flush=True)
    time.sleep(config.wait_s)
    print(record_window(config).describe(), flush=True)


class RecordingBar:
    """A progress bar on standard error: frames, rate, and how many episodes were thrown away."""

    def __init__(self, world: str, goal_frames: int) -> None:
        columns = (
            TextColumn("recording {task.fields[map]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames, {task.fields[rate]:.0f}/s{task.fields[thrown]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._world, self._goal = world, goal_frames
        self._began, self._at_start, self._thrown = 0.0, 0, 0
        self._task: TaskID | None = None

    def __enter__(self) -> RecordingBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def update(self, writer: DatasetWriter, outcome: Outcome | None) -> None:
        """Shows the bar at the first call, then what the last episode has changed."""
        if self._task is None:
            self._begin(writer)
        if outcome is None:
            return
        assert self._task is not None
        frames = writer.num_frames
        rate = (frames - self._at_start) / max(time.monotonic() - self._began, 1e-6)
        name = self._world
        if isinstance(outcome, Draft):
            name = outcome.meta["map"] or name
        else:
            self._thrown += 1
        thrown = f", {self._thrown} thrown away" if self._thrown else ""
        self._bar.update(self._task, completed=min(frames, self._goal), rate=rate, map=name, thrown=thrown)

    def _begin(self, writer: DatasetWriter) -> None:
        self._began, self._at_start = time.monotonic(), writer.num_frames
        done = min(self._at_start, self._goal)
        self._task = self._bar.add_task("", total=self._goal, completed=done, map=self._world, rate=0.0, thrown="")
        self._bar.start()
