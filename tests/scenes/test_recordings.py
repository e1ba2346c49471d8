"""Recordings that a scene is made of: one place, one camera, and episodes that are held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.yard_scene import record_yard
from tests.helpers.yard_walks import poses_of

from reverie import cli
from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.scenes.recordings import is_held_out, read_footage
from reverie.train.spatial.packs import list_episodes


def test_a_scene_is_one_place(tmp_path: Path) -> None:
    record_yard(tmp_path / "a", 2, 41, map_name="north")
    record_yard(tmp_path / "b", 1, 41, map_name="south")
    both = [tmp_path / "a", tmp_path / "b"]
    assert read_footage(both).place == "north"
    small = read_footage(both, place="south")
    assert small.place == "south"
    assert len(small.frames) + len(small.held_out) == 11
    with pytest.raises(DataError, match="no place 'west' in these recordings; they have north, south"):
        read_footage(both, place="west")


def test_recordings_of_other_cameras_are_not_mixed(tmp_path: Path) -> None:
    record_yard(tmp_path / "a", 1, 41)
    record_yard(tmp_path / "b", 1, 41, notes={"world": "yard", "fov_deg": 60.0})
    with pytest.raises(DataError, match=r"field of view is 60.0, but 80.0 in .*use recordings of one game"):
        read_footage([tmp_path / "a", tmp_path / "b"])


def test_every_eighth_episode_is_held_out_where_none_is_marked(tmp_path: Path) -> None:
    record_yard(tmp_path / "nine", 9, 41)
    for part, count in (("train", 8), ("held-out", 1)):
        assert cli.main(["data", "pack", str(tmp_path / "nine"), "-o", str(tmp_path / part), "--part", part]) == 0
        assert len(list_episodes([tmp_path / part])) == count


def test_a_scene_holds_out_the_episodes_that_evaluation_takes(tmp_path: Path) -> None:
    dataset = Dataset(record_yard(tmp_path / "unmarked", episodes=9, frames=33))
    assert [i for i in range(9) if is_held_out(dataset, i)] == [7]
    footage = read_footage([dataset.path])
    own = {pose.tobytes() for pose in poses_of(dataset, 7)}
    assert {pose.numpy().tobytes() for pose in footage.held_out.pose} <= own
    assert not {pose.numpy().tobytes() for pose in footage.frames.pose} & own


def test_frames_of_a_fall_are_not_in_a_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After frame 59 the camera is elsewhere: the two seconds before were a fall."""
    record_yard(tmp_path / "walk", 1, 121)
    before = read_footage([tmp_path / "walk"])
    real = Dataset._poses_of

    def put_elsewhere(*args: Any) -> Any:
        poses = real(*args).copy()
        poses[60:, 0] += 50
        return poses

    monkeypatch.setattr(Dataset, "_poses_of", put_elsewhere)
    after = read_footage([tmp_path / "walk"])
    assert len(before.frames) + len(before.held_out) == 31
    poses = torch.cat([after.frames.pose, after.held_out.pose])
    assert (poses[:, 0] < 25).sum() == 3, "frames 0, 4 and 8"
    assert (poses[:, 0] > 25).sum() == 16, "frames 60 to 120"
