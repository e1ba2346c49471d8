"""The terminal's view of a training: bars, and lines where standard error is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from reverie.train.display import PlainLines

T = TypeVar("T")


def tell(text: str) -> None:
    """Prints a line on standard error."""
    print(text, file=sys.stderr, flush=True)


class TrainingDisplay:
    """Draws a training (`reverie.train.display.Display`)."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False)

    @contextmanager
    def bar(self, name: str, total: float) -> Iterator[Callable[[float], None]]:
        """Shows how much of `total` is done."""
        from rich.progress import Progress

        with Progress() as progress:
            task = progress.add_task(name, total=total)
            yield lambda done: progress.update(task, completed=done)

    def track(self, items: Sequence[T], name: str) -> Iterable[T]:
        """Shows how many of `items` have been taken."""
        from rich.progress import track

        return track(items, name)

    @contextmanager
    def training(self) -> Iterator[Callable[[float, str], None]]:
        """Shows the share that is done and the newest figures."""
        if not self._console.is_terminal:
            with PlainLines(tell).training() as show:
                yield show
            return
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:5.1f}% {task.fields[text]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("training", total=1.0, text="")
            yield lambda share, text: progress.update(task, completed=share, text=text)
