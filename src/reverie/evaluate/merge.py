"""Finished reports: read back, and set side by side on one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.errors import DataError
from reverie.evaluate.page import Report, merged_table, write_page
from reverie.evaluate.store import VERSION, make_folder
from reverie.evaluate.tables import Table
from reverie.models.checkpoint import write_json_atomic

SAME = ("settings",)


def open_report(folder: Path) -> Report:
    """A finished report.  Raises DataError for a half-written one and for any other folder."""
    path = folder / "report.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / "work").is_dir():
            raise DataError(
                f"the report in {folder} is not finished; run its `reverie evaluate` again: it goes on where it stopped"
            ) from None
        raise DataError(
            f"there is no report in {folder}; make one: reverie evaluate MODEL --data DIR -o {folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); run its `reverie evaluate` again") from None
    if not isinstance(raw, dict) or raw.get("version") != VERSION or not isinstance(raw.get("games"), dict):
        raise DataError(f"{path} was written by another version of reverie evaluate; run it again")
    return Report(folder, raw, str(raw["model"]))


def open_alike(folders: Sequence[Path]) -> list[Report]:
    """Reports that may be compared, their labels made unique.  Raises DataError for different settings or data."""
    reports = [open_report(folder) for folder in folders]
    first = reports[0]
    for report in reports[1:]:
        for key in SAME:
            mine, theirs = first.raw[key], report.raw[key]
            different = [k for k in mine if mine[k] != theirs.get(k) and k != "speed_s"]
            if different:
                k = different[0]
                raise DataError(
                    f"{first.folder} was evaluated with {k} {mine[k]}, {report.folder} with {theirs.get(k)}; "
                    "evaluate both with the same settings"
                )
        if not set(first.raw["games"]) & set(report.raw["games"]):
            raise DataError(
                f"{first.folder} is of {', '.join(first.raw['games'])}, {report.folder} of "
                f"{', '.join(report.raw['games'])}; evaluate both on the same recording"
            )
    labels = [report.label for report in reports]
    return [
        Report(r.folder, r.raw, r.label if labels.count(r.label) == 1 else f"{r.label} ({r.folder.name})")
        for r in reports
    ]


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
    merged = {report.label: report.raw for report in reports}
    write_json_atomic(output / "report.json", {"version": VERSION, "merged": merged})
    return Merged(merged, merged_tables(reports), write_page(reports, output / "report.html"))


def merged_tables(reports: Sequence[Report]) -> list[Table]:
    """A table of every kind for every game, with the rows of all reports."""
    tables: list[Table] = []
    for game in dict.fromkeys(name for report in reports for name in report.raw["games"]):
        having = {report.label: report.raw["games"][game] for report in reports if game in report.raw["games"]}
        names = dict.fromkeys(name for part in having.values() for name in part["tables"])
        tables += [merged_table(name, {k: v for k, v in having.items() if name in v["tables"]}) for name in names]
    return tables
