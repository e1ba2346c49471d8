"""Display of a training: what it reports while it works.  `reverie.cli.display` draws it on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")

PLAIN_LINE_S = 20.0
"""Seconds between lines where there is no bar."""


class Display(Protocol):
    """Receiver of the lines and the progress of a training."""

    def line(self, text: str) -> None:
        """Takes a line that stays."""
        ...

    def bar(self, name: str, total: float) -> AbstractContextManager[Callable[[float], None]]:
        """Opens a bar, which is called with how much of `total` is done."""
        ...

    def track(self, items: Sequence[T], name: str) -> Iterable[T]:
        """Passes `items` on, and shows how many have been taken."""
        ...

    def training(self) -> AbstractContextManager[Callable[[float, str], None]]:
        """Opens the bar of the training loop, which is called with the share done and a line of figures."""
        ...


class Silent:
    """A display that shows nothing."""

    def line(self, text: str) -> None:
        """Drops the line."""

    @contextmanager
    def bar(self, name: str, total: float) -> Iterator[Callable[[float], None]]:
        yield lambda done: None

    def track(self, items: Sequence[T], name: str) -> Iterable[T]:
        return items

    @contextmanager
    def training(self) -> Iterator[Callable[[float, str], None]]:
        yield lambda share, text: None


SILENT = Silent()


class PlainLines(Silent):
    """A display of lines alone, for logs.  tell: takes one line."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def line(self, text: str) -> None:
        """Passes the line on."""
        self._tell(text)

    @contextmanager
    def training(self) -> Iterator[Callable[[float, str], None]]:
        """Tells the newest figures every PLAIN_LINE_S."""
        last = time.monotonic()

        def show(share: float, text: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PLAIN_LINE_S:
                last = now
                self._tell(f"{100 * share:5.1f}% {text}")

        yield show
