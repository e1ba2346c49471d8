import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reverie.data.dataset import DATA_PATH, EPISODES_PATH, VIDEO_KEY, VIDEO_PATH, Dataset
from reverie.data.video import read_video, write_video
from reverie.errors import DataError

VIDEO = VIDEO_PATH.format(video_key=VIDEO_KEY, chunk_index=0, file_index=1)
ROWS = DATA_PATH.format(chunk_index=0, file_index=1)


@pytest.fixture
def copy(toy_dataset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_dataset_path, tmp_path / "copy"))


def change_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_a_dataset_tells(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    assert (data.num_episodes, data.num_frames, data.fps, data.resolution) == (3, 120, 25, (32, 48))
    assert data.action_space.names[-1] == "mouse.yaw"
    assert [episode.index for episode in data.episodes] == [0, 1, 2]
    assert not data.episodes[0].is_heldout


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, 40), (11, 3), (12, 12), (13, 27), (39, 1)])
def test_a_clip_is_that_part_of_the_episode(toy_dataset_path: Path, start: int, length: int) -> None:
    data = Dataset(toy_dataset_path)
    whole, clip = data.clip(1), data.clip(1, start, length)
    np.testing.assert_array_equal(clip.frames, whole.frames[start : start + length])
    np.testing.assert_array_equal(clip.actions, whole.actions[start : start + length])
    assert clip.actions.dtype == np.float32
    assert clip.poses is not None
    assert clip.poses.shape == (length, 6)


def test_the_files_are_as_lerobot_v3_wants_them(toy_dataset_path: Path) -> None:
    info = json.loads((toy_dataset_path / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["total_frames"] == 120
    assert info["features"][VIDEO_KEY]["dtype"] == "video"
    rows = pq.read_table(toy_dataset_path / ROWS)
    assert rows.schema.field("action").type == pa.list_(pa.float32(), 6)
    for name in ("frame_index", "episode_index", "index", "task_index"):
        assert rows.schema.field(name).type == pa.int64()
    assert rows.schema.field("timestamp").type == pa.float32()
    assert rows["index"][0].as_py() == 40
    episodes = pq.read_table(toy_dataset_path / EPISODES_PATH).to_pylist()
    assert episodes[1]["tasks"] == ["explore toy"]
    assert (episodes[1]["dataset_from_index"], episodes[1]["dataset_to_index"]) == (40, 80)
    assert episodes[1][f"videos/{VIDEO_KEY}/to_timestamp"] == pytest.approx(1.6)
    assert episodes[1]["stats/action/count"] == [40]
    stats = json.loads((toy_dataset_path / "meta/stats.json").read_text())
    assert np.shape(stats[VIDEO_KEY]["mean"]) == (3, 1, 1)
    assert len(stats["action"]["std"]) == 6
    tasks = pq.read_table(toy_dataset_path / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_many_episodes_in_one_file_are_read(toy_dataset_path: Path, tmp_path: Path) -> None:
    """As lerobot packs them: one data file, one video, episodes told apart by index and time."""
    data = Dataset(toy_dataset_path)
    clips = [data.clip(i) for i in range(3)]
    root = tmp_path / "packed"
    shutil.copytree(toy_dataset_path / "meta", root / "meta")
    video, rows = root / VIDEO.replace("001", "000"), root / ROWS.replace("001", "000")
    video.parent.mkdir(parents=True)
    rows.parent.mkdir(parents=True)
    write_video(video, np.concatenate([clip.frames for clip in clips]), 25)
    pq.write_table(pa.concat_tables([data.rows(i) for i in range(3)]), rows)
    table = pq.read_table(root / EPISODES_PATH).to_pylist()
    for i, row in enumerate(table):
        row["data/file_index"] = row[f"videos/{VIDEO_KEY}/file_index"] = 0
        row[f"videos/{VIDEO_KEY}/from_timestamp"] = i * 1.6
    pq.write_table(pa.Table.from_pylist(table), root / EPISODES_PATH)
    packed = Dataset(root)
    for i, clip in enumerate(clips):
        got = packed.clip(i, 5, 20)
        np.testing.assert_array_equal(got.actions, clip.actions[5:25])
        assert np.abs(got.frames.astype(int) - clip.frames[5:25]).mean() < 6


def test_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset at .*info.json is missing"):
        Dataset(tmp_path / "nothing")


def test_dataset_without_episodes(copy: Path) -> None:
    shutil.rmtree(copy / "meta/episodes")
    with pytest.raises(DataError, match="no episodes yet"):
        Dataset(copy)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_truncated_video(copy: Path, keep: float) -> None:
    video = copy / VIDEO
    video.write_bytes(video.read_bytes()[: int(keep * video.stat().st_size)])
    data = Dataset(copy)
    data.clip(0)
    with pytest.raises(DataError, match=r"file-001.mp4: .*record it again"):
        data.clip(1)


def test_short_and_missing_video(copy: Path) -> None:
    data = Dataset(copy)
    write_video(copy / VIDEO, data.clip(1).frames[:30], 25)
    with pytest.raises(DataError, match=r"file-001.mp4: ends after 30 frames, needs 40"):
        data.clip(1)
    (copy / VIDEO).unlink()
    with pytest.raises(DataError, match=r"file-001.mp4: the video is missing"):
        data.clip(1)


def test_wrong_resolution(copy: Path) -> None:
    write_video(copy / VIDEO, np.zeros((40, 48, 32, 3), np.uint8), 25)
    with pytest.raises(DataError, match=r"file-001.mp4: pictures of 48x32, meta/info.json says 32x48"):
        Dataset(copy).clip(1)


def test_missing_column_and_rows(copy: Path) -> None:
    table = pq.read_table(copy / ROWS)
    pq.write_table(table.drop(["action"]), copy / ROWS)
    with pytest.raises(DataError, match=r"file-001.parquet: the column action is missing"):
        Dataset(copy).clip(1)
    pq.write_table(table.slice(0, 30), copy / ROWS)
    with pytest.raises(DataError, match=r"file-001.parquet: has 30 rows for episode 1, needs 40"):
        Dataset(copy).clip(1)
    (copy / ROWS).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"file-001.parquet: not a readable parquet file"):
        Dataset(copy).clip(1)


def test_missing_episode_column(copy: Path) -> None:
    table = pq.read_table(copy / EPISODES_PATH)
    pq.write_table(table.drop(["length"]), copy / EPISODES_PATH)
    with pytest.raises(DataError, match="the column length is missing"):
        Dataset(copy)


def test_other_version_and_other_actions(copy: Path) -> None:
    change_info(copy, codebase_version="v2.1")
    with pytest.raises(DataError, match=r"info.json: LeRobot version v2.1, needs v3.0"):
        Dataset(copy)
    change_info(copy, codebase_version="v3.0")
    info = json.loads((copy / "meta/info.json").read_text())
    info["features"]["action"]["names"] = ["shoulder", "elbow"]
    change_info(copy, features=info["features"])
    with pytest.raises(DataError, match=r"info.json: action dimensions must be key"):
        _ = Dataset(copy).action_space
    (copy / "meta/info.json").write_text("{")
    with pytest.raises(DataError, match=r"info.json: not a LeRobot info file"):
        Dataset(copy)


def test_stretches_outside_an_episode(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    with pytest.raises(DataError, match="no episode 3"):
        data.clip(3)
    for start, length in ((30, 11), (-1, 5), (0, 0)):
        with pytest.raises(DataError, match="episode 0 has 40 frames"):
            data.clip(0, start, length)


def test_video_round_trip_is_close(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frames = np.stack([np.broadcast_to(np.roll(ramp, i)[:, None], (64, 3)) for i in range(30)])
    frames = np.ascontiguousarray(np.broadcast_to(frames[:, None], (30, 32, 64, 3)))
    write_video(tmp_path / "a.mp4", frames, 25)
    back = read_video(tmp_path / "a.mp4", 7, 9, 25, (32, 64))
    assert np.abs(back.astype(int) - frames[7:16]).mean() < 4
