from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.errors import CheckpointError
from reverie.models.start_frames import (
    INDEX,
    NewStartFrame,
    copy_start_frames,
    listed_files,
    read_start_frames,
    write_start_frames,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)


def test_written_frames_are_read_back(tmp_path: Path) -> None:
    write_start_frames(
        tmp_path,
        [NewStartFrame(IMAGE, "Doom: E1/M1 (a hall)", ("forward",), True), NewStartFrame(255 - IMAGE, "…")],
    )
    first, second = read_start_frames(tmp_path)
    assert (first.title, first.keys, first.mouse) == ("Doom: E1/M1 (a hall)", ("forward",), True)
    assert (second.title, second.keys, second.mouse) == ("…", None, None)
    assert np.array_equal(np.asarray(Image.open(first.file)), IMAGE)
    assert listed_files(tmp_path / INDEX) == ["starts/01-doom-e1-m1-a-hall.png", "starts/02-start.png"]


def test_images_without_a_list_have_their_names_as_titles(tmp_path: Path) -> None:
    assert read_start_frames(tmp_path) == []
    (tmp_path / "starts").mkdir()
    for name in ("b.png", "a.jpg", "._a.jpg", "notes.txt"):
        Image.fromarray(IMAGE).save(tmp_path / "starts" / name, "PNG")
    assert [frame.title for frame in read_start_frames(tmp_path)] == ["a", "b"]


def test_images_beside_the_list_come_after_it(tmp_path: Path) -> None:
    write_start_frames(tmp_path, [NewStartFrame(IMAGE, "listed")])
    Image.fromarray(IMAGE).save(tmp_path / "starts" / "00-mine.webp")
    assert [frame.title for frame in read_start_frames(tmp_path)] == ["listed", "00-mine"]


def test_a_listed_image_that_has_gone_is_left_out(tmp_path: Path) -> None:
    write_start_frames(tmp_path, [NewStartFrame(IMAGE, "gone"), NewStartFrame(IMAGE, "here")])
    read_start_frames(tmp_path)[0].file.unlink()
    assert [frame.title for frame in read_start_frames(tmp_path)] == ["here"]


def test_frames_are_copied_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    write_start_frames(source, [NewStartFrame(IMAGE, "hall", ("jump",), False)])
    assert copy_start_frames(tmp_path / "nothing", target) == 0
    assert not target.exists()
    assert copy_start_frames(source, target) == 1
    (copied,) = read_start_frames(target)
    assert (copied.file.parent.parent, copied.title, copied.keys, copied.mouse) == (target, "hall", ("jump",), False)


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        {"starts": [{"file": "starts/a.png"}]},
        {"starts": [{"file": "../../secret.png", "title": "a"}]},
        {"starts": [{"file": "starts/../../secret.png", "title": "a"}]},
        {"starts": [{"file": "/etc/secret.png", "title": "a"}]},
        {"starts": [{"file": "starts/model.safetensors", "title": "a"}]},
        {"starts": [{"file": "starts/a.png", "title": 3}]},
        {"starts": [{"file": "starts/a.png", "title": "a", "keys": "forward"}]},
        {"starts": [{"file": "starts/a.png", "title": "a", "mouse": 1}]},
    ],
)
def test_a_bad_list_is_refused_in_one_line(tmp_path: Path, content: object) -> None:
    (tmp_path / INDEX).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(CheckpointError, match="is no list of start frames") as caught:
        read_start_frames(tmp_path)
    assert "\n" not in str(caught.value)
