from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.import_samples import after, bring, numbers, rows, scene, shaking, write

from reverie.errors import DataError

pytest.importorskip("mcap")
from mcap.writer import Writer

START = 1_751_017_792_000_000_000
PER_COUNT = 0.05


def record(path: Path, messages: list[tuple[int, str, Any]]) -> None:
    """Write (time in ns, topic, message) as ocap does: profile owa, JSON messages."""
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile="owa", library="mcap-owa-support 0.5.1")
        channels: dict[str, int] = {}
        for when, topic, message in sorted(messages, key=lambda one: one[0]):
            if topic not in channels:
                name = "desktop/" + topic.title().replace("/", "")
                schema = writer.register_schema(name, "jsonschema", b'{"type": "object"}')
                channels[topic] = writer.register_channel(topic, "json", schema)
            data = message if isinstance(message, bytes) else json.dumps(message).encode()
            writer.add_message(channels[topic], log_time=when, data=data, publish_time=when)
        writer.finish()


def sample(folder: Path, name: str = "play", frames: int = 240, old: bool = False) -> tuple[list[Any], np.ndarray]:
    """Four seconds at 60 frames a second: each frame's turn arrives in three raw events after it was captured."""
    counts = np.round(shaking(frames) * 20 / 3) * 3
    pts = [round(i / 60 * 1e9) for i in range(frames)]
    captured = [START + 1_000_000_000 + one for one in pts]
    messages: list[Any] = [(START, "keyboard/state", {"buttons": []}), (START, "window", {"title": "game"})]
    for i in range(frames):
        media = {"uri": f"{name}.mkv", "pts_ns": pts[i]}
        old_way = {"path": f"{name}.mkv", "pts": pts[i], "utc_ns": captured[i]}
        new_way = {"utc_ns": captured[i], "source_shape": [112, 64], "shape": [112, 64], "media_ref": media}
        messages.append((captured[i] + 2_000_000, "screen", old_way if old else new_way))
        for part in (2, 6, 10):
            x, y = ("dx", "dy") if old else ("last_x", "last_y")
            raw = {
                "us_flags": 0,
                x: int(counts[i] / 3),
                y: 2,
                "button_flags": 0,
                "timestamp": captured[i] + part * 1_000_000,
            }
            messages.append((captured[i] + part * 1_000_000, "mouse/raw", raw))
    for at, vk, kind in (
        (0.5, 0x57, "press"),
        (0.6, 0x57, "press"),
        (2.0, 0x57, "release"),
        (3.0, 0x20, "press"),
        (3.005, 0x20, "release"),
    ):
        messages.append((captured[0] + round(at * 1e9), "keyboard", {"event_type": kind, "vk": vk, "timestamp": 0}))
    for at, down in ((1.0, True), (1.2, False)):
        click = {"event_type": "click", "x": 5, "y": 5, "button": "left", "pressed": down}
        messages.append((captured[0] + round(at * 1e9), "mouse", click))
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{name}.mkv", scene(after(counts * PER_COUNT)), 60)
    record(folder / f"{name}.mcap", messages)
    return messages, counts * PER_COUNT


@pytest.mark.parametrize("old", [False, True])
def test_turns_and_keys_arrive(tmp_path: Path, old: bool) -> None:
    _, yaw = sample(tmp_path / "src", old=old)
    data, report = bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=PER_COUNT)
    assert report.notes == []
    assert data.action_space.keys == ("forward", "back", "left", "right", "jump", "crouch", "attack", "use")
    shown = np.array(numbers(data.clip(0).frames))
    heading = after(yaw).cumsum()
    np.testing.assert_allclose(np.diff(heading[shown]), rows(data, "mouse.yaw")[:-1], atol=1e-3)
    per_row = np.diff(shown)
    np.testing.assert_allclose(rows(data, "mouse.pitch")[:-1], -6 * PER_COUNT * per_row, atol=1e-4)
    seconds = np.arange(len(shown)) / 25
    forward = rows(data, "key.forward").astype(bool)
    np.testing.assert_array_equal(forward[(seconds > 0.52) & (seconds < 1.98)], True)
    np.testing.assert_array_equal(forward[(seconds < 0.44) | (seconds > 2.02)], False)
    assert rows(data, "key.jump").sum() == 1, "a tap between two frames"
    assert seconds[rows(data, "key.attack") > 0].min() == pytest.approx(1.0, abs=0.041)
    assert rows(data, "key.attack").sum() in (5, 6, 7)


def test_the_picture_agrees(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    data, report = bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=PER_COUNT, checks=True)
    assert data.num_episodes == 1
    assert report.notes == []
    with pytest.raises(DataError, match="turns the wrong way"):
        bring("owamcap", tmp_path / "src", tmp_path / "bad", degrees_per_count=-PER_COUNT, checks=True)


def test_other_keys_and_no_mouse(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    wishes = ("w=forward", "mouse.left=handbrake", "space=trick")
    data, _ = bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=0.0, map=wishes)
    assert data.action_space.names == ("key.forward", "key.handbrake", "key.trick")
    assert rows(data, "key.handbrake").any()


def test_frames_that_no_message_names_are_left_out(tmp_path: Path) -> None:
    messages, _ = sample(tmp_path / "src")
    record(tmp_path / "src/play.mcap", [m for m in messages if m[1] != "screen" or m[2]["media_ref"]["pts_ns"] < 2e9])
    data, report = bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=PER_COUNT)
    assert "120 frames of the video have no message of the topic screen" in report.notes[0]
    assert report.outcomes[0].dropped["no screen message"] == 120
    assert numbers(data.clip(0).frames)[-1] < 121


def test_damaged_files_are_named_and_the_others_kept(tmp_path: Path) -> None:
    messages, _ = sample(tmp_path / "src", "a")
    record(tmp_path / "src/b.mcap", [one for one in messages if one[1] != "screen"])
    whole = (tmp_path / "src/a.mcap").read_bytes()
    (tmp_path / "src/c.mcap").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "src/d.mcap").write_text("hello")
    record(tmp_path / "src/e.mcap", [one for one in messages if one[1] != "mouse/raw"])
    (tmp_path / "src/e.mkv").write_bytes((tmp_path / "src/a.mkv").read_bytes())
    record(tmp_path / "src/a.mcap", [*messages, (START + 5, "keyboard", b"{nope"), (START + 6, "keyboard", {"vk": 3})])
    data, report = bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=PER_COUNT)
    notes = "\n".join(report.notes)
    assert "b.mcap: has 0 messages of the topic screen" in notes
    assert "c.mcap: not a readable mcap file" in notes
    assert "d.mcap: not a readable mcap file" in notes
    assert "e.mcap: has no topic mouse/raw" in notes
    assert notes.count("a malformed message of the topic keyboard") == 2
    assert {episode.meta["source"] for episode in data.episodes} == {"a"}


@pytest.mark.parametrize("where", ["../private.mkv", "{folder}/private.mkv", "file://{folder}/private.mkv"])
def test_a_video_of_another_folder_is_not_taken(tmp_path: Path, where: str) -> None:
    """Somebody else's recording names a file of whoever imports it."""
    (tmp_path / "src").mkdir()
    record(tmp_path / "src/play.mcap", [
        (START + i, "screen", {"utc_ns": START + i, "media_ref": {"uri": where.format(folder=tmp_path), "pts_ns": i}})
        for i in range(3)
    ])  # fmt: skip
    (tmp_path / "private.mkv").write_bytes(b"private")
    with pytest.raises(DataError, match=r"play.mkv: the video is missing"):
        bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=PER_COUNT)


def test_a_missing_video(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    (tmp_path / "src/play.mkv").unlink()
    with pytest.raises(DataError, match=r"play.mkv: the video is missing"):
        bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=PER_COUNT)
    assert not (tmp_path / "dst").exists()


def test_bad_requests(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no .mcap"):
        bring("owamcap", tmp_path / "empty", tmp_path / "dst", degrees_per_count=1.0)
    sample(tmp_path / "src")
    with pytest.raises(DataError, match="--degrees-per-count"):
        bring("owamcap", tmp_path / "src", tmp_path / "dst")
    with pytest.raises(DataError, match="--map wheel=left: must be KEY=NAME"):
        bring("owamcap", tmp_path / "src", tmp_path / "dst", degrees_per_count=1.0, map=("wheel=left",))
