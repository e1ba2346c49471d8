from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.cli import main
from reverie.data.charts import bar_chart, draw_page, draw_report, heat_maps, summary
from reverie.data.coverage import CLIP_FRAMES, GRID, SPEED_EDGES, Coverage, measure, runs
from reverie.data.dataset import Dataset
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.overlay import LIT
from reverie.types import POSE_NAMES, ActionSpace

SPACE = ActionSpace(("forward", "jump"))


def recording(root: Path) -> Dataset:
    """Two episodes of 200 frames: one walks in a square and turns, one holds forward at a wall and then stands."""
    rng = np.random.default_rng(0)
    with DatasetWriter(root, SPACE, (32, 48), 25, pose_names=POSE_NAMES) as writer:
        for index in range(2):
            actions, poses = np.zeros((200, 4), np.float32), np.zeros((200, 6), np.float32)
            frames = np.broadcast_to(rng.integers(0, 255, (1, 32, 48, 3)), (200, 32, 48, 3)).astype(np.uint8).copy()
            if index == 0:
                actions[:, 0] = 1
                actions[::20, 1] = 1
                actions[:, 3] = np.where(np.arange(200) < 150, 2.0, -2.0)
                poses[:, 0] = np.arange(200).clip(0, 100)
                poses[:, 1] = (np.arange(200) - 100).clip(0, 100)
                poses[:, 4] = 20
                frames = rng.integers(0, 255, frames.shape).astype(np.uint8)
            else:
                actions[:100, 0] = 1
                poses[:, 0] = 0.001 * np.arange(200)
            video = writer.partial / "a.mp4"
            write_video(video, frames, 25)
            meta = {"seed": index, "map": f"level {index}", "heldout": False, "weather": "rain"}
            writer.add(video, actions, poses, picture_statistics(frames), meta)
    return Dataset(root)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Coverage:
    return measure(recording(tmp_path_factory.mktemp("coverage") / "set"), clips=40)


def test_keys_combinations_and_durations(found: Coverage) -> None:
    forward, jump = found.keys["forward"], found.keys["jump"]
    assert (forward.share, forward.presses, forward.longest_s) == (0.75, 2, 8.0)
    assert (jump.share, jump.presses, jump.median_s) == (10 / 400, 10, 0.04)
    assert found.combinations == {"forward": 290 / 400, "none": 100 / 400, "forward+jump": 10 / 400}


def test_idle_camera_and_pitch(found: Coverage) -> None:
    assert found.idle == {"share": 0.25, "stretches_3s": 1.0, "longest_s": 4.0}
    assert len(found.camera_speed["yaw"]) == len(SPEED_EDGES)
    assert found.camera_speed["yaw"][SPEED_EDGES.index(40.0)] == 0.5
    assert found.camera_speed["pitch"][0] == 1.0
    assert found.turns_right == 0.75
    assert sum(found.view_pitch) == pytest.approx(1.0)
    assert found.view_pitch[7] == 0.5, "20 degrees lie between 15 and 30"


def test_places_counts_and_bad_clips(found: Coverage) -> None:
    assert list(found.places) == ["level 0", "level 1"]
    place = found.places["level 0"]
    heat = np.array(place["heat"])
    assert heat.shape == (GRID, GRID)
    assert heat.sum() == 200
    assert 70 < place["cells"] < 90
    assert (heat[-1] > 0).sum() > 30, "along the bottom first"
    assert (heat[:, -1] > 0).sum() > 30, "then up on the right"
    assert found.counts == {
        "heldout": {"False": 2},
        "map": {"level 0": 1, "level 1": 1},
        "weather": {"rain": 2},
    }
    assert found.distinct_seeds == 2
    assert found.stuck_clips == 2 / 8
    assert found.sampled_clips == 40
    assert 0.25 < found.static_clips < 0.75
    assert CLIP_FRAMES == 50


def test_runs() -> None:
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool)).tolist() == [2, 1, 3]
    assert runs(np.zeros(4, bool)).tolist() == []


def test_a_world_without_mouse_turns_by_its_pose(tmp_path: Path) -> None:
    space = ActionSpace(("left", "right"), mouse=False)
    frames = np.zeros((60, 32, 48, 3), np.uint8)
    poses = np.zeros((60, 6), np.float32)
    poses[:, 3] = (350 + 1.0 * np.arange(60)) % 360
    with DatasetWriter(tmp_path, space, (32, 48), 25, pose_names=POSE_NAMES) as writer:
        video = writer.partial / "a.mp4"
        write_video(video, frames, 25)
        writer.add(video, np.zeros((60, 2), np.float32), poses, picture_statistics(frames), {"map": "", "seed": 0})
    found = measure(Dataset(tmp_path), clips=3)
    assert found.turns_right == 1.0
    assert found.camera_speed["yaw"][SPEED_EDGES.index(20.0)] == 1.0
    assert found.static_clips == 1.0


def test_pictures_and_pages_hold_the_figures(found: Coverage) -> None:
    assert draw_report(found).width > 1000
    chart = np.asarray(bar_chart("keys", {"a": 0.5, "b": 0.25, "c": 0.0}))
    lit = [(chart[26 + 18 * i + 9] == LIT).all(-1).sum() for i in range(3)]
    assert lit[0] == pytest.approx(2 * lit[1], abs=3)
    assert lit[2] == 0
    assert heat_maps("places", found.places).height > 150
    page = draw_page(found)
    assert page.count("data:image/png;base64,") == 6
    assert "<td>forward</td><td>75.0%</td><td>2</td>" in page
    assert "http" not in page, "nothing is fetched"
    assert "0.00 h, 2 episodes, 400 frames" in summary(found)[0]


def test_the_command_writes_its_files(
    toy_dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / name for name in ("a.html", "a.json", "a.png")]
    assert main(["data", "report", str(toy_dataset_path), "-o", *map(str, outs), "--clips", "0"]) == 0
    toy = Dataset(toy_dataset_path)
    assert f"{toy.num_episodes} episodes, {toy.num_frames} frames of toy" in capsys.readouterr().out
    figures = json.loads(outs[1].read_text())
    assert set(figures["keys"]) == {"forward", "back", "left", "right"}
    assert sum(figures["combinations"].values()) == pytest.approx(1.0)
    with Image.open(outs[2]) as picture:
        assert picture.format == "PNG"
    assert outs[0].read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-o", "report.pdf"], "ends in .html, .json or .png"),
        (["-o", "/nowhere/at/all.html"], "does not exist"),
        (["--clips", "-1"], "must not be negative"),
    ],
)
def test_bad_requests(toy_dataset_path: Path, args: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "report", str(toy_dataset_path), *args]) == 2
    assert text in capsys.readouterr().err


def test_a_damaged_dataset_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording(tmp_path)
    (tmp_path / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1")
    assert main(["data", "report", str(tmp_path)]) == 2
    assert "file-001.parquet: not a readable parquet file" in capsys.readouterr().err
