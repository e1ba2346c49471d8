"""Imports that are repeated: takes are known by what their files hold and by the options, never by a name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.helpers.import_samples import (
    FRONT,
    actions_by_frame,
    bring,
    encode,
    lerobot_set,
    numbers,
    pairs,
    rows,
    scene,
)

from reverie.data import removal
from reverie.data.audit import problems
from reverie.data.dataset import Dataset
from reverie.data.writer import DatasetWriter
from reverie.errors import DataError
from reverie.types import FPS


def day(folder: Path, first: int, frames: int = 60, name: str = "walk") -> Path:
    """A folder with one video, whose frames are numbered from `first` on, and its table."""
    encode(folder / f"{name}.mp4", scene(np.zeros(first + frames))[first:])
    actions_by_frame(folder / f"{name}.csv", frames)
    return folder


def jumps(data: Dataset) -> list[list[int]]:
    return [np.flatnonzero(rows(data, "key.jump", index)).tolist() for index in range(data.num_episodes)]


def importer(root: Path) -> dict:
    return json.loads((root / "meta/reverie.json").read_text())


def test_files_of_the_same_name_are_not_the_same(tmp_path: Path) -> None:
    bring("folder", day(tmp_path / "monday", 0), tmp_path / "dst")
    data, report = bring("folder", day(tmp_path / "tuesday", 200), tmp_path / "dst")
    assert report.episodes == 1
    assert [numbers(data.clip(i).frames)[0] for i in range(2)] == [0, 200]
    notes = importer(tmp_path / "dst")
    assert [Path(one["src"]).name for one in notes["imports"]] == ["monday", "tuesday"]


def test_the_same_files_under_other_names_are_the_same(tmp_path: Path) -> None:
    src = day(tmp_path / "src", 0)
    bring("folder", src, tmp_path / "dst")
    (tmp_path / "moved").mkdir()
    for path in src.iterdir():
        path.rename(tmp_path / "moved" / f"run{path.suffix}")
    data, report = bring("folder", tmp_path / "moved", tmp_path / "dst")
    assert (data.num_episodes, report.episodes) == (1, 0)
    assert report.outcomes[0].dropped == {"there already": 60}
    assert Path(importer(tmp_path / "dst")["importer"]["src"]).name == "src", "what brought nothing in is no source"


def test_a_table_that_was_mended_is_another_take(tmp_path: Path) -> None:
    src = day(tmp_path / "src", 0)
    bring("folder", src, tmp_path / "dst")
    actions_by_frame(src / "walk.csv", 60, jump=30)
    data, _ = bring("folder", src, tmp_path / "dst")
    assert jumps(data) == [[20], [30]]


def test_other_options_replace_what_was_imported_before(tmp_path: Path) -> None:
    src = day(day(tmp_path / "src", 0, name="a"), 100, name="b")
    bring("folder", src, tmp_path / "dst")
    assert jumps(Dataset(tmp_path / "dst")) == [[20], [20]]
    day(tmp_path / "other", 300)
    bring("folder", tmp_path / "other", tmp_path / "dst")
    data, report = bring("folder", src, tmp_path / "dst", late_frames=3)
    assert [numbers(data.clip(i).frames)[0] for i in range(3)] == [300, 3, 103]
    assert jumps(data) == [[20], [20], [20]], "counted from the episode's first frame, 3"
    assert sum("replaces 1 episodes imported with other options" in note for note in report.notes) == 2
    assert problems(data) == []
    imports = importer(tmp_path / "dst")["imports"]
    assert [(Path(one["src"]).name, one["late_frames"]) for one in imports] == [("src", 0), ("other", 0), ("src", 3)]
    _, report = bring("folder", src, tmp_path / "dst", late_frames=3)
    assert report.episodes == 0
    assert report.notes == []


def test_nothing_is_replaced_by_nothing(tmp_path: Path) -> None:
    src = day(tmp_path / "src", 0)
    bring("folder", src, tmp_path / "dst")
    data, report = bring("folder", src, tmp_path / "dst", min_episode_seconds=30.0)
    assert jumps(data) == [[20]]
    assert any(
        "none of it could be imported with these options; 1 episodes with others are kept" in n for n in report.notes
    )


def test_two_files_that_hold_the_same_are_both_there_and_known(tmp_path: Path) -> None:
    src = day(tmp_path / "src", 0)
    for path in list(src.iterdir()):
        shutil.copy(path, src / f"copy{path.suffix}")
    data, report = bring("folder", src, tmp_path / "dst")
    assert data.num_episodes == 2
    assert any("walk.mp4 holds the same as copy.mp4" in note for note in report.notes)
    assert bring("folder", src, tmp_path / "dst")[1].episodes == 0


def test_lerobot_datasets_are_told_apart_and_may_grow(tmp_path: Path) -> None:
    first = lerobot_set(tmp_path / "first", (40, 50))
    bring("lerobot", first, tmp_path / "dst")
    other = lerobot_set(tmp_path / "other", (50, 40))
    data, report = bring("lerobot", other, tmp_path / "dst")
    assert (data.num_episodes, report.episodes) == (4, 2), "all of them are called episode 0 and 1"
    grown = lerobot_set(tmp_path / "grown", (40, 50, 60), g="10", sc_threshold="0")
    same = lerobot_set(tmp_path / "same", (40, 50), g="10", sc_threshold="0")
    bring("lerobot", same, tmp_path / "set")
    data, report = bring("lerobot", grown, tmp_path / "set")
    assert pairs(data)[-60:] == [(i, i) for i in range(90, 150)]
    assert report.outcomes[0].dropped == {"there already": 40}, "an episode is known in a file that has grown"


def test_what_an_older_version_imported_is_not_mixed_with(tmp_path: Path) -> None:
    src = day(tmp_path / "src", 0)
    bring("folder", src, tmp_path / "dst")
    path = tmp_path / "dst/meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop(["source_content", "source_options"]), path)
    with pytest.raises(DataError, match=r"an older version imported, .* import into another folder"):
        bring("folder", src, tmp_path / "dst")
    with pytest.raises(DataError, match="an older version imported"):  # and the lock was given back
        bring("folder", src, tmp_path / "dst")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of 30, 40, 50 and 60 frames, numbered from 0 on."""
    folder, first = tmp_path_factory.mktemp("recorded"), 0
    for number, length in enumerate((30, 40, 50, 60)):
        day(folder / "src", first, length, f"{number}")
        first += length
    bring("folder", folder / "src", folder / "set")
    return folder / "set"


@pytest.fixture
def root(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "set"))


def content(root: Path) -> list[tuple[int, int, int]]:
    """(first number, length, first index) of each episode."""
    data = Dataset(root)
    assert problems(data) == []
    return [(numbers(data.clip(i, 0, 1).frames)[0], one.length, one.from_index) for i, one in enumerate(data.episodes)]


@pytest.mark.parametrize(
    ("out", "left"),
    [
        ([1], [(0, 30, 0), (70, 50, 30), (120, 60, 80)]),
        ([0, 2], [(30, 40, 0), (120, 60, 40)]),
        ([3], [(0, 30, 0), (30, 40, 30), (70, 50, 70)]),
    ],
)
def test_episodes_are_taken_out_and_the_others_move_up(tmp_path: Path, root: Path, out: list[int], left: list) -> None:
    space = Dataset(root).action_space
    with DatasetWriter(root, space, (64, 112), FPS) as writer:
        writer.remove(out)
        assert len(writer.rows) == len(left)
    assert content(root) == left
    table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    stats = json.loads((root / "meta/stats.json").read_text())
    assert stats["index"]["max"] == [sum(length for _, length, _ in left) - 1]
    assert [row["stats/episode_index/min"] for row in table] == [[index] for index in range(len(left))]
    _, report = bring("folder", day(tmp_path / "more", 400), root)
    assert report.episodes == 1
    assert content(root)[:-1] == left


@pytest.mark.parametrize("killed_at", range(9))
def test_killed_while_taking_out_is_before_or_after(
    root: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between any two steps leaves what the next writer makes whole again."""
    steps = [0]

    class Killed(BaseException):
        pass

    def counted(call):
        def step(*args, **kwargs):
            steps[0] += 1
            if steps[0] > killed_at:
                raise Killed
            return call(*args, **kwargs)

        return step

    before, after = content(root), [(0, 30, 0), (70, 50, 30), (120, 60, 80)]
    space = Dataset(root).action_space
    writer = DatasetWriter(root, space, (64, 112), FPS)
    with monkeypatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(removal.os, name, counted(getattr(os, name)))
        patch.setattr(removal.shutil, "rmtree", counted(shutil.rmtree))
        patch.setattr(removal, "_link", counted(removal._link))
        with contextlib.suppress(Killed):
            writer.remove([1])
    os.close(writer._lock)  # as the system does for a process that is killed
    with DatasetWriter(root, space, (64, 112), FPS):
        pass
    assert content(root) in (before, after)
    assert not (root / removal.NEXT).exists()


def test_a_flipped_bit_in_the_rows_is_found(root: Path) -> None:
    path = root / "data/chunk-000/file-001.parquet"
    whole = path.read_bytes()
    wanted = Dataset(root).clip(1).actions
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(4, len(whole), 100):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            table = Dataset(root).rows(1)
        except DataError:
            refused += 1
            continue
        got = np.array(table.column("action").to_pylist(), np.float32)
        np.testing.assert_array_equal(got, wanted, err_msg=f"a bit of byte {place} changed the actions silently")
    assert refused > 50


def test_the_video_of_a_lerobot_episode_decides_too(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src", (40, 50))
    bring("lerobot", src, tmp_path / "dst")
    video = src / f"videos/{FRONT}/chunk-000/file-000.mp4"
    encode(video, scene(np.zeros(300))[200:290])
    data, report = bring("lerobot", src, tmp_path / "dst")
    assert report.episodes == 2
    assert [numbers(data.clip(i, 0, 1).frames) for i in range(4)] == [[0], [40], [200], [240]]
