"""Display of an evaluation: its progress.  `reverie.cli.evaluate` draws it on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Display(Protocol):
    """Receiver of the lines and the progress of an evaluation."""

    def line(self, text: str) -> None:
        """Takes a line that stays."""
        ...

    def status(self, text: str) -> AbstractContextManager[object]:
        """Shows `text` while the context is open."""
        ...

    def bar(self, text: str, num_blocks: int) -> AbstractContextManager[Callable[[], None]]:
        """Shows a bar while the context is open, which yields what moves it on by a block."""
        ...


class Silent:
    """A display that shows nothing."""

    def line(self, text: str) -> None:
        """Drops the line."""

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        yield

    @contextmanager
    def bar(self, text: str, num_blocks: int) -> Iterator[Callable[[], None]]:
        yield lambda: None
