"""Finished reports side by side on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.errors import DataError
from reverie.evaluate.page import merged_table, write_page
from reverie.evaluate.report import Report, open_alike
from reverie.evaluate.store import VERSION, make_folder
from reverie.evaluate.tables import Table
from reverie.models.checkpoint import write_json_atomic


@dataclass(frozen=True, slots=True)
class Merged:
    """Reports side by side.  reports: their contents by label; page_bytes: size of the page."""

    reports: dict[str, Any]
    tables: list[Table]
    page_bytes: int


def merge(folders: Sequence[Path], output: Path) -> Merged:
    """Writes report.html and report.json with several reports side by side."""
    reports = open_alike(folders)
    make_folder(output)
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise DataError(f"{output} is one of the reports to merge; say another -o")
    merged = {report.label: report.to_json() for report in reports}
    write_json_atomic(output / "report.json", {"version": VERSION, "merged": merged})
    return Merged(merged, merged_tables(reports), write_page(reports, output / "report.html"))


def merged_tables(reports: Sequence[Report]) -> list[Table]:
    """A table of every kind for every game, with the rows of all reports."""
    tables: list[Table] = []
    for game in dict.fromkeys(name for report in reports for name in report.games):
        parts = {report.label: report.games[game] for report in reports if game in report.games}
        names = dict.fromkeys(name for part in parts.values() for name in part.tables)
        tables += [merged_table(name, parts) for name in names]
    return tables
