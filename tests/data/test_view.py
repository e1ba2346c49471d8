"""Recordings as rerun's viewer gets them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.yard_scene import record_yard

from reverie import cli
from reverie.data.dataset import Dataset
from reverie.data.view import _camera_axes, _unproject


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_yard(tmp_path_factory.mktemp("yard") / "set", episodes=2, frames=41)


def test_points_of_two_frames_agree_on_the_place(yard: Path) -> None:
    """The walls of a room, seen from two places, are planes at the same coordinates."""
    dataset = Dataset(yard)
    clip = dataset.clip(0)
    assert clip.poses is not None
    assert clip.depth is not None
    assert dataset.fov_deg is not None
    focal = 0.5 / np.tan(np.radians(dataset.fov_deg) / 2)
    axes = _camera_axes(clip.poses)
    floors = []
    for i, frame in list(enumerate(clip.depth.frames))[:2]:
        points = _unproject(clip.depth.depth[i], focal, dataset.pixel_aspect, axes[frame], clip.poses[frame, :3])
        shown = np.isfinite(clip.depth.depth[i]) & ~clip.depth.body[i]
        floors.append(np.percentile(points[shown][:, 2], 2))
    assert abs(floors[0] - floors[1]) < 0.05
    assert abs(floors[0]) < 0.1  # the yard's floor is at height 0


def test_a_file_is_written_with_all_that_was_recorded(yard: Path, tmp_path: Path, capsys) -> None:
    rr = pytest.importorskip("rerun", reason='rerun is not installed: pip install "reverie-world[viewer]"')
    out = tmp_path / "walk.rrd"
    assert cli.main(["data", "view", str(yard), "--episode", "1", "--memory-s", "0.5", "-o", str(out)]) == 0
    assert "41 frames" in capsys.readouterr().out
    logged = entities(rr, out)
    expected = {"/world/camera/frame", "/world/camera", "/world/camera/depth", "/world/path", "/actions/mouse/yaw"}
    assert expected <= logged
    assert {name for name in logged if name.startswith("/world/memory/")} == {
        f"/world/memory/{frame:05d}" for frame in (0, 16, 32)
    }
    assert list(tmp_path.iterdir()) == [out]


def entities(rr, path: Path) -> set[str]:
    """Paths of all that a file holds."""
    from rerun.chunk import RrdReader

    return {chunk.entity_path for chunk in RrdReader(path).stream()}


def test_what_cannot_be_viewed(yard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    for words, message in (
        ([str(yard), "-o", str(tmp_path / "walk.mp4")], "files end in .rrd"),
        ([str(yard), "-o", str(tmp_path / "walk.rrd")], 'pip install "reverie-world[viewer]"'),
        ([str(yard), "--memory-s", "-1"], "must be 0 or more seconds"),
    ):
        assert cli.main(["data", "view", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_machine_without_a_screen_is_told_to_write_a_file(
    yard: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    pytest.importorskip("rerun", reason='rerun is not installed: pip install "reverie-world[viewer]"')
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["data", "view", str(yard)]) == 2
    assert "write a file with -o walk.rrd" in capsys.readouterr().err
