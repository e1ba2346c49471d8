"""`reverie import KIND SRC DST`: bring in what others recorded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from reverie.types import FPS

if TYPE_CHECKING:
    from reverie.data.importers.config import ImportConfig
    from reverie.data.importers.transfer import Outcome


def import_(config: ImportConfig) -> None:
    """Imports, and prints what was brought in and what was dropped."""
    from reverie.data.importers.import_takes import import_takes

    with Console(stderr=True).status("importing"):
        report = import_takes(config)
    Console().print(table(report.outcomes))
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{config.dst}: {report.episodes} episodes and {report.frames / FPS / 3600:.2f} h added")


def table(outcomes: list[Outcome]) -> Table:
    """A row a take."""
    shown = Table("take", "frames", "episodes", "frames at 25/s", "dropped", box=None, pad_edge=False)
    for one in outcomes:
        dropped = ", ".join(f"{count} {reason}" for reason, count in one.dropped.items())
        shown.add_row(one.name, str(one.frames_in), str(one.episodes), str(one.frames), dropped or "nothing")
    return shown
