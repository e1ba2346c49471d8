from __future__ import annotations

from pathlib import Path

import pytest

from reverie.engine.media.video import VideoWriter, read_frames, read_log
from reverie.paths import is_companion, local_path, own_files


def test_no_path_is_a_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("take:1/walk.mp4") == str(tmp_path / "take:1/walk.mp4")
    assert local_path(Path("./take:1")) == str(tmp_path / "take:1")
    assert local_path("/a/b:c") == "/a/b:c"


def test_companions_of_a_mac_are_no_files_of_ours(tmp_path: Path) -> None:
    names = ["._a.png", "b.png", "a.png", ".hidden", "..c"]
    assert [path.name for path in own_files(tmp_path / name for name in names)] == ["..c", ".hidden", "a.png", "b.png"]
    assert is_companion(tmp_path / "._x")
    assert not is_companion(Path("._folder/x"))


def test_a_generated_video_may_be_called_by_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    with VideoWriter(Path("out:1.mp4"), (32, 64), {"seed": 3}) as video:
        video.write(np.zeros((3, 32, 64, 3), np.uint8))
    assert read_log("out:1.mp4") == {"seed": 3}
    assert read_frames(Path("out:1.mp4")).shape == (3, 32, 64, 3)
