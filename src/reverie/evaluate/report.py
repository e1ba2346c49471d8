"""A finished report, as report.json holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reverie.errors import DataError
from reverie.evaluate.store import VERSION
from reverie.evaluate.tables import Metrics, Table


@dataclass(frozen=True, slots=True)
class ScorerNote:
    """The inverse-dynamics model of a game, and its own accuracy on held-out recordings."""

    name: str
    held_out: Metrics


@dataclass(frozen=True, slots=True)
class GameReport:
    """Figures of one game.

    curves: values by second, by name and row.
    per_start: the rollouts' figures for every start by itself, by section, for paired comparisons.
    data: name of the recording.  heldout: only held-out episodes were used.
    """

    tables: dict[str, Table]
    curves: dict[str, dict[str, list[float]]]
    per_start: dict[str, list[Metrics]]
    notes: list[str]
    data: str = ""
    heldout: bool = True
    idm: ScorerNote | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One model on all its games.  folder, label: where it lies, and its name beside others."""

    model: str
    fingerprint: str
    settings: dict[str, Any]
    games: dict[str, GameReport]
    seconds: float = 0.0
    folder: Path = Path()
    label: str = ""

    def to_json(self) -> dict[str, Any]:
        raw = {"version": VERSION, **asdict(self)}
        del raw["folder"], raw["label"]
        for name, game in self.games.items():
            raw["games"][name]["tables"] = {key: table.to_json() for key, table in game.tables.items()}
        return raw

    def to_markdown(self) -> str:
        lines = [f"# {self.model}, evaluated\n", f"Weights {self.fingerprint}, {self.seconds:.0f} s.\n"]
        for name, game in self.games.items():
            lines += [f"## {name}\n", *(f"{note}\n" for note in game.notes)]
            lines += [table.to_markdown() for table in game.tables.values()]
        return "\n".join(lines)


def open_report(folder: Path) -> Report:
    """Reads a finished report.  Raises DataError for a half-written one and for any other folder."""
    path = folder / "report.json"
    again = "run its `reverie evaluate` again"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        report = TypeAdapter(Report).validate_python(raw) if _version_of(raw) == VERSION else None
    except FileNotFoundError:
        if (folder / "work").is_dir():
            raise DataError(f"the report in {folder} is not finished; {again}: it goes on where it stopped") from None
        raise DataError(
            f"there is no report in {folder}; make one: reverie evaluate MODEL --data DIR -o {folder}"
        ) from None
    except ValidationError:
        report = None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {again}") from None
    if report is None:
        raise DataError(f"{path} was written by another version of reverie evaluate; run it again")
    return replace(report, folder=folder, label=report.model)


def _version_of(raw: Any) -> Any:
    return raw.get("version") if isinstance(raw, dict) else None


def open_alike(folders: Sequence[Path]) -> list[Report]:
    """Reports that may be compared, their labels made unique.  Raises DataError for different settings or data."""
    reports = [open_report(folder) for folder in folders]
    first, labels = reports[0], [report.label for report in reports]
    for report in reports[1:]:
        for k, mine in first.settings.items():
            if mine != report.settings.get(k) and k != "speed_s":
                raise DataError(
                    f"{first.folder} was evaluated with {k} {mine}, {report.folder} with {report.settings.get(k)}; "
                    "evaluate both with the same settings"
                )
        if not set(first.games) & set(report.games):
            raise DataError(
                f"{first.folder} is of {', '.join(first.games)}, {report.folder} of "
                f"{', '.join(report.games)}; evaluate both on the same recording"
            )
    return [r if labels.count(r.label) == 1 else replace(r, label=f"{r.label} ({r.folder.name})") for r in reports]


def note_without_idm(left_out: str) -> str:
    """The remark that a game's report has without an inverse-dynamics model."""
    return (
        f"No inverse-dynamics model (--idm) of this game: {left_out} are left out. Train one with `reverie train idm`."
    )
