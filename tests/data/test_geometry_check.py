"""Recordings whose depth or poses do not fit their pictures are found, and the wrong setting is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.toy_world import toy_config

from reverie.cli import main
from reverie.data.dataset import Dataset
from reverie.data.geometry_check import GeometryFit, Pair, check_geometry, clip_pairs, fit_geometry
from reverie.data.record import record
from reverie.types import Action, Clip, ClipDepth
from reverie.worlds import WORLDS, WorldInfo
from reverie.worlds.yard import FOV_DEG, Yard


def walk(num_frames: int = 60) -> Clip:
    """A walk with uneven turns of the camera, its depth every four frames."""
    world, rng = Yard(), np.random.default_rng(3)
    turns = np.diff(rng.uniform(-1, 1, (num_frames + 1, 2)) * (4.0, 9.0), axis=0)
    turns[:, 1] += 1.0
    frames, poses, geometries = [world.reset(4)[0]], [world.pose], [world.geometry()]
    for i in range(num_frames - 1):
        keys = {"forward"} | ({"lean"} if i // 10 % 2 else set())
        frames.append(world.step(Action(frozenset(keys), tuple(turns[i])))[0])  # type: ignore[arg-type]
        poses.append(world.pose)
        geometries.append(world.geometry())
    at = np.arange(0, num_frames, 4)
    depth = ClipDepth(at, np.stack([geometries[i].depth for i in at]), np.stack([geometries[i].body for i in at]))
    return Clip(np.stack(frames), np.zeros((num_frames, 1), np.float32), 25, np.stack(poses), depth)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return walk()


def judge(clip: Clip, *, poses: np.ndarray | None = None, scale: float = 1.0, fov_deg: float = FOV_DEG) -> GeometryFit:
    assert clip.depth is not None
    depth = ClipDepth(clip.depth.frames, clip.depth.depth * np.float32(scale), clip.depth.body)
    changed = Clip(clip.frames, clip.actions, 25, clip.poses if poses is None else poses, depth)
    found = fit_geometry(list(clip_pairs(changed, np.random.default_rng(0), 10)), fov_deg)
    assert found is not None
    return found


def test_a_sound_recording_fits(clip: Clip) -> None:
    found = judge(clip)
    assert found.fits
    assert found.wrong == ()
    assert found.warped_db > found.still_db + 6
    assert found.pairs == 10


def other_convention(poses: np.ndarray, **changes: float) -> np.ndarray:
    poses = np.roll(poses, int(changes.get("late", 0)), axis=0)
    poses[:, 3] = changes.get("yaw_sign", 1.0) * poses[:, 3] + changes.get("yaw", 0.0)
    poses[:, 4] *= changes.get("pitch_sign", 1.0)
    poses[:, 5] *= changes.get("roll_sign", 1.0)
    return poses


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"yaw": -90.0}, "add 90 degrees"),
        ({"yaw": 180.0}, "add 180 degrees"),
        ({"yaw_sign": -1.0}, "yaw grows to the left"),
        ({"yaw_sign": -1.0, "yaw": 90.0}, "yaw counts from east to the left"),
        ({"pitch_sign": -1.0}, "pitch grows downwards"),
        ({"roll_sign": -1.0}, "roll grows to the left"),
        ({"late": 1.0}, "poses are a frame late"),
        ({"late": -1.0}, "poses are a frame early"),
    ],
)
def test_a_wrong_convention_of_poses_is_named(clip: Clip, changes: dict[str, float], words: str) -> None:
    assert clip.poses is not None
    found = judge(clip, poses=other_convention(clip.poses, **changes))
    assert not found.fits
    assert words in found.wrong[0][0], found
    assert found.wrong[0][1] > 0.5
    assert len(found.wrong) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 0.8}, "depth is too small"),
        ({"scale": 1.25}, "depth is too large"),
        ({"scale": 2.0}, "depth is far too large"),
        ({"fov_deg": FOV_DEG + 8}, "narrower than stated"),
        ({"fov_deg": FOV_DEG - 8}, "wider than stated"),
    ],
)
def test_a_wrong_depth_or_field_of_view_is_named(clip: Clip, changes: dict[str, float], words: str) -> None:
    found = judge(clip, **changes)
    assert words in found.wrong[0][0], found


def test_two_wrong_settings_are_both_named(clip: Clip) -> None:
    assert clip.poses is not None
    found = judge(clip, poses=other_convention(clip.poses, yaw=-90.0, pitch_sign=-1.0))
    words = "; ".join(name for name, _ in found.wrong)
    assert "add 90 degrees" in words
    assert "pitch grows downwards" in words


def test_what_fits_no_setting_does_not_fit(clip: Clip) -> None:
    assert clip.poses is not None
    poses = clip.poses.copy()
    poses[:, :2] += np.random.default_rng(0).normal(0, 1.5, (len(poses), 2))
    assert not judge(clip, poses=poses).fits


def test_without_motion_nothing_is_said(clip: Clip) -> None:
    assert fit_geometry([], FOV_DEG) is None
    frame, grey = np.full((64, 112, 3), 99, np.uint8), np.ones((64, 112), np.float32)
    none = np.zeros((64, 112), np.bool_)
    pair = Pair(frame, frame, grey, none, none, np.zeros((3, 6), np.float32), np.zeros((3, 6), np.float32))
    assert fit_geometry([pair] * 10, FOV_DEG) is None


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        code = main(["data", "check", str(root)])
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    return int(code or 0), out, err


def test_data_check_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WORLDS, "room", WorldInfo("room", "a yard", Yard))
    root = tmp_path / "set"
    record(toy_config(root, 300, world="room", episode_seconds=6.0, seed=2))
    fit = check_geometry(Dataset(root))
    assert fit is not None
    assert fit.fits
    code, out, err = check(root, capsys)
    assert code in (0, 1)
    assert "frames warped by depth and pose onto later ones fit" in out
    assert "wrong:" not in err
    notes = json.loads((root / "meta/reverie.json").read_text())
    notes["world"]["fov_deg"] = FOV_DEG + 8
    (root / "meta/reverie.json").write_text(json.dumps(notes))
    code, out, err = check(root, capsys)
    assert code == 1
    assert "wrong: the field of view is narrower than stated" in err
