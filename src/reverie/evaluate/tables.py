"""A table of figures, shown three ways: on the terminal, as Markdown, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as RichTable

MISSING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """key: its name in JSON.  label: its heading, with the unit.  form: how a figure is written."""

    key: str
    label: str
    form: str = "{:.2f}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures by name; one that does not apply is left out of its row.  note: how to read it, one line."""

    name: str
    title: str
    columns: tuple[Column, ...]
    note: str = ""
    rows: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_rich(self) -> RichTable:
        table = RichTable(title=self.title, caption=self.note, title_justify="left", caption_justify="left")
        table.add_column("")
        for column in self._used():
            table.add_column(column.label, justify="right")
        for name, figures in self.rows.items():
            table.add_row(name, *self._cells(figures))
        return table

    def to_markdown(self) -> str:
        used = self._used()
        lines = [
            f"### {self.title}",
            "",
            "| | " + " | ".join(column.label for column in used) + " |",
            "|---|" + "---:|" * len(used),
            *(f"| {name} | " + " | ".join(self._cells(figures)) + " |" for name, figures in self.rows.items()),
        ]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])

    def to_json(self) -> dict[str, Any]:
        return {name: dict(figures) for name, figures in self.rows.items()}

    def _used(self) -> list[Column]:
        """The columns that some row has a figure for."""
        return [column for column in self.columns if any(column.key in figures for figures in self.rows.values())]

    def _cells(self, figures: dict[str, float]) -> list[str]:
        return [
            column.form.format(figures[column.key]) if column.key in figures else MISSING for column in self._used()
        ]
