"""Rows and frames belong together by what they say of themselves, in the importer and where a dataset is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.import_samples import FRONT, bring, lerobot_set, pairs

from reverie.cli import main
from reverie.data.audit import problems
from reverie.data.dataset import Dataset, check_rate
from reverie.data.loader import ClipLoader
from reverie.errors import DataError

ROWS = "data/chunk-000/file-000.parquet"
TABLE = "meta/episodes/chunk-000/file-000.parquet"


def change(path: Path, make: Callable[[dict[str, list[Any]]], object]) -> None:
    """Change the columns of a parquet file in place."""
    columns = pq.read_table(path).to_pydict()
    make(columns)
    pq.write_table(pa.table(columns), path)


def test_an_episode_taken_out_of_the_table_moves_no_rows(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src", listed=(1, 2))
    data, report = bring("lerobot", src, tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in range(40, 150)]
    assert report.notes == []
    assert pairs(Dataset(src)) == pairs(data)


@pytest.mark.parametrize("drop", [("episode_index",), ("episode_index", "index"), ("index", "timestamp")])
def test_the_same_with_fewer_columns(tmp_path: Path, drop: tuple[str, ...]) -> None:
    src = lerobot_set(tmp_path / "src", listed=(1, 2), drop=drop)
    assert pairs(bring("lerobot", src, tmp_path / "dst")[0]) == pairs(Dataset(src)) == [(i, i) for i in range(40, 150)]


def test_rows_of_many_files_without_columns_that_say_where_they_belong(tmp_path: Path) -> None:
    files = {2: 1}
    src = lerobot_set(tmp_path / "src", listed=(1, 2), files=files, drop=("episode_index", "index"))
    assert pairs(Dataset(src)) == [(i, i) for i in range(40, 150)]


def test_an_episode_that_the_table_sends_to_another_file_is_refused(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src", files={1: 1, 2: 1})
    data, report = bring("lerobot", src, tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in [*range(40), *range(90, 150)]]
    (note,) = report.notes
    assert "file-001.parquet: episode 1 has rows of another episode: the file has those of 2" in note
    with pytest.raises(DataError, match="episode 1 has rows of another episode"):
        Dataset(src).clip(1)
    assert any("episode 1 has rows of another episode" in line for line in problems(Dataset(src)))


def test_rows_in_another_order_are_read_by_their_number(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src")
    table = pq.read_table(src / ROWS)
    pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(150))), src / ROWS)
    assert pairs(Dataset(src)) == pairs(bring("lerobot", src, tmp_path / "dst")[0]) == [(i, i) for i in range(150)]


@pytest.mark.parametrize(
    ("column", "row", "value", "text"),
    [
        ("frame_index", 60, 7, r"episode 1 has rows that are missing or out of order: row \d+ has frame_index"),
        ("index", 60, 61, r"episode 1 has rows of another episode: row 60 has index 61, the episode table says 60"),
        ("timestamp", 60, 1.4, r"episode 1 has rows of another time: row 60 has timestamp 1.4, frame 20 at 25"),
        ("timestamp", 60, float("nan"), r"episode 1 has rows of another time: row 60"),
        ("episode_index", 60, 2, r"has 49 rows for episode 1, needs 50"),
        ("action", 60, [0.0, float("nan"), 0.0], r"episode 1 has actions that are not numbers, frame 20"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(
    tmp_path: Path, column: str, row: int, value: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    src = lerobot_set(tmp_path / "src")
    change(src / ROWS, lambda columns: columns[column].__setitem__(row, value))
    with pytest.raises(DataError, match=rf"file-000.parquet: {text}"):
        Dataset(src).clip(1)
    assert len(Dataset(src).clip(0).frames) == 40, "the others are sound"
    assert main(["data", "check", str(src)]) == 2
    assert "file-000.parquet" in capsys.readouterr().err
    if column != "action":  # the importer leaves that frame out, and says so
        loader = ClipLoader(Dataset(src), clip_frames=50, batch=8, workers=0)
        with pytest.raises(DataError, match=r"file-000\.parquet"):
            list(islice(loader, 4))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("length", 0, "episode 1: length must be 1 or more, got 0"),
        ("length", None, "episode 1: length must be 1 or more, got None"),
        ("data/file_index", -1, "episode 1: file_index must be 0 or more, got -1"),
        (f"videos/{FRONT}/from_timestamp", float("nan"), "episode 1: from_timestamp must be 0 or more, got nan"),
        ("episode_index", 2, "episode 2 is listed twice"),
    ],
)
def test_an_episode_table_that_cannot_be_is_refused(tmp_path: Path, column: str, value: object, text: str) -> None:
    src = lerobot_set(tmp_path / "src")
    change(src / TABLE, lambda columns: columns[column].__setitem__(1, value))
    with pytest.raises(DataError, match=text):
        Dataset(src)


def test_two_episodes_that_are_to_show_the_same_frames_are_refused(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src")
    change(src / TABLE, lambda columns: columns[f"videos/{FRONT}/from_timestamp"].__setitem__(1, 0.8))
    with pytest.raises(DataError, match="gives frames of it to episode 1 and to episode 0; mend its from_timestamp"):
        Dataset(src).clip(1)
    data, report = bring("lerobot", src, tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in range(90, 150)]
    assert sum("both are left out" in note for note in report.notes) == 2


def test_another_rate_than_a_training_takes_is_refused(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src", fps=50)
    with pytest.raises(DataError, match="has 50 frames a second, needs 25; bring it in with `reverie import lerobot"):
        ClipLoader(Dataset(src), clip_frames=5, batch=1, workers=0)
    check_rate(bring("lerobot", src, tmp_path / "dst")[0])


def test_rates_that_are_not_whole(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src", fps=29.97)
    assert pairs(Dataset(src)) == [(i, i) for i in range(150)]


@pytest.mark.parametrize("change_to", [[], {"features": 3}, {"features": {"action": 3}}, {"fps": "25"}, {"fps": 1e999}])
def test_descriptions_of_another_kind_are_one_line(tmp_path: Path, change_to: Any) -> None:
    src = lerobot_set(tmp_path / "src")
    info = json.loads((src / "meta/info.json").read_text())
    (src / "meta/info.json").write_text(json.dumps({**info, **change_to} if change_to else []))
    for read in (Dataset, lambda path: bring("lerobot", path, tmp_path / "dst")):
        with pytest.raises(DataError, match="meta"):
            read(src)
