from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.import_samples import after, bring, jsonl, numbers, rows, scene, shaking, write

from reverie.errors import DataError


def table(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def sample(folder: Path, name: str = "walk", rate: float = 30.0, frames: int = 120) -> np.ndarray:
    yaw = shaking(frames)
    write(folder / f"{name}.mp4", scene(after(yaw)), rate)
    table(
        folder / f"{name}.csv",
        {"frame": range(frames), "key.jump": [int(i % 9 == 0) for i in range(frames)], "key.forward": [1] * frames,
         "mouse.yaw": yaw, "comment": ["x"] * frames},
    )  # fmt: skip
    return yaw


def test_a_table_by_frame(tmp_path: Path) -> None:
    yaw = sample(tmp_path / "src")
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert data.action_space.names == ("key.forward", "key.jump", "mouse.pitch", "mouse.yaw")
    np.testing.assert_allclose(rows(data, "mouse.yaw").sum(), yaw.sum(), atol=1e-3)
    heading = after(yaw).cumsum()
    np.testing.assert_allclose(np.diff(heading[numbers(data.clip(0).frames)]), rows(data, "mouse.yaw")[:-1], atol=1e-3)
    assert report.notes == []
    assert 12 <= rows(data, "key.jump").sum() <= 14, "no tap is lost at 30 frames a second"


def test_a_table_by_time_spreads_its_turns(tmp_path: Path) -> None:
    write(tmp_path / "src/run.mkv", scene(after(np.full(150, 2.0))), 50)
    lines = [{"time_s": 0.1 * i, "mouse.yaw": 10.0, "key.forward": 1, "key.left": int(i == 7)} for i in range(30)]
    jsonl(tmp_path / "src/run.jsonl", lines)
    data, _ = bring("folder", tmp_path / "src", tmp_path / "dst")
    turned = rows(data, "mouse.yaw")
    np.testing.assert_allclose(turned[:-1], 4.0, atol=1e-3)
    np.testing.assert_allclose(turned.sum(), 300.0, atol=0.1)
    np.testing.assert_array_equal(np.flatnonzero(rows(data, "key.left")), [17, 18, 19])


def test_a_video_of_variable_rate_is_resampled_by_its_times(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(1).choice([0.02, 0.04, 0.06], 140))
    times -= times[0]
    yaw = shaking(140)
    write(tmp_path / "src/vfr.mp4", scene(after(yaw)), 30, times.tolist())
    table(tmp_path / "src/vfr.csv", {"frame": range(140), "mouse.yaw": yaw})
    data, _ = bring("folder", tmp_path / "src", tmp_path / "dst")
    shown = np.array(numbers(data.clip(0).frames))
    assert np.abs(times[shown] - np.arange(len(shown)) / 25).max() < 0.034
    np.testing.assert_allclose(rows(data, "mouse.yaw").sum(), yaw.sum(), atol=1e-3)


def test_bad_rows_are_named_and_the_rest_kept(tmp_path: Path) -> None:
    yaw = sample(tmp_path / "src")
    cells: list[Any] = list(yaw)
    cells[50], cells[51] = "oops", "nan"
    keep = [i for i in range(120) if i != 90]
    table(tmp_path / "src/walk.csv", {"frame": keep, "mouse.yaw": [cells[i] for i in keep], "key.jump": [0] * 119})
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    notes = "\n".join(report.notes)
    assert "walk.csv: row 50: not a number" in notes
    assert "walk.csv: row 90: no row for this frame" in notes
    assert [numbers(data.clip(i).frames)[0] for i in range(3)] == [0, 52, 91]


@pytest.mark.parametrize(
    ("there", "text"), [(100, "ends after 100 rows, the video has 120 frames"), (150, "has 150 rows")]
)
def test_a_table_shorter_or_longer_than_its_video(tmp_path: Path, there: int, text: str) -> None:
    yaw = sample(tmp_path / "src")
    table(tmp_path / "src/walk.csv", {"frame": range(there), "mouse.yaw": np.resize(yaw, there)})
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert text in report.notes[0]
    assert min(there, 120) - numbers(data.clip(0).frames)[-1] in (1, 2)


def test_times_that_do_not_cover_the_video(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    table(tmp_path / "src/walk.csv", {"time_s": [1.0, 1.5, 2.0, 2.5], "key.forward": [1, 1, 0, 1]})
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert "covers 1.00 to 3.00 s of the video" in report.notes[0]
    assert numbers(data.clip(0).frames)[0] == 30
    table(tmp_path / "src/walk.csv", {"time_s": [1.0, 0.5], "key.forward": [1, 1]})
    with pytest.raises(DataError, match="time_s must be numbers that grow"):
        bring("folder", tmp_path / "src", tmp_path / "other")


def test_tables_that_are_missing_or_none(tmp_path: Path) -> None:
    sample(tmp_path / "src", "a")
    for name, text in (("b", "frame\n1\n"), ("c", ""), ("d", "key.jump\n1\n")):
        write(tmp_path / f"src/{name}.mp4", scene(np.zeros(30)), 30)
        (tmp_path / f"src/{name}.csv").write_text(text)
    write(tmp_path / "src/e.mp4", scene(np.zeros(30)), 30)
    write(tmp_path / "src/f.mp4", scene(np.zeros(30)), 30)
    jsonl(tmp_path / "src/f.jsonl", ['{"frame": 0, "key.jump": 1}', "[3]"])
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    notes = "\n".join(report.notes)
    assert "e.mp4: its table e.csv or .jsonl is missing" in notes
    assert "d.csv: needs a column frame or time_s, has ['key.jump']" in notes
    assert "f.jsonl: row 2 is not a JSON object" in notes
    assert {episode.meta["source"] for episode in data.episodes} == {"a.mp4"}


def test_folders_without_anything_to_import(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no videos"):
        bring("folder", tmp_path / "empty", tmp_path / "dst")
    write(tmp_path / "bare/a.mp4", scene(np.zeros(30)), 30)
    with pytest.raises(DataError, match="no actions found"):
        bring("folder", tmp_path / "bare", tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


def test_pictures_that_show_actions_late_are_put_right(tmp_path: Path) -> None:
    yaw = sample(tmp_path / "src", rate=25)
    write(tmp_path / "src/walk.mp4", scene(after(after(after(yaw)))), 25)
    data, _ = bring("folder", tmp_path / "src", tmp_path / "dst", late_frames=2)
    np.testing.assert_allclose(rows(data, "mouse.yaw"), yaw[:-2], atol=1e-3)
    assert numbers(data.clip(0).frames)[0] == 2
