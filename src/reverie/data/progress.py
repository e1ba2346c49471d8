"""The progress bar of a recording: frames, rate, and how many episodes were thrown away."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reverie.data.episode import Draft, Outcome
from reverie.data.writer import DatasetWriter


class RecordingProgress:
    """A context that shows how far `writer` is from `goal_frames`, on standard error."""

    def __init__(self, world: str, goal_frames: int, writer: DatasetWriter, is_shown: bool) -> None:
        columns = (
            TextColumn("recording {task.fields[map]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames, {task.fields[rate]:.0f}/s{task.fields[thrown]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not is_shown)
        self._world, self._writer, self._goal = world, writer, goal_frames
        self._began, self._at_start = time.monotonic(), writer.num_frames
        self._thrown = 0
        done = min(self._at_start, goal_frames)
        self._task = self._bar.add_task("", total=goal_frames, completed=done, map=world, rate=0.0, thrown="")

    def __enter__(self) -> RecordingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, outcome: Outcome) -> None:
        """Show what the last episode has changed."""
        frames = self._writer.num_frames
        rate = (frames - self._at_start) / max(time.monotonic() - self._began, 1e-6)
        name = self._world
        if isinstance(outcome, Draft):
            name = outcome.meta["map"] or name
        else:
            self._thrown += 1
        thrown = f", {self._thrown} thrown away" if self._thrown else ""
        self._bar.update(self._task, completed=min(frames, self._goal), rate=rate, map=name, thrown=thrown)
