"""Start frames chosen from recordings: of different episodes and maps, clear ones, and never a reason to fail."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from reverie.data.dataset import Dataset
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.models.start_frames import NewStartFrame, read_start_frames, write_start_frames
from reverie.train.start_frames import add_start_frames, choose_start_frames
from reverie.types import ActionSpace

SPACE = ActionSpace(("forward", "jump"), mouse=False)
SIZE = (32, 48)


def make_recording(root: Path, maps: list[str], flat: tuple[int, ...] = ()) -> Path:
    """An episode of 20 frames for each map, of a shade of its own: with a pattern, or flat."""
    rng = np.random.default_rng(0)
    with DatasetWriter(root, SPACE, SIZE, 25, notes={"recorder": {"world": "toy"}}) as writer:
        for index, name in enumerate(maps):
            frame = np.full((*SIZE, 3), 40 + 20 * index, np.uint8)
            if index not in flat:
                frame[::4, ::4] = rng.integers(150, 256, (8, 12, 3))
            frames = np.repeat(frame[None], 20, 0)
            video = writer.partial / "video.mp4"
            write_video(video, frames, 25)
            actions = np.zeros((20, SPACE.size), np.float32)
            writer.add(video, actions, None, picture_statistics(frames), {"seed": index, "map": name})
    return root


def shades(frames: list[NewStartFrame]) -> list[int]:
    """The episodes that the frames are from."""
    return [round((int(np.median(frame.image)) - 40) / 20) for frame in frames]


def test_frames_are_of_different_maps_first(tmp_path: Path) -> None:
    frames = choose_start_frames([make_recording(tmp_path / "rec", ["A", "A", "A", "B", "C"])], 3)
    assert [frame.title for frame in frames] == ["toy, A", "toy, C", "toy, B"]
    assert frames[0].keys == SPACE.keys
    assert frames[0].mouse is False
    assert frames[0].image.shape == (*SIZE, 3)


def test_the_same_map_twice_is_numbered(tmp_path: Path) -> None:
    frames = choose_start_frames([make_recording(tmp_path / "rec", ["A", "A", "B"])], 6)
    assert sorted(frame.title for frame in frames) == ["toy, A 1", "toy, A 2", "toy, B"]
    assert sorted(shades(frames)) == [0, 1, 2]  # and no episode twice


def test_flat_frames_are_passed_over(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "rec", ["A", "B", "C"], flat=(0, 2))
    assert shades(choose_start_frames([recording], 1)) == [1]
    all_flat = make_recording(tmp_path / "flat", ["A"], flat=(0,))
    assert len(choose_start_frames([all_flat], 1)) == 1  # better than none


def test_each_recording_has_its_share(tmp_path: Path) -> None:
    one = make_recording(tmp_path / "one", ["A"] * 5)
    two = make_recording(tmp_path / "two", ["B"] * 5)
    titles = [frame.title for frame in choose_start_frames([one, two], 5)]
    assert [sum(name in title for title in titles) for name in ("A", "B")] == [3, 2]
    assert len(choose_start_frames([one, two], 1)) == 2


def test_what_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = make_recording(tmp_path / "good", ["A", "B"])
    video = Dataset(good).episodes[0].video_file
    video.write_bytes(video.read_bytes()[:300])
    with caplog.at_level(logging.WARNING):
        frames = choose_start_frames([tmp_path / "no such recording", good], 4)
    assert [frame.title for frame in frames] == ["toy, B"]
    assert "no such recording" in caplog.text
    assert video.name in caplog.text


def test_a_model_gets_frames_of_its_data_or_keeps_its_start_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make_recording(tmp_path / "rec", ["A", "B"])
    teacher = tmp_path / "run"
    write_start_frames(teacher / "model", [NewStartFrame(np.zeros((*SIZE, 3), np.uint8), "the teacher's")])
    for folder in (tmp_path / "world", tmp_path / "student", tmp_path / "nothing"):
        folder.mkdir()
    assert add_start_frames(tmp_path / "world", [data]) == ["toy, A", "toy, B"]
    assert add_start_frames(tmp_path / "student", [data], start=teacher) == ["the teacher's"]
    assert [frame.title for frame in read_start_frames(tmp_path / "student")] == ["the teacher's"]
    with caplog.at_level(logging.WARNING):
        assert add_start_frames(tmp_path / "nothing", [tmp_path / "no data"]) == []
    assert "has no start frames" in caplog.text
