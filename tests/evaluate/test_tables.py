import io

from pydantic import TypeAdapter
from rich.console import Console

from reverie.cli.evaluate import rich_table
from reverie.evaluate import tables
from reverie.evaluate.tables import Column, Table


def example() -> Table:
    table = Table("Title", (Column("a", "A"), Column("b", "B dB", "{:.1f}"), Column("c", "unused")), "A note.")
    table.rows["dream"] = {"a": 0.5, "b": 23.456}
    table.rows["still"] = {"a": 0.0}
    return table


def test_markdown_leaves_out_empty_columns_and_marks_what_is_missing() -> None:
    assert example().to_markdown().splitlines() == [
        "### Title",
        "",
        "| | A | B dB |",
        "|---|---:|---:|",
        "| dream | 0.50 | 23.5 |",
        "| still | 0.00 | - |",
        "",
        "A note.",
    ]


def test_json_keeps_all_digits() -> None:
    raw = example().to_json()
    assert raw["rows"] == {"dream": {"a": 0.5, "b": 23.456}, "still": {"a": 0.0}}
    assert TypeAdapter(Table).validate_python(raw).to_markdown() == example().to_markdown()


def test_a_control_that_beats_the_real_thing_is_named() -> None:
    columns = (tables.Column("p", "PSNR", best="high"), tables.Column("d", "distance", best="low"))
    table = tables.Table("X", (*columns, tables.Column("s", "sharpness", best="one")))
    table.rows[tables.REAL] = {"p": 1.0, "d": 0.5, "s": 0.9}
    table.rows[tables.STATIC] = {"p": 1.1, "d": 0.4, "s": 1.3}
    table.rows[tables.SHUFFLED] = {"p": 0.9, "d": 0.4}
    table.rows[tables.REBUILT] = {"p": 2.0}
    assert table.upsets() == [
        "static picture beats the real recording on PSNR (1.10 against 1.00), distance (0.40 against 0.50)",
        "shuffled actions beats the real recording on distance (0.40 against 0.50)",
    ]
    assert "- static picture beats" in table.to_markdown()


def test_the_terminal_shows_the_rows() -> None:
    page = io.StringIO()
    Console(width=100, file=page).print(rich_table(example()))
    text = page.getvalue()
    assert "dream" in text
    assert "23.5" in text
    assert "A note." in text
