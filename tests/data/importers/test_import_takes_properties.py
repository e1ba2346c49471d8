"""Importers and datasets, whatever happens to the files: no traceback, and damage stays where it is.

A text has no checksum: a digit that is another digit cannot be seen.  What must hold is that nothing else changes:
every other row that is kept says what it said, with the frame that it belonged to.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.damage import ANY, CUT, FLIP, Damage, examples
from tests.helpers.import_samples import FRONT, actions_by_frame, bring, encode, lerobot_set, numbers, scene

from reverie.data.container import frame_times
from reverie.data.dataset import Dataset
from reverie.data.importers import folder, gf_minecraft, vpt
from reverie.data.importers.take import WALKER, Track, read_json
from reverie.data.importers.video import numbered_pictures
from reverie.errors import DataError
from reverie.types import ActionSpace

FRAMES = 40
TIMES = np.arange(FRAMES) / 25
SPACE = ActionSpace(("jump",))
Reader = Callable[[Path], Track]
ORDERS = st.permutations(range(FRAMES))


def vpt_lines() -> bytes:
    return b"".join(
        json.dumps(
            {"mouse": {"dx": i / 10, "dy": -i / 5, "buttons": [0] * (i % 3 == 0)}, "milli": 5000 + 40 * i,
             "keyboard": {"keys": ["key.keyboard.w"] * (i % 2)}, "isGuiOpen": False,
             "xpos": i + 0.5, "ypos": 64.0, "zpos": 1.0, "yaw": 2.0 * i, "pitch": 0.0}
        ).encode()
        + b"\n"
        for i in range(FRAMES)
    )  # fmt: skip


def csv_lines() -> bytes:
    cells = [f"{i},{i % 2},{i / 10},{-i / 5}" for i in range(FRAMES)]
    return "\n".join(["frame,key.jump,mouse.yaw,mouse.pitch", *cells, ""]).encode()


def jsonl_lines() -> bytes:
    rows = [{"frame": i, "key.jump": i % 2, "mouse.yaw": i / 10, "mouse.pitch": -i / 5} for i in range(FRAMES)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def gf_lines() -> bytes:
    actions = {
        str(i): {"ws": i % 3, "ad": 0, "scs": i % 4, "pitch_delta": i / 100, "yaw_delta": i / 50,
                 "yaw": round(sum(15 * k / 50 for k in range(i + 1)), 3)}
        for i in range(FRAMES + 1)
    }  # fmt: skip
    return json.dumps({"biome": "x", "actions": actions}, indent=0).replace("},\n", "},\n").encode()


def read_vpt(path: Path) -> Track:
    return vpt.read_track(path, True, TIMES)


def read_folder(path: Path) -> Track:
    return folder.read_track(path, SPACE, TIMES)


def read_gf(path: Path) -> Track:
    try:
        actions = {int(key): value for key, value in read_json(path)["actions"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # as open_source does
        raise DataError(str(error)) from error
    return gf_minecraft.read_track(path, actions, TIMES)


TABLES: dict[str, tuple[str, Callable[[], bytes], Reader]] = {
    "vpt": ("a.jsonl", vpt_lines, read_vpt),
    "csv": ("a.csv", csv_lines, read_folder),
    "jsonl": ("a.jsonl", jsonl_lines, read_folder),
    "gf": ("a.json", gf_lines, read_gf),
}
KINDS = pytest.mark.parametrize("kind", TABLES)


def read(kind: str, base: Path, content: bytes) -> Track | None:
    """The track of a table; None where it is refused."""
    name, _, reader = TABLES[kind]
    path = base / name
    path.write_bytes(content)
    try:
        return reader(path)
    except DataError:
        return None


WHOLE: dict[str, Track] = {}


def whole_track(kind: str, base: Path) -> Track:
    if kind not in WHOLE:
        track = read(kind, base, TABLES[kind][1]())
        assert track is not None
        assert track.keep.all()
        WHOLE[kind] = track
    return WHOLE[kind]


def changed(kind: str, base: Path, damaged: Track) -> list[int]:
    """Frames that are kept and say something else than in the whole table."""
    whole = whole_track(kind, base)
    differs = ~np.isclose(damaged.actions, whole.actions, rtol=0, atol=1e-9).all(axis=1)
    if whole.poses is not None and damaged.poses is not None:
        differs |= ~np.isclose(damaged.poses, whole.poses, rtol=0, atol=1e-9).all(axis=1)
    return np.flatnonzero(differs & damaged.keep).tolist()


@KINDS
@examples(150)
@given(damage=CUT)
def test_a_table_cut_short_says_nothing_wrong(tmp_path_factory, kind: str, damage: Damage) -> None:
    base = tmp_path_factory.getbasetemp()
    track = read(kind, base, damage.apply(TABLES[kind][1]()))
    if track is not None:
        assert changed(kind, base, track) == []
        assert track.keep.all() or track.notes, "what is left out is said"


@KINDS
@examples(400)
@given(damage=FLIP)
def test_a_flipped_bit_changes_its_own_row_alone(tmp_path_factory, kind: str, damage: Damage) -> None:
    base, whole = tmp_path_factory.getbasetemp(), TABLES[kind][1]()
    at = min(int(damage.at * len(whole)), len(whole) - 1)
    if kind == "csv" and at < whole.index(b"\n"):
        return  # a header of other names is another table
    track = read(kind, base, damage.apply(whole))
    if track is not None:
        rows = changed(kind, base, track)
        if kind == "vpt":
            assert set(rows) <= {whole[:at].count(b"\n")}, damage
        assert len(rows) <= 1, damage
        assert track.keep.all() or track.notes or track.dropped, "what is left out is said"


@KINDS
@examples(250)
@given(damage=ANY)
def test_any_damage_ends_in_a_track_or_a_clear_refusal(tmp_path_factory, kind: str, damage: Damage) -> None:
    track = read(kind, tmp_path_factory.getbasetemp(), damage.apply(TABLES[kind][1]()))
    if track is not None:
        assert np.isfinite(track.actions).all()
        assert (np.abs(track.actions) <= 180).all()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@examples(40)
@given(order=ORDERS)
def test_rows_with_a_number_may_come_in_any_order(tmp_path_factory, kind: str, order: list[int]) -> None:
    base, lines = tmp_path_factory.getbasetemp(), TABLES[kind][1]().splitlines(keepends=True)
    head, body = lines[:-FRAMES], lines[-FRAMES:]
    track = read(kind, base, b"".join([*head, *(body[i] for i in order)]))
    assert track is not None
    assert changed(kind, base, track) == []
    assert track.keep.all()


@examples(60)
@given(order=ORDERS)
def test_rows_with_a_clock_in_another_order_are_refused(tmp_path_factory, order: list[int]) -> None:
    lines = vpt_lines().splitlines(keepends=True)
    track = read("vpt", tmp_path_factory.getbasetemp(), b"".join(lines[i] for i in order))
    assert (track is None) == (order != sorted(order))


@pytest.mark.parametrize("kind", ["vpt", "csv", "jsonl"])
@examples(60)
@given(at=st.integers(0, FRAMES - 1), twice=st.booleans())
def test_a_line_lost_or_doubled_moves_no_other(tmp_path_factory, kind: str, at: int, twice: bool) -> None:
    base, lines = tmp_path_factory.getbasetemp(), TABLES[kind][1]().splitlines(keepends=True)
    head, body = lines[:-FRAMES], lines[-FRAMES:]
    body = [*body[: at + 1], *body[at:]] if twice else [*body[:at], *body[at + 1 :]]
    track = read(kind, base, b"".join([*head, *body]))
    assert track is not None
    if kind == "vpt" and at == 0 and not twice:
        return  # rows without a number, one for each frame but the last: nothing says that the first is gone
    assert changed(kind, base, track) == []
    assert track.notes


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lerobot_set(tmp_path_factory.mktemp("packed") / "set", (20, 30), g="10", sc_threshold="0", bf="2")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that we wrote: rows with checksums."""
    base = tmp_path_factory.mktemp("ours")
    encode(base / "src/walk.mp4", scene(np.zeros(30)))
    actions_by_frame(base / "src/walk.csv", 30)
    bring("folder", base / "src", base / "set")
    return base / "set"


def opened(root: Path) -> list[Any]:
    """All rows, the frames' numbers and the lengths of a dataset; raises DataError alone."""
    data = Dataset(root)
    _ = data.action_space, data.resolution, data.fingerprint
    clips = [data.clip(index) for index in range(data.num_episodes)]
    return [(clip.actions.tolist(), numbers(clip.frames)) for clip in clips]


@examples(200)
@given(damage=ANY, which=st.sampled_from(["meta/info.json", "meta/episodes/chunk-000/file-000.parquet"]))
def test_a_damaged_head_of_a_dataset_is_refused_or_read(
    packed: Path, tmp_path_factory, damage: Damage, which: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "head"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(packed, root)
    (root / which).write_bytes(damage.apply((packed / which).read_bytes()))
    try:
        found = opened(root)
    except DataError:
        return
    for actions, pictures in found:
        assert [round(row[-1] * 100) for row in actions] == pictures, "a row is with another frame"


@examples(200)
@given(damage=ANY)
def test_damaged_rows_are_the_same_or_refused(ours: Path, tmp_path_factory, damage: Damage) -> None:
    root = tmp_path_factory.getbasetemp() / "rows"
    if not root.exists():
        shutil.copytree(ours, root)
    path = next((ours / "data").glob("*/*.parquet"))
    (root / path.relative_to(ours)).write_bytes(damage.apply(path.read_bytes()))
    try:
        rows = Dataset(root).rows(0)
    except DataError:
        return
    assert rows.column("action").to_pylist() == Dataset(ours).rows(0).column("action").to_pylist(), damage


@examples(150)
@given(damage=ANY)
def test_a_damaged_video_is_refused_or_its_frames_left_out(packed: Path, tmp_path_factory, damage: Damage) -> None:
    video = packed / f"videos/{FRONT}/chunk-000/file-000.mp4"
    path = tmp_path_factory.getbasetemp() / "damaged.mp4"
    path.write_bytes(damage.apply(video.read_bytes()))
    try:
        times = frame_times(path)
        if len(times) > 200:
            return
        found = list(numbered_pictures(path, times, range(len(times)), (64, 112)))
    except DataError:
        return
    assert all(picture.shape == (64, 112, 3) for _, picture in found)
    assert [index for index, _ in found] == sorted({index for index, _ in found})


@examples(60)
@given(cut=st.floats(0, 1))
def test_a_video_cut_short_shows_what_is_there(tmp_path_factory, cut: float) -> None:
    """Matroska needs no index: what was written before the end is read, and stays with its own rows."""
    base = tmp_path_factory.getbasetemp()
    if not (base / "whole.mkv").exists():
        encode(base / "whole.mkv", scene(np.zeros(60)), g="12", sc_threshold="0", bf="2", b_strategy="0")
    whole = (base / "whole.mkv").read_bytes()
    path = base / "cut.mkv"
    path.write_bytes(whole[: int(cut * len(whole))])
    try:
        times = frame_times(path)
        found = list(numbered_pictures(path, times, range(len(times)), (64, 112)))
    except DataError:
        return
    for index, picture in found:
        assert numbers(picture[None]) == [round(times[index] * 25)]


@examples(150)
@given(damage=ANY)
def test_a_damaged_mcap_is_the_same_or_refused(tmp_path_factory, damage: Damage) -> None:
    owamcap = pytest.importorskip("reverie.data.importers.owamcap")
    writer = pytest.importorskip("mcap.writer")
    base = tmp_path_factory.getbasetemp()
    path = base / "whole.mcap"
    if not path.exists():
        with path.open("wb") as file:
            out = writer.Writer(file)
            out.start(profile="owa", library="test")
            schema = out.register_schema("x", "jsonschema", b"{}")
            topics = {name: out.register_channel(name, "json", schema) for name in ("screen", "keyboard", "mouse/raw")}
            for i in range(FRAMES):
                for name, message in (
                    ("screen", {"utc_ns": 10**9 + i * 10**7, "media_ref": {"uri": "a.mkv", "pts_ns": i * 10**7}}),
                    ("keyboard", {"event_type": "press" if i % 2 else "release", "vk": 0x57}),
                    ("mouse/raw", {"last_x": i, "last_y": -i, "us_flags": 0}),
                ):
                    when = 10**9 + i * 10**7
                    out.add_message(topics[name], log_time=when, data=json.dumps(message).encode(), publish_time=when)
            out.finish()
    damaged = base / "damaged.mcap"
    damaged.write_bytes(damage.apply(path.read_bytes()))
    try:
        events = owamcap.read_events(damaged)
    except DataError:
        return
    whole = owamcap.read_events(path)
    assert (events.screen, events.keys, events.turns) == (whole.screen, whole.keys, whole.turns), damage


def test_the_tables_of_these_tests_are_whole(tmp_path: Path) -> None:
    for kind in TABLES:
        track = read(kind, tmp_path, TABLES[kind][1]())
        assert track is not None, kind
        assert track.keep.all(), (kind, track.notes)
    assert WALKER.size == 10
