"""Tables as they come: line separators inside strings, byte order marks, foreign files, lost lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.import_samples import actions_by_frame, bring, jsonl, pairs, scene, write

from reverie.data.dataset import Dataset
from reverie.data.importers.take import parse_json, read_lines
from reverie.errors import DataError

APPLE = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(range(256))
"""What macOS writes as ._NAME beside NAME on a drive without attributes."""
PAGE = b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><Error><Code>BlobNotFound</Code></Error>'


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """80 numbered frames at 25 a second."""
    return write(tmp_path_factory.mktemp("video") / "a.mp4", scene(np.zeros(80)), 25).read_bytes()


def step(index: int, *, poses: bool = True, said: str = "", jump: int = 50, **more: Any) -> dict[str, Any]:
    keys = ["key.keyboard.space"] if index == jump else []
    at = {"xpos": float(index), "ypos": 64.0, "zpos": 0.0, "yaw": 0.0, "pitch": 0.0}
    mouse = {"dx": round(index / 15, 6), "dy": 0.0, "buttons": []}
    return {"mouse": mouse, "keyboard": {"keys": keys, "chars": said}, **(at if poses else {}), **more}


def lines(frames: int = 80, **options: Any) -> bytes:
    text = "".join(json.dumps(step(i, **options), ensure_ascii=False) + "\n" for i in range(frames))
    return text.encode()


def takes(folder: Path, video: bytes, **files: bytes) -> Path:
    folder.mkdir()
    for name, table in files.items():
        stem = name.replace("__", "._")
        (folder / f"{stem}.jsonl").write_bytes(table)
        (folder / f"{stem}.mp4").write_bytes(APPLE if stem.startswith("._") else video)
    return folder


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_a_line_ends_with_a_line_feed_alone(tmp_path: Path, video: bytes, mark: str) -> None:
    table = "".join(
        json.dumps(step(i, said=f"a{mark}b" if i == 40 else ""), ensure_ascii=False) + "\r\n" for i in range(80)
    )
    src = takes(tmp_path / "vpt", video, a=table.encode())
    data, report = bring("vpt", src, tmp_path / "dst")
    assert report.notes == []
    assert pairs(data) == [(i, i) for i in range(80)]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "walk.mp4").write_bytes(video)
    row = [{"frame": i, "mouse.yaw": i / 100, "note": "a\u2028b\u0085" if i == 20 else ""} for i in range(80)]
    (folder / "walk.jsonl").write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in row), "utf-8")
    assert pairs(bring("folder", folder, tmp_path / "jsonl")[0]) == [(i, i) for i in range(80)]
    (folder / "walk.jsonl").unlink()
    cells = [f'{i},{i / 100},"{"a" + mark + "b" if i == 20 else ""}"' for i in range(80)]
    (folder / "walk.csv").write_text("\n".join(["frame,mouse.yaw,note", *cells]) + "\n", "utf-8", newline="")
    assert pairs(bring("folder", folder, tmp_path / "csv")[0]) == [(i, i) for i in range(80)]


@pytest.mark.parametrize(
    ("files", "kept", "has_poses"),
    [
        ({"__a": APPLE, "a": lines(), "b": lines(jump=1)}, ["a", "b"], True),
        ({"aaa": PAGE, "b": lines(), "c": lines(jump=1)}, ["b", "c"], True),
        ({"aaa": b"", "b": lines()}, ["b"], True),
        ({"aaa": b"\xff\xfe\x00", "b": lines()}, ["b"], True),
        ({"aaa": b"[" * 100_000, "b": lines()}, ["b"], True),
        ({"a": b"\xef\xbb\xbf" + lines(), "b": lines(jump=1)}, ["a", "b"], True),
        ({"a": lines(), "b": lines(poses=False)}, ["a", "b"], False),
        ({"a": lines(poses=False), "b": lines()}, ["a", "b"], False),
    ],
)
def test_one_bad_file_decides_for_no_other(
    tmp_path: Path, video: bytes, files: dict[str, bytes], kept: list[str], has_poses: bool
) -> None:
    data, report = bring("vpt", takes(tmp_path / "src", video, **files), tmp_path / "dst")
    assert [episode.meta["source"] for episode in data.episodes] == kept
    assert all((data.clip(i).poses is not None) == has_poses for i in range(len(kept)))
    assert all(row == number for number, row in pairs(data))
    if not has_poses:
        assert any("has no poses (xpos, zpos, ypos, yaw, pitch), so they are left out" in n for n in report.notes)
    if "aaa" in files:
        assert any("aaa.jsonl" in note for note in report.notes)


def joined(table: bytes, line: int) -> bytes:
    """Two lines without the line end between them."""
    parts = table.split(b"\n")
    return b"\n".join([*parts[:line], parts[line] + parts[line + 1], *parts[line + 2 :]])


def added(table: bytes, line: int) -> bytes:
    """A line more that is no object."""
    parts = table.split(b"\n")
    return b"\n".join([*parts[:line], b"{}}", *parts[line:]])


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (partial(joined, line=30), 30),
        (partial(added, line=30), 30),
        (partial(joined, line=0), 0),
        (lambda table: table[: len(table) * 6 // 10], 48),
    ],
)
def test_rows_behind_a_lost_or_added_line_are_not_believed(
    tmp_path: Path, video: bytes, damage: Callable[[bytes], bytes], kept: int
) -> None:
    src = takes(tmp_path / "src", video, a=damage(lines()))
    if not kept:
        with pytest.raises(DataError, match=r"nothing could be imported; the first reason: .*a.jsonl"):
            bring("vpt", src, tmp_path / "dst")
        return
    data, report = bring("vpt", src, tmp_path / "dst")
    found = pairs(data)
    assert all(row == number for number, row in found)
    assert abs(len(found) - kept) <= 2
    assert any("cannot be read, and there is not a row for each frame" in note for note in report.notes)


def test_rows_whose_clock_runs_backwards_are_refused(tmp_path: Path, video: bytes) -> None:
    whole = [json.dumps(step(i, milli=1000 + 50 * i)) for i in range(80)]
    data, _ = bring("vpt", takes(tmp_path / "sound", video, a="\n".join(whole).encode()), tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in range(80)]
    whole[30], whole[31] = whole[31], whole[30]
    with pytest.raises(DataError, match=r"a.jsonl: row 32: is of an earlier time than the row before"):
        bring("vpt", takes(tmp_path / "swapped", video, a="\n".join(whole).encode()), tmp_path / "other")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("frame,key.jump,key.jump\n0,1,0\n", "has the column key.jump 2 times"),
        ("frame,key.jump\n0,1,1\n1,0\n", "row 2 has 3 cells, the header 2"),
        ('frame,key.jump\n0,"1\n1,0\n', "not a readable table"),
        ("frame,key.jump\n" + "0,1\n" * 3, "several rows for this frame"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path: Path, video: bytes, table: str, text: str) -> None:
    (tmp_path / "src").mkdir()
    for name in ("a", "walk"):
        (tmp_path / f"src/{name}.mp4").write_bytes(video)
    actions_by_frame(tmp_path / "src/a.csv", 80)
    (tmp_path / "src/walk.csv").write_text(table)
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert any("walk.csv" in note and text in note for note in report.notes)
    assert pairs(data) == [(i, i) for i in range(80)]


def test_keys_that_are_neither_0_nor_1_and_a_row_cut_short_are_left_out(tmp_path: Path, video: bytes) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/walk.mp4").write_bytes(video)
    cells = [f"{i},{3 if i == 30 else int(i == 50)},{i / 100}" for i in range(80)]
    (tmp_path / "src/walk.csv").write_text("frame,key.jump,mouse.yaw\n" + "\n".join(cells))
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in range(79) if i != 30]
    assert any("row 30: a key that is neither 0 nor 1" in note for note in report.notes)
    assert any("row 81: has no line end, and may be cut short" in note for note in report.notes)
    cells = [f"{i / 25},{3 if i == 30 else int(i == 50)},{i / 100}" for i in range(80)]
    (tmp_path / "src/walk.csv").write_text("time_s,key.jump,mouse.yaw\n" + "\n".join(cells) + "\n")
    data, report = bring("folder", tmp_path / "src", tmp_path / "by-time")
    assert 30 not in {number for number, _ in pairs(data)}
    assert any("row 32: a key that is neither 0 nor 1" in note for note in report.notes)


def test_tables_and_videos_that_cannot_be_told_apart_are_refused(tmp_path: Path, video: bytes) -> None:
    for name in ("one.mp4", "one.mkv", "two.mp4", "a.mp4"):
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / f"src/{name}").write_bytes(video)
    for name in ("one.csv", "two.csv", "a.csv"):
        actions_by_frame(tmp_path / f"src/{name}", 80)
    jsonl(tmp_path / "src/two.jsonl", [{"frame": 0, "key.jump": 1}])
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert [episode.meta["source"] for episode in data.episodes] == ["a.mp4"]
    assert sum("shares its table one.csv with another video" in note for note in report.notes) == 2
    assert any("two.mp4: has two tables, two.csv and two.jsonl" in note for note in report.notes)


def test_companions_of_a_mac_are_left_alone_everywhere(tmp_path: Path, video: bytes) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "walk.mp4").write_bytes(video)
    actions_by_frame(src / "walk.csv", 80)
    companions(src)
    data, report = bring("folder", src, tmp_path / "dst")
    assert report.notes == []
    companions(tmp_path / "dst")
    assert pairs(Dataset(tmp_path / "dst")) == pairs(data) == [(i, i) for i in range(80)]
    assert Dataset(tmp_path / "dst").fingerprint == data.fingerprint
    assert bring("folder", src, tmp_path / "dst")[1].notes == [], "the writer passes them over too"
    again, report = bring("lerobot", tmp_path / "dst", tmp_path / "again")
    assert pairs(again) == pairs(data)
    assert report.notes == []
    metadata = tmp_path / "gf/data_1/metadata"
    metadata.mkdir(parents=True)
    actions = {str(i): {"ws": 0, "ad": 0, "scs": 0, "yaw_delta": (i - 1) / 1500, "pitch_delta": 0} for i in range(81)}
    (metadata / "a.json").write_text(json.dumps({"actions": actions}))
    (tmp_path / "gf/data_1/video").mkdir()
    (tmp_path / "gf/data_1/video/a.mp4").write_bytes(video)
    companions(tmp_path / "gf")
    data, report = bring("gf-minecraft", tmp_path / "gf", tmp_path / "gf-dst")
    assert pairs(data) == [(i, i) for i in range(80)]
    assert not any("._" in note for note in report.notes)


def companions(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(APPLE)


def test_codes_that_gf_minecraft_does_not_have_are_left_out(tmp_path: Path, video: bytes) -> None:
    metadata = tmp_path / "src/data_1/metadata"
    metadata.mkdir(parents=True)
    actions: dict[str, Any] = {
        str(i): {"ws": 1, "ad": 0, "scs": 3, "yaw_delta": (i - 1) / 1500, "pitch_delta": 0} for i in range(81)
    }
    actions["20"]["ws"], actions["40"]["ad"], actions["60"]["scs"] = 9, 1.5, 1e400
    (metadata / "a.json").write_text(json.dumps({"actions": actions}))
    (tmp_path / "src/data_1/video").mkdir()
    (tmp_path / "src/data_1/video/a.mp4").write_bytes(video)
    data, report = bring("gf-minecraft", tmp_path / "src", tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in range(80) if i not in (19, 39, 59)]
    assert all(any(f"row {row}: malformed" in note for note in report.notes) for row in (20, 40, 60))
    (metadata / "a.json").write_text('{"actions": {"1": {}, "1": {}}}')
    with pytest.raises(DataError, match="the name '1' is there twice"):
        bring("gf-minecraft", tmp_path / "src", tmp_path / "other")


def test_json_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffa\r\nb\u2028c\n\nd".encode())
    assert read_lines(tmp_path / "a") == ["a", "b\u2028c", "", "d"]
    (tmp_path / "a").write_bytes(b"")
    assert read_lines(tmp_path / "a") == []
    for text in ("[" * 100_000, '{"a": 1, "a": 2}', "{", "9" * 5000):
        with pytest.raises(ValueError):
            parse_json(text)
