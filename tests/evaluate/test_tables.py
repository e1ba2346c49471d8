import io

from rich.console import Console

from reverie.evaluate.tables import Column, Table


def example() -> Table:
    table = Table("t", "Title", (Column("a", "A"), Column("b", "B dB", "{:.1f}"), Column("c", "unused")), "A note.")
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
    assert example().to_json() == {"dream": {"a": 0.5, "b": 23.456}, "still": {"a": 0.0}}


def test_the_terminal_shows_the_rows() -> None:
    page = io.StringIO()
    Console(width=100, file=page).print(example().to_rich())
    text = page.getvalue()
    assert "dream" in text
    assert "23.5" in text
    assert "A note." in text
