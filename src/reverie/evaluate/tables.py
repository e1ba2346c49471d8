"""A table of figures, shown three ways: on the terminal, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MISSING = "-"

Metrics = dict[str, float]
"""Figures of one row, by the column's key."""

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

    def show(self, figures: Mapping[str, float], missing: str) -> str:
        """Writes the column's figure of a row."""
        return self.form.format(figures[self.key]) if self.key in figures else missing


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures by name; one that does not apply is left out of its row.  note: how to read it, one line."""

    title: str
    columns: tuple[Column, ...]
    note: str = ""
    rows: dict[str, Metrics] = field(default_factory=dict)

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
        used = self.used_columns()
        headings = ["", *(column.label for column in used)]
        return headings, [[name, *(column.show(row, MISSING) for column in used)] for name, row in self.rows.items()]

    def to_markdown(self) -> str:
        headings, rows = self.cells()
        lines = [f"### {self.title}", "", _markdown_row(headings), "|---|" + "---:|" * (len(headings) - 1)]
        lines += map(_markdown_row, rows)
        under = [text for text in (self.note, *(f"- {line}" for line in self.upsets())) if text]
        return "\n".join([*lines, "", *under, ""])

    def to_json(self) -> dict[str, Any]:
        columns = [asdict(column) for column in self.used_columns()]
        return {**asdict(self), "columns": columns, "upsets": self.upsets()}

    def used_columns(self) -> tuple[Column, ...]:
        """The columns that some row has a figure for."""
        return tuple(column for column in self.columns if any(column.key in row for row in self.rows.values()))


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |", 1)


def _beats(figure: float, real: float, best: Best) -> bool:
    margin = 0.005 * abs(real) + 1e-9
    if best == "one":
        return abs(figure - 1) < abs(real - 1) - margin
    return {"high": figure > real + margin, "low": figure < real - margin}.get(best, False)
