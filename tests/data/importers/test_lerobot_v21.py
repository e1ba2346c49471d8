"""Version 2.1 of LeRobot's layout: an episode a file, as public sets of games have it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.import_samples import SIZE, after, bring, jsonl, numbers, rows, scene, shaking, write

from reverie.data.dataset import Dataset
from reverie.errors import DataError

VIDEO = "observation.images.pov"
LENGTHS = (60, 45, 50)
NAMES = ["forward", "back", "jump", "camera_yaw", "camera_pitch"]
MAP = ("forward=key.forward", "jump=key.jump", "camera_yaw=mouse.yaw*0.5")
RATE = 20


def sample(root: Path, chunks_size: int = 2, names: object = NAMES) -> list[np.ndarray]:
    """Three episodes at 20 frames a second in chunks of two; returns what each turns."""
    turns = [shaking(length, seed) for seed, length in enumerate(LENGTHS)]
    begin = 0
    for index, turned in enumerate(turns):
        chunk, length = f"chunk-{index // chunks_size:03d}", len(turned)
        action = np.stack([np.arange(length) % 2, np.zeros(length), np.zeros(length), 2 * turned, np.zeros(length)], 1)
        columns = {
            "observation.state": pa.array([[0.0] * 6] * length, pa.list_(pa.float32())),
            "action": pa.array(action.tolist(), pa.list_(pa.float32())),
            "timestamp": pa.array((np.arange(length) / RATE).astype(np.float32)),
            "frame_index": pa.array(np.arange(length)),
            "episode_index": pa.array(np.full(length, index)),
            "index": pa.array(np.arange(begin, begin + length)),
            "task_index": pa.array(np.zeros(length, np.int64)),
        }
        (root / "data" / chunk).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), root / "data" / chunk / f"episode_{index:06d}.parquet")
        write(root / "videos" / chunk / VIDEO / f"episode_{index:06d}.mp4", scene(after(turned)), RATE)
        begin += length
    listed = [{"episode_index": i, "tasks": ["craft a table"], "length": length} for i, length in enumerate(LENGTHS)]
    jsonl(root / "meta/episodes.jsonl", listed)
    jsonl(root / "meta/tasks.jsonl", [{"task_index": 0, "task": "craft a table"}])
    features = {
        VIDEO: {"dtype": "video", "shape": [*SIZE, 3], "names": ["height", "width", "channel"]},
        "observation.state": {"dtype": "float32", "shape": [6], "names": ["pitch", "yaw", "cx", "cy", "bar", "gui"]},
        "action": {"dtype": "float32", "shape": [5], "names": names},
    }
    info = {
        "codebase_version": "v2.1", "robot_type": "minecraft", "total_episodes": 3, "total_frames": sum(LENGTHS),
        "chunks_size": chunks_size, "fps": RATE, "splits": {"train": "0:3"}, "features": features,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    return turns


@pytest.mark.parametrize(
    "names", [NAMES, [NAMES], {"motors": NAMES}, {name: place for place, name in enumerate(NAMES)}]
)
def test_every_episode_arrives_with_its_own_rows(tmp_path: Path, names: object) -> None:
    turns = sample(tmp_path / "src", names=names)
    data, report = bring("lerobot", tmp_path / "src", tmp_path / "dst", map=MAP)
    assert (data.num_episodes, report.notes) == (3, [])
    for index, turned in enumerate(turns):
        heading, shown = after(turned).cumsum(), numbers(data.clip(index).frames)
        assert shown[0] == 0
        assert shown[-1] >= LENGTHS[index] - 2  # the last moment of 25 a second may be nearer to the one before
        np.testing.assert_allclose(np.diff(heading[shown]), rows(data, "mouse.yaw", index)[:-1], atol=1e-3)
    held = rows(data, "key.forward")
    odd = np.array(numbers(data.clip(0).frames)) % 2 == 1
    np.testing.assert_array_equal(held[:-1] > 0, odd[:-1])  # the last row may hold two of theirs


def test_rows_are_found_by_their_frame_index_not_by_their_order(tmp_path: Path) -> None:
    sample(tmp_path / "a")
    sample(tmp_path / "b")
    path = tmp_path / "b/data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows))), path)
    before, now = (bring("lerobot", tmp_path / one, tmp_path / f"to-{one}", map=MAP)[0].clip(1) for one in "ab")
    np.testing.assert_array_equal(now.actions, before.actions)


def edit(path: Path, name: str, row: int, value: Any) -> None:
    table = pq.read_table(path).to_pydict()
    table[name][row] = value
    pq.write_table(pa.table(table), path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("episode_index", 2, r"episode_000001\.parquet: has 44 rows for episode 1, needs 45"),
        ("frame_index", 8, r"rows that are missing or out of order: row \d+ has frame_index 8, needs 7"),
        ("timestamp", 5.0, r"rows of another time: row 7 has timestamp 5, frame 7 at 20 a second is at 0\.350 s"),
        ("index", 3, r"rows of another episode: row 7 has index 3, the episode table says 67"),
    ],
)
def test_a_row_that_contradicts_refuses_its_episode(tmp_path: Path, name: str, value: Any, says: str) -> None:
    sample(tmp_path / "src")
    edit(tmp_path / "src/data/chunk-000/episode_000001.parquet", name, 7, value)
    data, report = bring("lerobot", tmp_path / "src", tmp_path / "dst", map=MAP)
    assert data.num_episodes == 2
    assert re.search(says, "\n".join(report.notes))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"episode_index": 2, "length": 45}', r"episodes\.jsonl: row 2: episode_index is 2, expected 1"),
        ('{"episode_index": 1, "length": 0}', r"row 2: length must be 1 or more, got 0"),
        ('{"episode_index": 1}', r"row 2: needs episode_index and length"),
        ("{", r"row 2: needs episode_index and length"),
    ],
)
def test_a_list_of_episodes_that_cannot_be(tmp_path: Path, line: str, says: str) -> None:
    sample(tmp_path / "src")
    path = tmp_path / "src/meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[2]]) + "\n")
    with pytest.raises(DataError, match=says):
        bring("lerobot", tmp_path / "src", tmp_path / "dst", map=MAP)
    assert not (tmp_path / "dst").exists()


def test_an_episode_without_its_files_is_noted(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    (tmp_path / "src/data/chunk-000/episode_000000.parquet").unlink()
    (tmp_path / f"src/videos/chunk-000/{VIDEO}/episode_000001.mp4").unlink()
    data, report = bring("lerobot", tmp_path / "src", tmp_path / "dst", map=MAP)
    notes = "\n".join(report.notes)
    assert data.num_episodes == 1
    assert "episode_000000.parquet" in notes
    assert "episode_000001.mp4" in notes


def test_what_trains_needs_version_3_and_says_how(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    with pytest.raises(
        DataError, match=r"LeRobot version v2\.1, needs v3\.0; bring it in with `reverie import lerobot"
    ):
        Dataset(tmp_path / "src")
