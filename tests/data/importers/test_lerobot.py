from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.import_samples import after, bring, lerobot_set, numbers, rows, scene, shaking, write

from reverie.data.dataset import Dataset
from reverie.errors import DataError


def foreign(root: Path, rate: float = 50.0, names: object = ("drive", "jump", "pan")) -> np.ndarray:
    """A dataset of somebody else: two episodes in one video and one table, a second camera, radians."""
    lengths = (100, 80)
    yaw = shaking(sum(lengths))
    write(root / "videos/observation.images.front/chunk-000/file-000.mp4", scene(after(yaw)), rate)
    table = {
        "action": pa.array([[1.0, float(i % 2), float(np.radians(turn))] for i, turn in enumerate(yaw)]),
        "frame_index": pa.array([i for length in lengths for i in range(length)]),
    }
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(table), root / "data/chunk-000/file-000.parquet")
    key = "videos/observation.images.front"
    episodes = [
        {"episode_index": i, "length": length, "data/chunk_index": 0, "data/file_index": 0,
         "dataset_from_index": i * lengths[0], f"{key}/chunk_index": 0, f"{key}/file_index": 0,
         f"{key}/from_timestamp": i * lengths[0] / rate}
        for i, length in enumerate(lengths)
    ]  # fmt: skip
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    video = {"dtype": "video", "shape": [64, 112, 3], "names": ["height", "width", "channels"]}
    features = {
        "observation.images.front": video,
        "observation.images.side": video,
        "action": {"dtype": "float32", "shape": [3], "names": names},
    }
    info = {"codebase_version": "v3.0", "fps": rate, "features": features}
    (root / "meta/info.json").write_text(json.dumps(info))
    return yaw


MAP = ("drive=key.forward", "jump=key.jump", "pan=mouse.yaw*57.29578")


def test_a_foreign_dataset_with_a_mapping(tmp_path: Path) -> None:
    yaw = foreign(tmp_path / "src")
    data, _ = bring("lerobot", tmp_path / "src", tmp_path / "dst", map=MAP, video_key="observation.images.front")
    assert data.num_episodes == 2
    assert data.action_space.names == ("key.forward", "key.jump", "mouse.pitch", "mouse.yaw")
    heading = after(yaw).cumsum()
    for index, part in ((0, slice(0, 100)), (1, slice(100, 180))):
        np.testing.assert_allclose(rows(data, "mouse.yaw", index).sum(), yaw[part].sum(), atol=1e-2)
        shown = numbers(data.clip(index).frames)
        assert shown[0] == part.start
        np.testing.assert_allclose(np.diff(heading[shown]), rows(data, "mouse.yaw", index)[:-1], atol=1e-2)
    assert rows(data, "key.forward").all()


@pytest.mark.parametrize("names", [None, {"motors": ["drive", "jump", "pan"]}])
def test_dimensions_without_names_or_under_another_name(tmp_path: Path, names: object) -> None:
    foreign(tmp_path / "src", names=names)
    wishes = ("0=key.forward",) if names is None else ("drive=key.forward",)
    data, _ = bring("lerobot", tmp_path / "src", tmp_path / "dst", map=wishes, video_key="observation.images.front")
    assert data.action_space.names == ("key.forward",)


def test_our_own_datasets_come_through_unchanged(tmp_path: Path, toy_dataset_path: Path) -> None:
    ours = Dataset(toy_dataset_path)
    data, _ = bring("lerobot", toy_dataset_path, tmp_path / "dst", resolution=ours.resolution)
    assert data.action_space == ours.action_space
    assert data.num_frames == ours.num_frames
    data.require_poses()
    for index in range(ours.num_episodes):
        before, now = ours.clip(index), data.clip(index)
        np.testing.assert_allclose(now.actions, before.actions, atol=1e-5)
        np.testing.assert_allclose(now.poses, before.poses)
        assert np.abs(now.frames.astype(int) - before.frames).mean() < 4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, r"say what they are, as in --map drive=key.forward"),
        ({"map": ("wheel=key.left",)}, r"--map wheel=key.left: must be NAME=key.KEY"),
        ({"map": ("pan=mouse.yaw*far",)}, r"the factor 'far' is not a number"),
        ({"map": MAP, "video_key": "rear"}, r"has no video 'rear'"),
        ({"map": MAP, "video_key": None}, r"needs the video observation.images.screen"),
    ],
)
def test_bad_requests(tmp_path: Path, options: dict, text: str) -> None:
    foreign(tmp_path / "src")
    with pytest.raises(DataError, match=text):
        bring("lerobot", tmp_path / "src", tmp_path / "dst", **{"video_key": "observation.images.front", **options})
    assert not (tmp_path / "dst").exists()


def test_rows_that_are_not_numbers_and_an_early_end(tmp_path: Path) -> None:
    yaw = foreign(tmp_path / "src")
    path = tmp_path / "src/data/chunk-000/file-000.parquet"
    table = pq.read_table(path).to_pydict()
    table["action"][50][2] = float("nan")
    pq.write_table(pa.table(table), path)
    write(tmp_path / "src/videos/observation.images.front/chunk-000/file-000.mp4", scene(after(yaw))[:150], 50)
    data, report = bring("lerobot", tmp_path / "src", tmp_path / "dst", map=MAP, video_key="observation.images.front")
    notes = "\n".join(report.notes)
    assert "file-000.parquet: row 50: not a number" in notes
    assert "has 80 rows, the video ends after 50 frames" in notes
    assert data.num_episodes == 3


@pytest.mark.parametrize("name", ["data_path", "video_path"])
@pytest.mark.parametrize(
    "pattern",
    ["../other/{chunk_index:03d}", "/etc/passwd", "data/../../other", "{chunk_index:99999999999}d", "", ".",
     "{chunk_index.__class__}", "{chunk_index!r:>999999999}", "data/{}", "data/{chunk_index"],
)  # fmt: skip
def test_paths_that_lead_out_of_the_dataset(tmp_path: Path, name: str, pattern: str) -> None:
    """Somebody else's dataset names files of its own, and none of whoever reads it."""
    src = lerobot_set(tmp_path / "src", (10,))
    info = json.loads((src / "meta/info.json").read_text())
    (src / "meta/info.json").write_text(json.dumps({**info, name: pattern}))
    with pytest.raises(DataError, match=r"info.json: the path .* is none inside the dataset"):
        Dataset(src)


def test_an_episode_as_long_as_a_number_can_say(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src", (10,), drop=("episode_index",))
    table = src / "meta/episodes/chunk-000/file-000.parquet"
    row = pq.read_table(table).to_pylist()[0]
    pq.write_table(pa.Table.from_pylist([{**row, "length": 10**15}]), table)
    with pytest.raises(DataError, match="has 10 rows for episode 0, needs 1000000000000000"):
        Dataset(src).rows(0)


def test_another_version_is_refused(tmp_path: Path) -> None:
    foreign(tmp_path / "src")
    info = json.loads((tmp_path / "src/meta/info.json").read_text())
    (tmp_path / "src/meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(DataError, match=r"LeRobot version v1\.6"):
        bring("lerobot", tmp_path / "src", tmp_path / "dst")
