"""Depth and poses on disk: encoding, round trips, older recordings, and writers that are killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.helpers.toy_world import record_toy, toy_config

from reverie.data.audit import examine
from reverie.data.dataset import Dataset
from reverie.data.depth import DepthRecord, decode_depth, encode_depth
from reverie.data.live import RecordedWorld, open_writer
from reverie.data.poses import conversion_for
from reverie.data.record import record
from reverie.data.writer import DatasetWriter
from reverie.errors import DataError
from reverie.types import GEOMETRY_SHAPE, POSE_NAMES, Action, Geometry, RecordableWorld
from reverie.worlds import WORLDS, WorldInfo
from reverie.worlds.yard import Yard

FIRST = Path("depth/chunk-000/file-000.parquet")


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORLDS, "room", WorldInfo("room", "a yard", Yard))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    record(toy_config(tmp_path / "set", 80, world="room"))
    return tmp_path / "set"


def test_depth_comes_back_within_a_quarter_of_a_percent_and_the_sky_as_sky() -> None:
    depth = np.geomspace(0.05, 5000.0, 64 * 112, dtype=np.float32).reshape(GEOMETRY_SHAPE)
    depth[:8] = np.inf
    codes = encode_depth(depth)
    assert codes.dtype == np.uint16
    back = decode_depth(codes)
    assert back.dtype == np.float32
    assert np.isinf(back[:8]).all()
    np.testing.assert_allclose(back[8:], depth[8:], rtol=0.0025)
    assert decode_depth(encode_depth(np.array([0.0, 0.01], np.float32))).tolist() == pytest.approx([0.05, 0.05])
    for bad in (np.nan, -1.0):
        with pytest.raises(DataError, match="depth must be metres of 0 or more, or infinite"):
            encode_depth(np.array([1.0, bad], np.float32))


def test_a_geometry_has_one_shape() -> None:
    with pytest.raises(ValueError, match=r"depth must have the shape \(64, 112\), got \(8, 56\)"):
        Geometry(np.zeros((8, 56), np.float32), np.zeros(GEOMETRY_SHAPE, np.bool_))


def test_recorded_depth_is_of_the_frames_it_names(recording: Path) -> None:
    data = Dataset(recording)
    for index, episode in enumerate(data.episodes):
        clip = data.clip(index)
        assert clip.poses is not None
        assert clip.depth is not None
        assert clip.depth.frames.tolist() == list(range(0, episode.length, 4))
        world = Yard()
        world.reset(episode.meta["seed"])
        assert isinstance(world, RecordableWorld)
        poses, depths = [], []
        for action in data.action_space.decode(clip.actions):
            poses.append(world.pose)
            depths.append(world.geometry())
            world.step(action)
        np.testing.assert_allclose(clip.poses, poses, atol=1e-4)
        for i, frame in enumerate(clip.depth.frames):
            np.testing.assert_allclose(clip.depth.depth[i], depths[frame].depth, rtol=0.0025)
            np.testing.assert_array_equal(clip.depth.body[i], depths[frame].body)


@pytest.mark.parametrize(("start", "length", "expected"), [(0, 1, [0]), (1, 3, []), (3, 10, [1, 5, 9]), (8, 5, [0, 4])])
def test_a_part_of_an_episode_has_its_part_of_the_depth(
    recording: Path, start: int, length: int, expected: list[int]
) -> None:
    data = Dataset(recording)
    whole, part = data.clip(1).depth, data.clip(1, start, length).depth
    assert whole is not None
    assert part is not None
    assert part.frames.tolist() == expected
    of_whole = [i for i, frame in enumerate(whole.frames) if start <= frame < start + length]
    np.testing.assert_array_equal(part.depth, whole.depth[of_whole])
    assert data.clip(1, start, length, depth=False).depth is None


def test_the_notes_tell_a_reader_what_it_needs(recording: Path) -> None:
    data = Dataset(recording)
    notes = json.loads((recording / "meta/reverie.json").read_text())
    assert notes["pose_convention"] == 2
    assert notes["depth"]["every_frames"] == 4
    assert notes["depth"]["encoding"].startswith("png-uint16")
    assert (data.fov_deg, data.pixel_aspect) == (80.0, 1.0)
    assert data.info["features"]["observation.state"]["names"] == list(POSE_NAMES)
    assert set(data.info["features"]) == {
        "observation.images.screen", "action", "observation.state", "timestamp", "frame_index", "episode_index",
        "index", "task_index",
    }, "LeRobot knows nothing of depth"  # fmt: skip
    table = pq.read_table(recording / FIRST)
    assert table.column_names == ["episode_index", "frame_index", "depth", "body"]
    assert table["depth"][0].as_py().startswith(b"\x89PNG")
    data.require_poses()


@pytest.mark.parametrize(("every", "frames"), [(0, None), (7, [0, 7, 14, 21, 28, 35])])
def test_how_often_depth_is_recorded(tmp_path: Path, every: int, frames: list[int] | None) -> None:
    record(toy_config(tmp_path / "set", 40, world="room", depth_every=every))
    depth = Dataset(tmp_path / "set").clip(0).depth
    assert (None if depth is None else depth.frames.tolist()) == frames
    assert (tmp_path / "set/depth").exists() == bool(every)


def test_worlds_without_geometry_are_recorded_without(tmp_path: Path) -> None:
    record_toy(tmp_path / "set", 40)
    assert Dataset(tmp_path / "set").clip(0).depth is None
    assert not (tmp_path / "set/depth").exists()


def test_a_negative_interval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="depth_every must not be negative, got -1"):
        toy_config(tmp_path, 40, depth_every=-1)


def test_a_person_s_play_has_depth_too(tmp_path: Path) -> None:
    world = Yard()
    with open_writer(tmp_path / "set", "room", world) as writer:
        played = RecordedWorld(world, writer)
        played.reset(0)
        for _ in range(50):
            played.step(Action(frozenset({"forward"})))
        played.close()
    depth = Dataset(tmp_path / "set").clip(0).depth
    assert depth is not None
    assert depth.frames.tolist() == [0, 8, 16, 24, 32, 40, 48]
    world.reset(0)
    np.testing.assert_allclose(depth.depth[0], world.geometry().depth, rtol=0.0025)


def test_a_writer_killed_before_the_table_leaves_a_dataset_that_reads(recording: Path, tmp_path: Path) -> None:
    """The depth of an episode that was never listed is swept away by the next writer."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.helpers import toy_world
from reverie.data import writer
from reverie.data.record import record
from reverie.worlds import WORLDS, WorldInfo
from reverie.worlds.yard import Yard
WORLDS["room"] = WorldInfo("room", "a yard", Yard)
write = writer._write_table
def killed(path, table):
    if "episodes" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, table)
writer._write_table = killed
from pathlib import Path
record(toy_world.toy_config(Path({str(recording)!r}), 120, world="room"))
"""
    done = subprocess.run([sys.executable, "-c", script], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    left = recording / "depth/chunk-000/file-002.parquet"
    assert left.exists()
    data = Dataset(recording)
    assert data.num_episodes == 2
    assert data.clip(1).depth is not None
    (left.parent / f".{left.name}.tmp").write_bytes(b"half")
    with DatasetWriter(recording, data.action_space, data.resolution, 25, pose_names=POSE_NAMES):
        pass
    assert sorted(path.name for path in left.parent.iterdir()) == ["file-000.parquet", "file-001.parquet"]
    record(toy_config(recording, 120, world="room"))
    after = Dataset(recording)
    assert after.num_episodes == 3
    assert after.clip(2).depth is not None


def _image(size: tuple[int, int], mode: str, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_image((112, 64), "L", "EPS"), "has a damaged image"),
        (_image((20_000, 20_000), "1"), "has a damaged image"),
        (_image((8_000, 8_000), "1"), r"has depth of \(8000, 8000, '1'\)"),
        (_image((112, 64), "RGB"), r"has depth of \(64, 112, 'RGB'\), expected \(64, 112\) in grey"),
    ],
    ids=["a program", "a bomb", "too large", "colours"],
)
def test_only_small_grey_png_is_unpacked(recording: Path, content: bytes, says: str) -> None:
    """Datasets come from strangers too."""
    file = recording / FIRST
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0]["depth"] = content
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    with pytest.raises(DataError, match=rf"file-000.parquet: frame 0 of episode 0 {says}"):
        Dataset(recording).clip(0, 0, 1)


def test_damaged_depth_is_named(recording: Path) -> None:
    file = recording / FIRST
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[2]["depth"] = rows[2]["depth"][:30]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    with pytest.raises(DataError, match=r"file-000.parquet: frame 8 of episode 0 has a damaged image"):
        Dataset(recording).clip(0)
    assert Dataset(recording).clip(0, depth=False).frames.shape[0] == 40
    assert any("damaged image" in line for one in examine(Dataset(recording)) for line in one.damage)
    pq.write_table(table.replace_schema_metadata({"encoding": "png-uint8"}), file)
    with pytest.raises(DataError, match="depth is encoded as 'png-uint8', expected 'png-uint16"):
        Dataset(recording).clip(0)
    pq.write_table(table.drop_columns(["body"]), file)
    with pytest.raises(DataError, match="the column body is missing"):
        Dataset(recording).clip(0)
    file.unlink()
    with pytest.raises(DataError, match="the file is missing"):
        Dataset(recording).clip(0)


def as_version_1(root: Path, world: str | None, importer: bool = False) -> None:
    """Turn a recording of the toy world into one of five numbers without roll, as they were written before."""
    rows = next((root / "data").glob("*/*.parquet"))
    table = pq.read_table(rows)
    states = [state[:5] for state in table["observation.state"].to_pylist()]
    column = table.column_names.index("observation.state")
    pq.write_table(table.set_column(column, "observation.state", [states]), rows)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.state"] = {"dtype": "float32", "shape": [5], "names": ["x", "y", "z", "yaw", "pitch"]}
    (root / "meta/info.json").write_text(json.dumps(info))
    notes = {"importer": {"kind": "vpt"}} if importer else {"recorder": {"world": world}}
    (root / "meta/reverie.json").write_text(json.dumps(notes))


@pytest.mark.parametrize(
    ("world", "yaw_deg", "metres", "lift_m"),
    [("city", 0, 1, 0), ("temple", 0, 1, 0), ("minetest", 90, 1, 0), ("vizdoom", 90, 1 / 32, 41 / 32)],
)
def test_older_recordings_are_converted(
    tmp_path: Path, world: str, yaw_deg: float, metres: float, lift_m: float
) -> None:
    root = record_toy(tmp_path / "set", 40)
    new = Dataset(root).clip(0).poses
    assert new is not None
    as_version_1(root, world)
    data = Dataset(root)
    data.require_poses()
    old = data.clip(0).poses
    assert old is not None
    assert old.shape == new.shape
    np.testing.assert_allclose(old[:, :3], new[:, :3] * metres + [0, 0, lift_m], rtol=1e-5)
    np.testing.assert_allclose(old[:, 3], (new[:, 3] + yaw_deg) % 360, atol=1e-3)
    np.testing.assert_array_equal(old[:, 4:], new[:, 4:])
    with pytest.raises(DataError, match=r"observation.state is \[5\] .* there, \[6\] .* here; choose another folder"):
        record_toy(root, 80)


@pytest.mark.parametrize("importer", [True, False])
def test_poses_of_an_unknown_convention_are_read_and_refused_where_they_matter(tmp_path: Path, importer: bool) -> None:
    root = record_toy(tmp_path / "set", 40)
    new = Dataset(root).clip(0).poses
    as_version_1(root, "some other game", importer)
    data = Dataset(root)
    poses = data.clip(0).poses
    assert poses is not None
    np.testing.assert_array_equal(poses, new)
    assert not data.poses_are_known
    with pytest.raises(DataError, match="camera poses are of an unknown convention"):
        data.require_poses()


def test_states_of_a_robot_are_no_poses() -> None:
    assert conversion_for(["shoulder", "elbow"], {}) is None
    assert conversion_for(None, {}) is None
    newer = conversion_for(POSE_NAMES, {"pose_convention": 3})
    assert newer is not None
    assert not newer.is_known


def test_poses_of_another_width_are_refused(tmp_path: Path) -> None:
    world = Yard()
    actions, poses = np.zeros((10, 7), np.float32), np.zeros((10, 5), np.float32)
    with DatasetWriter(tmp_path, world.action_space, world.resolution, 25, pose_names=POSE_NAMES) as writer:
        video = writer.partial / "a.mp4"
        video.write_bytes(b"")
        with pytest.raises(DataError, match=r"poses are \(10, 5\), expected \(10, 6\)"):
            writer.add(video, actions, poses, {}, {})


@pytest.mark.parametrize(("column", "says"), [("another", "is missing"), ("observation.state", "has 7 numbers a row")])
def test_poses_that_are_not_as_described_are_refused(recording: Path, column: str, says: str) -> None:
    path = Dataset(recording).episodes[0].data_file
    table = pq.read_table(path)
    place = table.column_names.index("observation.state")
    pq.write_table(table.set_column(place, column, pa.array([[0.0] * 7] * table.num_rows)), path)
    data = Dataset(recording)
    for read in (data.clip, data.poses):
        with pytest.raises(DataError, match=rf"observation\.state {says}, expected 6 numbers a row"):
            read(0)


def test_episodes_that_move_up_keep_their_depth(recording: Path) -> None:
    data = Dataset(recording)
    kept = [i for i in range(data.num_episodes) if i != 0]
    before = [data.clip(i).depth for i in kept]
    with DatasetWriter(recording, data.action_space, data.resolution, 25, pose_names=POSE_NAMES) as writer:
        writer.remove([0])
    with DatasetWriter(recording, data.action_space, data.resolution, 25, pose_names=POSE_NAMES):
        pass  # sweeps
    data = Dataset(recording)
    assert data.num_episodes == len(kept) > 0
    for index, depth in enumerate(before):
        now = data.clip(index).depth
        assert depth is not None
        assert now is not None
        np.testing.assert_array_equal(now.frames, depth.frames)
        np.testing.assert_array_equal(now.depth, depth.depth)
    assert len(list((recording / "depth").rglob("*.parquet"))) == len(kept)


def test_new_notes_keep_what_a_reader_must_know(recording: Path) -> None:
    data = Dataset(recording)
    with DatasetWriter(
        recording, data.action_space, data.resolution, 25, pose_names=POSE_NAMES, depth_every=4
    ) as writer:
        writer.write_notes({"mine": 1})
    notes = Dataset(recording).notes
    assert notes["mine"] == 1
    assert notes["depth"]["every_frames"] == 4
    Dataset(recording).require_poses()


def test_a_record_names_its_frame() -> None:
    geometry = Geometry(np.ones(GEOMETRY_SHAPE, np.float32), np.zeros(GEOMETRY_SHAPE, np.bool_))
    assert DepthRecord.of(12, geometry).frame_index == 12
