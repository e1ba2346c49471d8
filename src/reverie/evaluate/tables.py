"""A table of figures, shown three ways: on the terminal, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MISSING = "-"

DREAM, REAL, REBUILT = "the dream", "real recording", "tokenizer's reconstruction"
STATIC, COPY, SHUFFLED = "static picture", "copy of the last frame", "shuffled actions"
OTHER_REAL = "other real clips"
CONTROLS = (STATIC, COPY, SHUFFLED)
"""Rows that should lose to the real recording: what beats it measures something else than the game."""

Best = Literal["high", "low", "one", ""]


@dataclass(frozen=True, slots=True)
class Column:
    """key: its name in JSON.  label: its heading, with the unit.  form: how a figure is written.

    best: which way is better: high, low, near one, or none.
    """

    key: str
    label: str
    form: str = "{:.2f}"
    best: Best = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures by name; one that does not apply is left out of its row.  note: how to read it, one line."""

    name: str
    title: str
    columns: tuple[Column, ...]
    note: str = ""
    rows: dict[str, dict[str, float]] = field(default_factory=dict)

    def upsets(self) -> list[str]:
        """A line for each control that should lose but beats the real recording, with the figures by which it does.

        By more than 0.5%: less is noise.
        """
        real = self.rows.get(REAL, {})
        lines = []
        for name in CONTROLS:
            own = self.rows.get(name, {})
            shared = [column for column in self.columns if column.key in own and column.key in real]
            won = [column for column in shared if _beats(own[column.key], real[column.key], column.best)]
            figures = (f"{c.label} ({c.form.format(own[c.key])} against {c.form.format(real[c.key])})" for c in won)
            if won:
                lines.append(f"{name} beats the real recording on {', '.join(figures)}")
        return lines

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows as text, each row with its name first; columns without figures are left out."""
        headings = ["", *(column.label for column in self._used())]
        return headings, [[name, *self._cells(figures)] for name, figures in self.rows.items()]

    def to_markdown(self) -> str:
        used = self._used()
        lines = [
            f"### {self.title}",
            "",
            "| | " + " | ".join(column.label for column in used) + " |",
            "|---|" + "---:|" * len(used),
            *(f"| {name} | " + " | ".join(self._cells(figures)) + " |" for name, figures in self.rows.items()),
        ]
        under = [text for text in (self.note, *(f"- {line}" for line in self.upsets())) if text]
        return "\n".join([*lines, "", *under, ""])

    def to_json(self) -> dict[str, Any]:
        """Converts the table to JSON for `from_json`; every row as a plain mapping under `rows`."""
        columns = [asdict(column) for column in self._used()]
        rows = {name: dict(figures) for name, figures in self.rows.items()}
        return {"title": self.title, "note": self.note, "columns": columns, "rows": rows, "upsets": self.upsets()}

    @classmethod
    def from_json(cls, name: str, raw: Mapping[str, Any]) -> Table:
        columns = tuple(Column(**column) for column in raw["columns"])
        return cls(
            name, raw["title"], columns, raw["note"], {row: dict(figures) for row, figures in raw["rows"].items()}
        )

    def _used(self) -> list[Column]:
        """The columns that some row has a figure for."""
        return [column for column in self.columns if any(column.key in figures for figures in self.rows.values())]

    def _cells(self, figures: dict[str, float]) -> list[str]:
        return [
            column.form.format(figures[column.key]) if column.key in figures else MISSING for column in self._used()
        ]


def _beats(figure: float, real: float, best: Best) -> bool:
    margin = 0.005 * abs(real) + 1e-9
    if best == "one":
        return abs(figure - 1) < abs(real - 1) - margin
    return {"high": figure > real + margin, "low": figure < real - margin}.get(best, False)
