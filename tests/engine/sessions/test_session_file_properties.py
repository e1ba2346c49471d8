"""`.reverie` files of strangers: the session that was written, or one line; no traceback, and never much memory."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.helpers.damage import ANY, Damage, examples

from reverie.engine.media.image_worker import load_untrusted_session
from reverie.engine.sessions.script import parse
from reverie.engine.sessions.session_file import GameState, SessionFile, encode_png, encode_thumbnail, read_thumbnail
from reverie.errors import DataError

SIZE = (32, 64)
PICTURE = np.arange(32 * 64 * 3, dtype=np.uint8).reshape(32, 64, 3)


def written() -> SessionFile:
    return SessionFile(
        model="tiny/0123/float32/cpu",
        seed=5,
        keys=("forward", "left"),
        mouse=True,
        start=encode_png(PICTURE),
        script=parse("forward yaw+3 2s; idle 1s"),
        title="a walk",
        created=1_790_000_000.0,
        thumbnail=encode_thumbnail(PICTURE),
    )


WHOLE = written().to_bytes()


def archive(parts: dict[str, bytes | str], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return buffer.getvalue()


def parts() -> dict[str, bytes | str]:
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as file:
        return {name: file.read(name) for name in file.namelist()}


def changed(edit: Callable[[dict[str, Any]], object]) -> bytes:
    head = json.loads(parts()["session.json"])
    edit(head)
    return archive({**parts(), "session.json": json.dumps(head)})


def read(data: bytes) -> SessionFile | str:
    """The session, or why it is none."""
    try:
        return SessionFile.from_bytes(data)
    except DataError as error:
        return str(error)


def check_told(text: str) -> None:
    assert "\n" not in text
    assert len(text) < 400
    text.encode()


def refusal(data: bytes) -> str:
    text = read(data)
    assert isinstance(text, str)
    check_told(text)
    return text


@examples(400)
@given(damage=ANY)
def test_a_damaged_file_is_the_session_or_refused(damage: Damage) -> None:
    loaded = read(damage.apply(WHOLE))
    if isinstance(loaded, str):
        check_told(loaded)
    else:
        assert loaded.script in (written().script, None), f"{damage} changed what was played"
        assert (loaded.seed, loaded.model) == (5, "tiny/0123/float32/cpu")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
dates = st.datetimes(timezones=st.none() | st.timezones()).map(str) | st.sampled_from(
    ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01", "2026-02-30", "\ud800", ""]
)


@examples(150)
@given(st.sampled_from(["version", "kind", "frames", "model", "seed", "keys", "mouse", "scene", "title", "created",
                        "last_frame", "camera", "game"]), json_values | dates)  # fmt: skip
def test_any_field_is_read_and_written_again_or_refused(name: str, value: object) -> None:
    loaded = read(changed(lambda head: head.update({name: value})))
    if isinstance(loaded, str):
        check_told(loaded)
    else:
        again = SessionFile.from_bytes(loaded.to_bytes())
        assert (again.camera is None) == (loaded.camera is None)
        same = {"created": 0, "title": "", "camera": None}
        assert replace(again, **same) == replace(loaded, **same)


@pytest.mark.parametrize(
    "script",
    ['[{"frames": 1e999}]', '[{"frames": NaN}]', '[{"mouse": [NaN, 0], "frames": 75}]', '[{"frames": -5}]',
     '[{"mouse": [1e999, 0], "frames": 75}]', '[{"mouse": [0, Infinity], "frames": 75}]', "[" * 100_000, "{}", "null",
     '[{"frames": 99999999999}]', '[{"keys": ["a"], "keys": [], "frames": 75}]', '[{"frames": ' + "9" * 6000 + "}]",
     '[{"keys": [{}], "frames": 75}]', '[{"' + "n" * 9000 + '": 1}]', '[{"keys": ["' + "k" * 9000 + ' "]}]',
     '{"' + "n" * 9000 + '": 1, "' + "n" * 9000 + '": 2}', '[{"frames": true}]',
     '[{"frames": 75, "run": "me"}]', "\ufeff[]"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_actions_that_are_none(script: str) -> None:
    assert "not a session that can be read" in refusal(archive({**parts(), "actions.json": script}))


POSE = [1.0, -2.5, 1.6, 350.0, -3.0, 0.0]
CAMERA = {"pose": POSE, "fov_deg": 90.0, "pixel_aspect": 1.0}
GAME = {"name": "city", "options": "place=2", "seed": 7, "pose": POSE, "view": "both"}


def test_the_camera_and_the_game_are_written_and_read() -> None:
    scene = {"fingerprint": "alley/0123456789ab", "start": 0}
    loaded = SessionFile.from_bytes(changed(lambda head: head.update(camera=CAMERA, game=GAME, scene=scene)))
    again = SessionFile.from_bytes(loaded.to_bytes())
    assert again.camera is not None
    assert (again.camera.pose.tolist(), again.camera.fov_deg) == (np.float32(POSE).tolist(), 90.0)
    assert again.game == GameState(name="city", options="place=2", seed=7, pose=tuple(POSE), view="both")
    assert again.scene is not None
    without = changed(lambda head: head.update(scene=scene))
    assert "both with a camera" in refusal(without)


@pytest.mark.parametrize(
    ("field", "value"),
    [("pose", POSE[:5]), ("pose", [*POSE[:5], float("nan")]), ("pose", [*POSE[:5], 1e9]), ("pose", [*POSE[:5], True]),
     ("view", "both "), ("view", ["both"]), ("name", ""), ("options", "x" * 999), ("fov_deg", float("inf")),
     ("fov_deg", True), ("pixel_aspect", 0)],
)  # fmt: skip
def test_a_camera_or_game_that_is_none(field: str, value: object) -> None:
    changes = {"camera": CAMERA, "game": GAME}
    for name, facts in changes.items():
        if field in facts:
            said = refusal(changed(lambda head, name=name, facts=facts: head.update({name: {**facts, field: value}})))
            assert f"its {field} is not of the expected form" in said


def test_frames_that_the_head_does_not_say() -> None:
    assert "has 76 frames" in refusal(changed(lambda head: head.update(frames=10**9)))


def test_archives_that_take_memory() -> None:
    many = archive({**parts(), **{f"{number}": "" for number in range(100)}})
    assert "more than 64 entries" in refusal(many)
    for kind in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        assert "is not deflated" in refusal(archive(parts(), kind))
    assert "larger than" in refusal(archive({**parts(), "actions.json": bytes(9 * 2**20)}))


def test_names_that_leave_the_folder_are_not_looked_at() -> None:
    odd = archive({"../session.json": b"x", "/etc/start.png": b"x", "a/../actions.json": b"x", **parts()})
    assert SessionFile.from_bytes(odd) == written()


def test_half_of_an_emoji_in_a_title_is_written_and_read() -> None:
    """A page's field that takes 80 UTF-16 units can cut one in half."""
    file = written().titled("a walk \ud83d")
    assert SessionFile.from_bytes(file.to_bytes()).title == "a walk ?"


def test_a_thumbnail_is_read_alone() -> None:
    broken = archive({**parts(), "session.json": "x", "actions.json": "["})
    assert read_thumbnail(broken) == written().thumbnail
    assert read_thumbnail(archive({"session.json": "x"})) is None
    with pytest.raises(DataError):
        read_thumbnail(b"x")


def test_a_stranger_s_file_is_read_in_a_process_of_its_own() -> None:
    again = SessionFile.from_bytes(asyncio.run(load_untrusted_session(WHOLE, SIZE)))
    assert again.start == written().start
    assert again.thumbnail is not None
    with Image.open(io.BytesIO(again.thumbnail)) as image:
        assert image.size == (64, 32)
    assert replace(again, thumbnail=None) == replace(written(), thumbnail=None)
    with pytest.raises(DataError, match="was cut short"):
        asyncio.run(load_untrusted_session(WHOLE[:-40], SIZE))
    flat = archive({**parts(), "actions.json": "[" + "0," * 2**21 + "0]"})  # megabytes that are parsed in one go
    with pytest.raises(DataError, match="segment 1"):
        asyncio.run(load_untrusted_session(flat, SIZE))
    eps = archive({**parts(), "start.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n{} loop\n"})
    with pytest.raises(DataError, match="not a picture"):
        asyncio.run(load_untrusted_session(eps, SIZE))
