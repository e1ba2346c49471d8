from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.import_samples import after, bring, jsonl, numbers, rows, scene, shaking, write

from reverie.cli import main
from reverie.errors import DataError


def line(
    dx: float = 0.0, dy: float = 0.0, keys: tuple[str, ...] = (), buttons: tuple[int, ...] = (), **more: Any
) -> dict:
    return {
        "mouse": {"x": 640.0, "y": 360.0, "dx": dx, "dy": dy, "scaledX": 0.0, "scaledY": 0.0, "dwheel": 0.0,
                  "buttons": list(buttons), "newButtons": []},
        "keyboard": {"keys": [f"key.keyboard.{key}" for key in keys], "newKeys": [], "chars": ""},
        "hotbar": 3, "tick": 0, "isGuiOpen": False, "isGuiInventory": False, "xpos": 10.5, "ypos": 64.0, "zpos": -3.0,
        "yaw": 0.0, "pitch": 0.0, "health": 20.0, **more,
    }  # fmt: skip


def sample(folder: Path, frames: int = 120, name: str = "cheeky-cornflower-1") -> tuple[list[Any], np.ndarray]:
    """A contractor's recording of `frames` frames at 20 Hz; returns its lines and turns."""
    yaw = shaking(frames)
    lines: list[Any] = [
        line(round(turn / 0.15, 3), 10.0 if i % 2 else -10.0, ("w", "left.control") if i > 40 else ("w", "space"))
        for i, turn in enumerate(yaw)
    ]
    for i, row in enumerate(lines):
        row["yaw"], row["pitch"] = float(after(yaw)[: i + 1].sum()), 12.0
    write(folder / f"{name}.mp4", scene(after(yaw), after(np.array([1.5 * (-1) ** i for i in range(frames)]))), 20)
    jsonl(folder / f"{name}.jsonl", lines)
    return lines, yaw


def test_turns_keys_and_poses_arrive(tmp_path: Path) -> None:
    _, yaw = sample(tmp_path / "src")
    data, report = bring("vpt", tmp_path / "src", tmp_path / "dst")
    assert data.num_frames == report.frames == 149
    assert data.action_space.names[:6] == ("key.forward", "key.back", "key.left", "key.right", "key.jump", "key.crouch")
    clip = data.clip(0)
    shown = np.array(numbers(clip.frames))
    assert np.abs(shown / 20 - np.arange(149) / 25).max() <= 0.026
    turned = rows(data, "mouse.yaw")
    np.testing.assert_allclose(turned.sum(), yaw.sum(), atol=1e-3)
    heading = after(yaw).cumsum()
    np.testing.assert_allclose(np.diff(heading[shown]), turned[:-1], atol=1e-3)
    assert rows(data, "mouse.pitch")[0] == pytest.approx(1.5), "the mouse moved up: its dy is negative"
    assert rows(data, "key.forward").all()
    assert rows(data, "key.jump")[0] == 1
    assert rows(data, "key.jump")[-1] == 0
    data.require_poses()
    assert clip.poses is not None
    np.testing.assert_allclose(
        clip.poses[5], [10.5, 3.0, 65.62, (heading[shown[5]] + 180) % 360, -12.0, 0.0], atol=1e-3
    )


def test_the_checks_agree_with_the_true_sign_and_not_with_the_other(tmp_path: Path) -> None:
    lines, _ = sample(tmp_path / "src", 200)
    assert bring("vpt", tmp_path / "src", tmp_path / "good", checks=True)[0].num_episodes == 1
    for row in lines:
        row["mouse"]["dx"] *= -1
    jsonl(tmp_path / "src/cheeky-cornflower-1.jsonl", lines)
    with pytest.raises(DataError, match="turns the wrong way"):
        bring("vpt", tmp_path / "src", tmp_path / "bad", checks=True)
    assert not (tmp_path / "bad").exists()


def test_what_fails_a_check_is_kept_out_with_its_reason(tmp_path: Path) -> None:
    sample(tmp_path / "src", 200, "a-good")
    lines, _ = sample(tmp_path / "src", 200, "b-wrong")
    for row in lines:
        row["mouse"]["dx"] *= -1
    jsonl(tmp_path / "src/b-wrong.jsonl", lines)
    data, report = bring("vpt", tmp_path / "src", tmp_path / "dst", checks=True)
    assert {episode.meta["source"] for episode in data.episodes} == {"a-good"}
    rejected = [json.loads(line) for line in (tmp_path / "dst/meta/rejected.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rejected] == ["b-wrong"]
    assert "turns the wrong way" in rejected[0]["reason"]
    assert report.outcomes[1].dropped["failed a check"] == 249
    _, again = bring("vpt", tmp_path / "src", tmp_path / "dst", checks=True)
    assert again.episodes == 0, "what was rejected is not tried again"


def test_frames_with_a_menu_open_are_left_out(tmp_path: Path) -> None:
    lines, yaw = sample(tmp_path / "src")
    for row in lines[40:60]:
        row["isGuiOpen"] = True
    jsonl(tmp_path / "src/cheeky-cornflower-1.jsonl", lines)
    data, report = bring("vpt", tmp_path / "src", tmp_path / "dst")
    assert report.outcomes[0].dropped == {"with a menu open": 20}
    assert [numbers(data.clip(i).frames)[0] for i in range(2)] == [0, 60]
    assert numbers(data.clip(0).frames)[-1] in (38, 39)
    np.testing.assert_allclose(rows(data, "mouse.yaw", 1).sum(), yaw[60:].sum(), atol=1e-3)


def test_attack_that_is_stuck_from_the_start_is_ignored(tmp_path: Path) -> None:
    lines, _ = sample(tmp_path / "src")
    for row in lines:
        row["mouse"]["buttons"] = [0, 1]
    lines[0]["mouse"]["newButtons"] = [0]
    lines[80]["mouse"]["newButtons"] = [0]
    jsonl(tmp_path / "src/cheeky-cornflower-1.jsonl", lines)
    data, _ = bring("vpt", tmp_path / "src", tmp_path / "dst")
    attack = rows(data, "key.attack")
    assert not attack[:99].any()
    assert attack[101:].all()
    assert rows(data, "key.use").all()


def test_malformed_lines_are_named_and_the_rest_kept(tmp_path: Path) -> None:
    lines, _ = sample(tmp_path / "src")
    lines[30] = "{not json"
    lines[70]["mouse"]["dx"] = float("nan")
    del lines[90]["keyboard"]
    jsonl(tmp_path / "src/cheeky-cornflower-1.jsonl", lines)
    data, report = bring("vpt", tmp_path / "src", tmp_path / "dst")
    assert any("cheeky-cornflower-1.jsonl: row 31: malformed" in note for note in report.notes)
    assert any("row 91: malformed" in note for note in report.notes)
    assert any("row 71: not a number" in note for note in report.notes)
    assert [numbers(data.clip(i).frames)[0] for i in range(4)] == [0, 31, 71, 91]


@pytest.mark.parametrize(
    ("rows_there", "text"), [(90, "ends after 90 rows, the video has 120 frames"), (150, "has 150 rows")]
)
def test_more_and_fewer_lines_than_frames(tmp_path: Path, rows_there: int, text: str) -> None:
    lines, _ = sample(tmp_path / "src")
    jsonl(tmp_path / "src/cheeky-cornflower-1.jsonl", (lines * 2)[:rows_there])
    data, report = bring("vpt", tmp_path / "src", tmp_path / "dst")
    assert text in report.notes[0]
    assert min(rows_there, 120) - numbers(data.clip(0).frames)[-1] in (1, 2)


def test_a_video_that_is_cut_short_keeps_the_other_takes(tmp_path: Path) -> None:
    sample(tmp_path / "src", name="a-good")
    sample(tmp_path / "src", name="b-cut")
    sample(tmp_path / "src", name="c-lost")
    video = tmp_path / "src/b-cut.mp4"
    video.write_bytes(video.read_bytes()[:3000])
    (tmp_path / "src/c-lost.mp4").unlink()
    data, report = bring("vpt", tmp_path / "src", tmp_path / "dst")
    assert {episode.meta["source"] for episode in data.episodes} == {"a-good"}
    assert any("b-cut.mp4: not a readable video" in note for note in report.notes)
    assert any("its video c-lost.mp4 is missing" in note for note in report.notes)


def test_running_it_again_adds_only_what_is_missing(tmp_path: Path) -> None:
    sample(tmp_path / "src", name="a")
    bring("vpt", tmp_path / "src", tmp_path / "dst")
    sample(tmp_path / "src", name="b")
    data, report = bring("vpt", tmp_path / "src", tmp_path / "dst")
    assert [episode.meta["source"] for episode in data.episodes] == ["a", "b"]
    assert report.episodes == 1


def test_the_command_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = sample(tmp_path / "src")
    lines[30] = "oops"
    jsonl(tmp_path / "src/cheeky-cornflower-1.jsonl", lines)
    args = [
        "import",
        "vpt",
        str(tmp_path / "src"),
        str(tmp_path / "dst"),
        "--resolution",
        "64",
        "112",
        "--min-episode-seconds",
        "1",
    ]
    assert main(args) == 0
    seen = capsys.readouterr()
    assert "2 episodes and 0.00 h added" in seen.out
    assert "1 malformed" in seen.out
    assert "note: " in seen.err
    assert "row 31: malformed" in seen.err
    assert main(["data", "check", str(tmp_path / "dst")]) == 0


def test_nothing_to_import_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for src, text in ((tmp_path / "empty", "has no .jsonl"), (tmp_path / "none", "no such file or folder")):
        assert main(["import", "vpt", str(src), str(tmp_path / "dst")]) == 2
        assert text in capsys.readouterr().err
    jsonl(tmp_path / "broken/x.jsonl", ["nope"] * 50)
    write(tmp_path / "broken/x.mp4", scene(np.zeros(50)), 20)
    assert main(["import", "vpt", str(tmp_path / "broken"), str(tmp_path / "dst")]) == 2
    assert "nothing could be imported; the first reason:" in capsys.readouterr().err
    assert not (tmp_path / "dst").exists()
    assert main(["import", "vpt", str(tmp_path / "broken"), str(tmp_path / "dst"), "--resolution", "63", "112"]) == 2
    assert "two even numbers" in capsys.readouterr().err


def test_a_recording_of_our_own_is_not_mixed_with(tmp_path: Path, toy_dataset_path: Path) -> None:
    sample(tmp_path / "src")
    with pytest.raises(DataError, match="holds a recording of our own"):
        bring("vpt", tmp_path / "src", toy_dataset_path)
