from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.import_samples import after, bring, numbers, rows, scene, shaking, write

from reverie.data.checks import agreement
from reverie.errors import DataError


def sample(root: Path, frames: int = 96, first: int = 1, with_yaw: bool = True) -> np.ndarray:
    """A clip at 16 frames a second whose turn i makes frame i + 1; returns the turns (yaw right, pitch up)."""
    yaw, pitch = shaking(frames), np.array([2.0 * (-1) ** i for i in range(frames)])
    shown = after(yaw)
    actions = {}
    for number in range(frames):
        row = number - first
        known = 0 <= row < frames
        step = {
            "ws": 1 if number % 3 else 2, "ad": number % 3, "scs": number % 4,
            "yaw_delta": yaw[row] / 15 if known else 0.0, "pitch_delta": -pitch[row] / 15 if known else 0.0,
        }  # fmt: skip
        if with_yaw:
            step["yaw"] = float(shown[: number + 1].sum())
        actions[str(number)] = step
    about = {"biome": "forest", "initial_weather": "rain", "start_time": "Sunset", "actions": actions}
    (root / "data_2003/metadata").mkdir(parents=True, exist_ok=True)
    (root / "data_2003/metadata/seed_1_part_1.json").write_text(json.dumps(about))
    write(root / "data_2003/video/seed_1_part_1.mp4", scene(shown, after(pitch)), 16)
    return np.stack([pitch, yaw], axis=1)


@pytest.mark.parametrize("with_yaw", [True, False])
def test_turns_and_keys_arrive(tmp_path: Path, with_yaw: bool) -> None:
    turns = sample(tmp_path / "src", with_yaw=with_yaw)
    data, _ = bring("gf-minecraft", tmp_path / "src", tmp_path / "dst")
    clip = data.clip(0)
    shown = np.array(numbers(clip.frames))
    np.testing.assert_allclose(rows(data, "mouse.yaw").sum(), turns[:-1, 1].sum(), atol=1e-3)
    heading = after(turns[:, 1]).cumsum()
    np.testing.assert_allclose(np.diff(heading[shown]), rows(data, "mouse.yaw")[:-1], atol=1e-3)
    assert rows(data, "mouse.pitch")[0] == pytest.approx(2.0), "up is positive, theirs is down"
    assert agreement(clip.frames, clip.actions[:-1, -2] * (abs(clip.actions[:-1, -1]) < 2), "pitch") > 0.9
    row = int(np.flatnonzero(shown == 4)[-1])
    held = {key for key in data.action_space.keys if rows(data, f"key.{key}")[row]}
    assert held == {"forward", "right", "jump"}, "action 5 follows frame 4: ws 1, ad 2, scs 1"
    meta = data.episodes[0].meta
    assert (meta["map"], meta["weather"], meta["time"]) == ("forest", "rain", "Sunset")


def test_files_whose_actions_follow_their_own_frame_are_recognised(tmp_path: Path) -> None:
    turns = sample(tmp_path / "src", first=0)
    data, _ = bring("gf-minecraft", tmp_path / "src", tmp_path / "dst")
    heading = after(turns[:, 1]).cumsum()
    np.testing.assert_allclose(np.diff(heading[numbers(data.clip(0).frames)]), rows(data, "mouse.yaw")[:-1], atol=1e-3)


def test_missing_and_malformed_actions_are_named(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    path = tmp_path / "src/data_2003/metadata/seed_1_part_1.json"
    content = json.loads(path.read_text())
    del content["actions"]["40"]
    content["actions"]["60"]["ws"] = None
    content["actions"]["80"]["yaw_delta"] = float("nan")
    path.write_text(json.dumps(content))
    data, report = bring("gf-minecraft", tmp_path / "src", tmp_path / "dst")
    notes = "\n".join(report.notes)
    assert "row 40: missing" in notes
    assert "row 60: malformed" in notes
    assert "row 80: not a number" in notes
    assert data.num_episodes == 4


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    metadata = tmp_path / "src/data_2003/metadata"
    (metadata / "seed_2.json").write_text("{}")
    (metadata / "seed_3.json").write_text("[1]")
    write(tmp_path / "src/data_2003/video/seed_3.mp4", scene(np.zeros(20)), 16)
    _, report = bring("gf-minecraft", tmp_path / "src", tmp_path / "dst")
    assert any("seed_2.json: its video video/seed_2.mp4 is missing" in note for note in report.notes)
    assert any("seed_3.json: needs a JSON object with numbered actions" in note for note in report.notes)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"has no metadata/\*.json"):
        bring("gf-minecraft", tmp_path / "none", tmp_path / "other")


def test_parts_that_are_not_joined_and_unpacked(tmp_path: Path) -> None:
    (tmp_path / "src/data_2003").mkdir(parents=True)
    for name in ("data_2003/part_aa", "data_2003/part_ab", "data_269.zip"):
        (tmp_path / "src" / name).write_bytes(b"PK")
    with pytest.raises(
        DataError, match=r"join and unpack data_269\.zip, part_aa, part_ab first: cat part_\* > data\.zip"
    ):
        bring("gf-minecraft", tmp_path / "src", tmp_path / "dst")
