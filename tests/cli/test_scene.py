"""`reverie scene` and `reverie data pack` on a yard that is drawn with known depth and poses."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.yard_scene import YardWorld, record_yard, save_yard_scene

from reverie import cli
from reverie.data.dataset import Dataset
from reverie.engine.loading import scenes as bundled
from reverie.scenes import recordings
from reverie.scenes.assemble import make_keyframes
from reverie.scenes.ego_motion import relative_motion
from reverie.scenes.recorded_ways import measure_distances
from reverie.scenes.recordings import read_footage
from reverie.scenes.scene import Scene
from reverie.scenes.scene_keyframes import measure_coverage, render_from
from reverie.train.spatial.packs import list_episodes, read_episode
from reverie.vision.projection import focal_lengths
from reverie.worlds import WORLDS, WorldInfo
from reverie.worlds.yard import Yard


@pytest.fixture(autouse=True)
def _yard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORLDS, "yard", WorldInfo("yard", "a yard", YardWorld))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_yard(tmp_path_factory.mktemp("recordings") / "yard")


@pytest.fixture(scope="module")
def built(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "yard"
    args = ["scene", "build", str(recording), "-o", str(folder), "--keyframes", "24", "--starts", "3"]
    assert cli.main([*args, "--title", "My yard"]) == 0
    return folder


def test_a_scene_built_of_recordings_shows_what_it_was_not_built_of(recording: Path, built: Path) -> None:
    scene = Scene.load(built)
    assert 1 < len(scene) <= 24
    assert (scene.title, scene.game, scene.fov_deg) == ("My yard", "yard", 80.0)
    assert scene.keys == Dataset(recording).action_space.keys
    focal = focal_lengths(torch.tensor([80.0]))[0]
    shown = make_keyframes(scene.colour, scene.depth, scene.hidden, scene.pose, focal)
    held_out = read_footage([recording]).held_out
    good = measure_coverage(shown, held_out, focal)
    assert good.cover > 0.6
    # Keyframes with the wrong depth show it worse: the measure measures.
    bad = measure_coverage(
        make_keyframes(scene.colour, 2 * scene.depth, scene.hidden, scene.pose + 0.7, focal), held_out, focal
    )
    assert good.psnr_db > bad.psnr_db + 2


def test_one_moves_in_a_scene_as_in_its_recordings(
    recording: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Scene.load(built).ego_motion
    assert network is not None
    rows = torch.zeros(1, 28, Dataset(recording).action_space.size)
    rows[..., 0], rows[..., -1] = 1.0, 5.0  # forward, turning as in the recording
    poses = torch.from_numpy(Dataset(recording).poses(0))  # type: ignore[arg-type]
    motion = relative_motion(poses[20:44], poses[21:45])[None]
    made = network(rows, motion, torch.zeros(1, 2), torch.full((1, 8, 14), 1.5))
    assert made[0, :, 3].mean() == pytest.approx(5.0, abs=1.0)
    copy = shutil.copytree(built, tmp_path / "yard")
    (copy / "ego-motion.safetensors").unlink()
    assert cli.main(["scene", "ego-motion", str(copy), str(recording), "--epochs", "20"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"on held-out walks, after a second: [\d.]+ of [\d.]+ m off", told)
    assert Scene.load(copy).ego_motion is not None


def test_without_a_mouse_one_stays_on_the_recorded_ways(
    recording: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Scene.load(built).ways is None, "who has a mouse looks anywhere"
    tracked, scene = record_yard(tmp_path / "tracked", mouse=False), tmp_path / "scene"
    args = ["scene", "build", str(tracked), "-o", str(scene), "--keyframes", "9", "--starts", "1", "--epochs", "1"]
    assert cli.main(args) == 0
    assert re.search(r"one stays within [\d.]+ m and \d+ \(in bends \d+\) degrees", capsys.readouterr().out)
    ways = Scene.load(scene).ways
    assert ways is not None
    recorded = torch.from_numpy(np.concatenate([Dataset(tracked).poses(i) for i in range(3)]))  # type: ignore[misc]
    away = measure_distances(recorded[:, :3], torch.from_numpy(ways.poses[:, :3])).amin(1)
    assert float((away <= ways.radius).float().mean()) > 0.95
    (scene / "ways.parquet").unlink()
    (scene / "ego-motion.safetensors").write_bytes(b"damaged: fitting it again is what mends it")
    again = ["scene", "ego-motion", str(scene), str(tracked), "--epochs", "1"]
    assert cli.main(again) == 0
    np.testing.assert_array_equal(Scene.load(scene).ways.poses, ways.poses)  # type: ignore[union-attr]
    moved = dataclasses.replace(
        Scene.load(scene), pose=Scene.load(scene).pose + np.array([500, 0, 0, 0, 0, 0], np.float32)
    )
    moved.save(scene)
    assert cli.main(again) == 2
    assert "the recordings are of another place" in capsys.readouterr().err


def test_who_is_seen_in_every_frame_is_seen_in_the_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], built: Path, recording: Path
) -> None:
    assert Scene.load(built).body is None
    monkeypatch.setattr(YardWorld, "body", True)
    walks, scene = record_yard(tmp_path / "walks", every=1), tmp_path / "scene"
    args = ["scene", "build", str(walks), "-o", str(scene), "--keyframes", "9", "--starts", "1", "--epochs", "0"]
    assert cli.main([*args, "--body-frames", "50"]) == 0
    assert "the player's body in 48 frames" in capsys.readouterr().out
    body = Scene.load(scene).body
    assert body is not None
    assert body.corner == (56, 48), "the yard draws it there"
    opaque = body.image[..., :3][body.image[..., 3] == 255].astype(float)
    np.testing.assert_allclose(opaque.mean(0), (200, 30, 30), atol=20)
    assert cli.main(["scene", "body", str(scene), str(walks), "--frames", "24"]) == 0
    assert "the player's body in 24 frames" in capsys.readouterr().out
    found = Scene.load(scene).body
    assert found is not None
    assert len(found.image) == 24
    assert cli.main(["scene", "body", str(scene), str(recording)]) == 2
    assert "record with --depth-every 1" in capsys.readouterr().err
    assert Scene.load(scene).body is not None, "what was there stays"
    assert cli.main(["scene", "body", str(scene), str(walks), "--frames", "23"]) == 2
    assert "frames of the player's body must be 24 to 4096, got 23" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "says"),
    [(["--epochs", "0"], "--epochs must be 1 to 100000, got 0"), ([], "the recordings are of a game with")],
)
def test_ego_motion_of_another_game_or_none(
    recording: Path, built: Path, tmp_path: Path, args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(built, tmp_path / "yard")
    raw = json.loads((copy / "scene.json").read_text())
    (copy / "ego-motion.safetensors").unlink()
    (copy / "scene.json").write_text(json.dumps({**raw, "keys": ["jump"]}))
    assert cli.main(["scene", "ego-motion", str(copy), str(recording), *args]) == 2
    assert says in capsys.readouterr().err
    assert not (copy / "ego-motion.safetensors").exists()


def test_a_scene_without_an_ego_motion_of_its_own(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["scene", "build", "--keyframes", "9", "--starts", "1"]
    assert cli.main([*args, str(recording), "-o", str(tmp_path / "none"), "--epochs", "0"]) == 0
    assert "ego-motion" not in capsys.readouterr().out
    short = record_yard(tmp_path / "short", episodes=3, frames=13)
    assert cli.main([*args, str(short), "-o", str(tmp_path / "short-scene")]) == 0
    assert "no ego-motion of its own: expected an episode of at least 5 latent steps" in capsys.readouterr().out
    for name in ("none", "short-scene"):
        assert Scene.load(tmp_path / name).ego_motion is None


def test_starts_are_recorded_frames_apart_from_each_other(recording: Path, built: Path) -> None:
    scene = Scene.load(built)
    assert len(scene.starts) == 3
    assert len({start.title for start in scene.starts}) == 3
    assert all(start.title.startswith("My yard, looking ") for start in scene.starts)
    data = Dataset(recording)
    recorded = np.concatenate([data.poses(i) for i in range(data.num_episodes)])  # type: ignore[arg-type]
    for start in scene.starts:
        assert np.abs(recorded - start.pose).max(1).min() < 1e-3
    apart = [np.abs(a.pose - b.pose).max() for a in scene.starts for b in scene.starts if a is not b]
    assert min(apart) > 1.0


def test_the_build_reports_held_out_coverage(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.main(["scene", "build", str(recording), "-o", str(tmp_path / "s"), "--keyframes", "9", "--starts", "1"])
        == 0
    )
    out = capsys.readouterr().out
    assert "9 keyframes of 112x64, 1 starts" in out
    assert "held-out frames:" in out
    assert "% covered, PSNR" in out


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"pose_names": ()}, "has no camera poses; record the game again"),
        ({"every": 0}, "has camera poses, but no depth; record the game again"),
        ({"notes": {"world": "yard"}}, "does not say its field of view"),
    ],
)
@pytest.mark.parametrize("command", [["scene", "build"], ["data", "pack"]])
def test_what_a_recording_lacks_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, complaint: str, command: list[str]
) -> None:
    record_yard(tmp_path / "set", 1, 41, **changes)
    assert cli.main([*command, str(tmp_path / "set"), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_field_of_view_may_be_given(tmp_path: Path) -> None:
    record_yard(tmp_path / "set", 1, 81, notes={"world": "yard"})
    args = [
        "scene",
        "build",
        str(tmp_path / "set"),
        "-o",
        str(tmp_path / "s"),
        "--keyframes",
        "5",
        "--fov",
        "80",
        "--starts",
        "1",
    ]
    assert cli.main(args) == 0
    assert Scene.load(tmp_path / "s").fov_deg == 80.0


def test_a_scene_is_not_written_over_by_mistake(
    built: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (built / "scene.json").read_bytes()
    assert cli.main(["scene", "build", str(recording), "-o", str(built)]) == 2
    assert "has a scene already" in capsys.readouterr().err
    assert (built / "scene.json").read_bytes() == before
    (tmp_path / "letters").write_text("dear")
    assert cli.main(["scene", "build", str(recording), "-o", str(tmp_path)]) == 2
    assert "has other files in it" in capsys.readouterr().err


def test_check_reads_and_measures(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["scene", "check", str(built)]) == 0
    out = capsys.readouterr().out
    assert "My yard (yard)" in out
    assert "keyframes, each by the others:" in out
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in built.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "keyframes.parquet").write_bytes(b"PAR1 and no more")
    assert cli.main(["scene", "check", str(damaged)]) == 2
    assert "not readable as keyframes" in capsys.readouterr().err
    assert cli.main(["scene", "check", str(tmp_path / "none")]) == 2
    assert "there is no scene" in capsys.readouterr().err


def test_list_names_the_bundled_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path)
    assert cli.main(["scene", "list"]) == 0
    assert "no scenes are bundled" in capsys.readouterr().out
    save_yard_scene(tmp_path / "corner", (64, 112), ("forward",), "A corner")
    assert cli.main(["scene", "list"]) == 0
    assert "A corner (yard), 2 starts, 16 keyframes" in capsys.readouterr().out
    assert cli.main(["scene", "list", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["name"], one["keys"], one["starts"]) == (
        "corner", ["forward"], ["A corner, start 0", "A corner, start 1"],
    )  # fmt: skip


def test_looking_round_shows_what_no_recording_looked_at(tmp_path: Path) -> None:
    recording = record_yard(tmp_path / "r", episodes=2, frames=21)
    args = ["scene", "build", str(recording), "--keyframes", "48", "-o"]
    assert cli.main([*args, str(tmp_path / "recorded")]) == 0
    assert cli.main([*args, str(tmp_path / "round"), "--look-round"]) == 0
    focal = focal_lengths(torch.tensor([80.0]))[0]
    footage = read_footage([recording])
    behind = footage.frames.pose[::4].clone()
    behind[:, 3] += 180
    cover = {}
    for name in ("recorded", "round"):
        scene = Scene.load(tmp_path / name)
        assert len(scene) <= 48
        keyframes = make_keyframes(scene.colour, scene.depth, scene.hidden, scene.pose, focal)
        cover[name] = float(render_from(keyframes, behind, focal).cover.mean())
        taken = [np.abs(scene.pose - pose).max(1).min() < 1e-3 for pose in footage.frames.pose.numpy()]
        assert sum(taken) >= min(len(taken), 30), "most keyframes are still recorded ones"
        for start in scene.starts:
            assert np.abs(footage.frames.pose.numpy() - start.pose).max(1).min() < 1e-3, "starts are recorded frames"
    assert cover["round"] > cover["recorded"] + 0.2
    assert cover["round"] > 0.8


@pytest.mark.parametrize("kind", ["not explorable", "another map", "no seed"])
def test_what_stands_in_the_way_of_looking_round_is_told_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = record_yard(tmp_path / "r", episodes=2, frames=21)
    wanted = "cannot be looked at from anywhere"
    if kind == "not explorable":
        monkeypatch.setitem(WORLDS, "yard", WorldInfo("yard", "a yard", Yard))
    elif kind == "another map":
        monkeypatch.setattr(YardWorld, "map", "garden")
        wanted = "yard opens garden now, not the recorded yard"
    else:
        monkeypatch.setattr(recordings, "_opened_with", lambda dataset, number: ("yard", None, {}))
        wanted = "leave out --look-round"
    assert cli.main(["scene", "build", str(recording), "--look-round", "-o", str(tmp_path / "s")]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_capture_ends_when_it_covers_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["scene", "capture", "yard", "--step", "1", "--reach", "4", "-o", str(tmp_path / "s"), "--starts", "4"]
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    visited, total = (int(word) for word in out.split("MiB\n")[1].split(" standpoints")[0].split(" of "))
    assert 12 < visited < total
    scene = Scene.load(tmp_path / "s")
    assert len(scene.starts) == 4
    assert not scene.hidden.any()
    world = YardWorld()
    world.reset(0)
    for start in scene.starts:
        there = np.abs(world.look_from(start.pose)[0][0].astype(int) - start.image).mean()
        turned = np.abs(
            world.look_from(start.pose + np.array([0, 0, 0, 20, 0, 0]))[0][0].astype(int) - start.image
        ).mean()
        assert 3 * there < turned, "the start image is what is seen from its pose"


def test_a_capture_of_a_game_that_shows_the_player_starts_with_the_player(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(YardWorld, "body", True)
    args = ["scene", "capture", "yard", "--step", "2", "--reach", "2", "-o", str(tmp_path / "s"), "--keyframes", "48"]
    assert cli.main(args) == 0
    scene = Scene.load(tmp_path / "s")
    assert len(scene) == 48
    assert len(scene.starts) == 6, "it turns where a wall stops it"
    for start in scene.starts:
        assert start.image[60, 56, 0] > 150 > start.image[60, 56, 1], "the red block at the bottom"


def test_a_game_that_cannot_be_explored_is_not_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WORLDS, "room", WorldInfo("room", "a yard", Yard))
    assert cli.main(["scene", "capture", "room", "-o", str(tmp_path / "s")]) == 2
    assert "record it and use `reverie scene build`" in capsys.readouterr().err


def test_a_pack_holds_what_was_recorded(recording: Path, tmp_path: Path) -> None:
    assert cli.main(["data", "pack", str(recording), "-o", str(tmp_path / "pack")]) == 0
    data = Dataset(recording)
    episodes = list_episodes([tmp_path / "pack"])
    assert len(episodes) == data.num_episodes
    for number, (info, path) in enumerate(episodes):
        assert (info.name, info.fov_deg, info.pixel_aspect, info.depth_every) == ("pack", 80.0, 1.0, 16)
        assert info.action_space == data.action_space
        packed, clip = read_episode(info, path), data.clip(number)
        assert packed.place == "yard/yard"
        assert clip.depth is not None
        np.testing.assert_array_equal(packed.pose, clip.poses)
        np.testing.assert_array_equal(packed.actions, clip.actions[:-1])
        near = clip.depth.depth[::4] < 90
        assert len(packed.depth) == 6
        np.testing.assert_allclose(packed.depth[near], clip.depth.depth[::4][near], rtol=0.03)
        error = np.abs(packed.frames.astype(int) - clip.frames).mean()
        assert error < 4


def test_a_pack_needs_depth_where_it_promises_it(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_yard(tmp_path / "sevenths", 1, 41, every=7)
    assert cli.main(["data", "pack", str(tmp_path / "sevenths"), "-o", str(tmp_path / "p")]) == 2
    assert "has no depth for frame 16 (it has one every 7 frames)" in capsys.readouterr().err
    assert cli.main(["data", "pack", str(tmp_path / "sevenths"), "-o", str(tmp_path / "q"), "--depth-every", "28"]) == 0
    assert cli.main(["data", "pack", str(recording), "-o", str(tmp_path / "r"), "--part", "held-out"]) == 2
    assert "got none of 0" in capsys.readouterr().err
    assert cli.main(["data", "pack", str(recording), "-o", str(tmp_path / "q")]) == 2
    assert "not empty; name another folder" in capsys.readouterr().err
