from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.cli import main
from reverie.data.dataset import Dataset
from reverie.data.sheet import choose_episodes, draw_sheet, frame_moments
from reverie.errors import DataError
from reverie.overlay import LIT, add_arrow


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_command_draws_rows_of_episodes(toy_dataset_path: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"sheet{suffix}"
    assert main(["data", "sheet", str(toy_dataset_path), "-o", str(out), "--episodes", "2", "--frames", "5"]) == 0
    with Image.open(out) as sheet:
        assert sheet.format == {".png": "PNG", ".jpg": "JPEG"}[suffix]
        assert sheet.width == 5 * (48 + 4) + 4
        assert sheet.height == 2 * (32 + 20 + 16 + 4) + 4


def test_pictures_and_keys_are_those_of_the_row(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    longest = max(range(data.num_episodes), key=lambda index: data.episodes[index].length)
    sheet = np.asarray(draw_sheet(data, [longest], 3, apart_s=0.16))
    clip = data.clip(longest)
    for column, moment in enumerate((0, 4, 8)):
        x = 4 + column * 52
        seen = sheet[4:36, x : x + 48]
        if np.abs(clip.actions[moment, -2:]).max() < 0.5:
            np.testing.assert_array_equal(seen, clip.frames[moment])
        corner = np.r_[0:6, 26:32]
        np.testing.assert_array_equal(seen[corner], clip.frames[moment][corner])
        lit = (sheet[36:56, x : x + 28] == LIT).all(-1).any()
        assert lit == bool(clip.actions[moment, :4].any())


def test_moments_and_episodes() -> None:
    assert frame_moments(100, 5, None, 25) == [0, 25, 50, 74, 99]
    assert frame_moments(100, 3, 1.0, 25) == [0, 25, 50]
    assert frame_moments(30, 3, 1.0, 25) == [0, 25]
    assert frame_moments(1, 4, None, 25) == [0]


def test_episodes_are_spread_or_drawn(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    last = data.num_episodes - 1
    assert choose_episodes(data, 2, None) == [0, last]
    assert choose_episodes(data, 99, 4) == list(range(last + 1))
    assert choose_episodes(data, 2, 1) == choose_episodes(data, 2, 1)


def test_the_arrow_points_the_way_of_the_turn() -> None:
    grey = np.full((64, 112, 3), 90, np.uint8)
    lit = lambda turn: np.argwhere((add_arrow(grey, turn) == LIT).all(-1)).mean(0)  # noqa: E731
    assert lit((0.0, 6.0))[1] > 58 > 54 > lit((0.0, -6.0))[1]
    assert lit((6.0, 0.0))[0] < 30 < 34 < lit((-6.0, 0.0))[0]
    assert add_arrow(grey, (0.1, 0.2)) is grey


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-o", "sheet.gif"], "ends in .png, .jpg or .jpeg"),
        (["-o", "/nowhere/at/all/sheet.png"], "does not exist"),
        (["--episodes", "0"], "episodes must be 1 to 1000, got 0"),
        (["--apart", "-1"], "apart must be positive"),
        (["--scale", "9"], "scale must be 1 to 4"),
    ],
)
def test_bad_requests(
    toy_dataset_path: Path,
    tmp_path: Path,
    args: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "sheet", str(toy_dataset_path), *args]) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sheet_that_is_too_large_is_refused(toy_dataset_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 x 50000 pictures is too large"):
        draw_sheet(Dataset(toy_dataset_path), [0, 1, 2], 50_000)
