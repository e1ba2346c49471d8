"""Videos with a log of how they were made."""

from __future__ import annotations

import numpy as np
import pytest

from reverie.engine.media.video import VideoWriter, read_log
from reverie.errors import DataError


def test_a_failed_video_leaves_nothing(tmp_path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")

    def fail() -> None:
        with VideoWriter(path, (32, 64), {}) as video:
            video.write(np.zeros((3, 32, 64, 3), np.uint8))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_logs_of_foreign_files(tmp_path) -> None:
    path = tmp_path / "x.mp4"
    with pytest.raises(DataError):
        read_log(path)
    path.write_bytes(b"garbage")
    with pytest.raises(DataError):
        read_log(path)
