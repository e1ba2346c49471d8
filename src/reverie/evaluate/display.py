"""Display of an evaluation: what it reports while it works.  `reverie.cli.evaluate` draws it on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Bars(Protocol):
    """Progress bars, one for each unit of work; those of rich are of this kind."""

    def add_task(self, description: str, *, total: float | None) -> Any:
        """Adds a bar and returns its handle."""
        ...

    def advance(self, task_id: Any) -> None:
        """Moves a bar on by one."""
        ...

    def remove_task(self, task_id: Any) -> None:
        """Takes a bar away."""
        ...


class Display(Protocol):
    """Receiver of the lines and the progress of an evaluation."""

    def line(self, text: str) -> None:
        """Takes a line that stays."""
        ...

    def status(self, text: str) -> AbstractContextManager[object]:
        """Shows `text` while the context is open."""
        ...

    def bars(self) -> AbstractContextManager[Bars]:
        """Opens the bars of the units."""
        ...


class _NoBars:
    def add_task(self, description: str, *, total: float | None) -> None: ...
    def advance(self, task_id: Any) -> None: ...
    def remove_task(self, task_id: Any) -> None: ...


class Silent:
    """A display that shows nothing."""

    def line(self, text: str) -> None:
        """Drops the line."""

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        yield

    @contextmanager
    def bars(self) -> Iterator[Bars]:
        yield _NoBars()


SILENT = Silent()
