from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reverie.cli import main
from reverie.data.audit import examine, open_dataset, problems, world_of
from reverie.data.dataset import Dataset


@pytest.fixture
def copy(toy_dataset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_dataset_path, tmp_path / "copy"))


def rewrite(path: Path, column: str, make: Callable[[int], list[Any]]) -> None:
    table = pq.read_table(path)
    index = table.column_names.index(column)
    values = pa.array(make(table.num_rows), table.schema.field(column).type)
    pq.write_table(table.set_column(index, column, values), path)


def test_a_sound_dataset_has_no_problems(toy_dataset_path: Path) -> None:
    dataset = open_dataset(toy_dataset_path)
    assert problems(dataset) == []
    assert world_of(dataset) == "toy"
    assert len(list(examine(dataset, limit=2))) == 2


def test_damage_is_listed_by_file_and_episode(copy: Path) -> None:
    next(copy.glob("videos/*/*/file-000.mp4")).write_bytes(b"")
    rewrite(copy / "data/chunk-000/file-001.parquet", "action", lambda length: [[0.5] * 6] * length)
    rewrite(copy / "data/chunk-000/file-002.parquet", "frame_index", lambda length: [*range(length - 1), 77])
    found = problems(Dataset(copy))
    assert len(found) == 3, found
    assert "file-000.mp4" in found[0]
    assert "file-001.parquet: episode 1 has keys that are neither 0 nor 1" in found[1]
    assert "file-002.parquet: episode 2 has rows that are missing or out of order" in found[2]


def test_totals_that_disagree_are_told(copy: Path) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    (copy / "meta/info.json").write_text(json.dumps({**info, "total_frames": 7}))
    assert "total_frames is 7, the episode table has " in problems(Dataset(copy))[0]


def test_the_command_says_what_is_damaged(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(copy)]) in (0, 1)
    total = Dataset(copy).num_episodes
    assert f"{total} of {total} episodes checked" in capsys.readouterr().out
    video = next(copy.glob("videos/*/*/file-001.mp4"))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 3])
    rows = copy / "data/chunk-000/file-002.parquet"
    rows.write_bytes(rows.read_bytes()[:-200])
    assert main(["data", "check", str(copy)]) == 2
    error = capsys.readouterr().err
    assert "damaged: " in error
    assert "file-001.mp4: not a readable video" in error
    assert "file-002.parquet: not a readable parquet file" in error


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"codebase_version": "v2.1"}, "LeRobot version v2.1, needs v3.0"),
        ({"features": {"action": {"names": ["key.forward"]}}}, "has no video"),
        ({"fps": 0}, "fps must be positive"),
    ],
)
def test_folders_of_another_kind(copy: Path, change: dict, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    (copy / "meta/info.json").write_text(json.dumps({**info, **change}))
    assert main(["data", "check", str(copy)]) == 2
    assert text in capsys.readouterr().err


def test_malformed_descriptions_are_one_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    del info["features"]["observation.images.screen"]["shape"]
    (copy / "meta/info.json").write_text(json.dumps(info))
    assert main(["data", "check", str(copy)]) == 2
    assert "a malformed description" in capsys.readouterr().err


def test_bad_requests(tmp_path: Path, toy_dataset_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "none")]) == 2
    assert "no dataset at" in capsys.readouterr().err
    assert main(["data", "check", str(toy_dataset_path), "--episodes", "0"]) == 2
    assert "episodes must be at least 1" in capsys.readouterr().err
