"""Action scripts, whatever is in them: a script or an ActionError, and a script says the same in all its forms."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from tests.helpers.damage import ANY, Damage, examples

from reverie.engine.sessions.script import ActionScript, Segment, load_script, parse, parse_json
from reverie.errors import ActionError
from reverie.types import MAX_TURN_DEG, Action

WORDS = st.sampled_from(
    ["forward", "jump", "idle", "yaw+3", "yaw-5", "pitch+0.5", "2s", "10f", "0.5f", "1e3s", ";", "\n", "yaw", "yaw+",
     "yaw+1e400", "yaw+nan", "yaw+1_0", "²s", "٣s", "-1s", "\u2028", "\x00", "\ufeff", "é", "[", "{"]
)  # fmt: skip
TURNS = st.floats(-MAX_TURN_DEG, MAX_TURN_DEG, allow_nan=False)
KEYS = st.frozensets(
    st.text("abcXYZ_-09é", min_size=1, max_size=6).filter(lambda key: re.fullmatch(r"[A-Za-z_][\w-]*", key)), max_size=3
)
SCRIPTS = st.lists(
    st.builds(Segment, st.builds(Action, KEYS, st.tuples(TURNS, TURNS)), st.integers(1, 2000)), min_size=1, max_size=6
).map(lambda segments: ActionScript(tuple(segments)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["keys", "mouse", "frames", "seconds", "segments", "fps", "x"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)


def says_the_same(script: ActionScript) -> None:
    assert all(abs(turn) <= MAX_TURN_DEG for segment in script.segments for turn in segment.action.mouse)
    assert all(segment.frames >= 1 for segment in script.segments)
    assert parse_json(script.to_json()) == script


@examples(200)
@given(SCRIPTS)
def test_every_script_survives_both_forms(script: ActionScript) -> None:
    says_the_same(script)
    assert parse(str(script)) == script


@examples(400)
@given(st.text() | st.lists(WORDS, max_size=12).map(" ".join))
@example("yaw+3 yaw-5")
@example("9" * 400 + "s")
def test_any_text_is_a_script_or_an_error(text: str) -> None:
    try:
        script = parse(text)
    except ActionError:
        return
    says_the_same(script)
    assert parse(str(script)) == script


@examples(400)
@given(JSON.map(json.dumps) | st.text())
@example("[" * 100_000)
@example('[{"mouse": [1' + "0" * 400 + ', 0], "frames": 1}]')
@example('[{"mouse": [NaN, 0], "frames": 1}]')
@example('[{"frames": 1' + "0" * 5000 + "}]")
@example('[{"frames": 1, "frames": 2}]')
@example('[{"frames": 2.5}]')
@example('[{"keys": ["idle"], "frames": 2}]')
@example('[{"keys": ["2s"], "frames": 2}]')
@example('{"segments": [{"frames": 2}], "fp": 30}')
def test_any_json_is_a_script_or_an_error(text: str) -> None:
    try:
        script = parse_json(text)
    except ActionError:
        return
    says_the_same(script)
    try:
        assert parse(str(script)) == script
    except ActionError:
        assert any(not key.isidentifier() for segment in script.segments for key in segment.action.keys)


def test_what_would_be_read_as_something_else_is_refused() -> None:
    """Each of these was read, and meant something else than it says or in its other form."""
    for text in (
        '[{"frames": 1, "frames": 2}]',
        '[{"frames": 2.5}]',
        '[{"mouse": [NaN, 0], "frames": 1}]',
        '[{"mouse": [0, 181], "frames": 1}]',
        '[{"keys": ["idle"], "frames": 2}]',
        '[{"keys": ["yaw+3"], "frames": 2}]',
        '[{"keys": ["2s"], "frames": 2}]',
        '[{"keys": ["a; b"], "frames": 2}]',
        '[{"frames": 1, "seconds": null}]',
        '{"segments": [{"frames": 2}], "fp": 30}',
    ):
        try:
            script = parse_json(text)
        except ActionError:
            continue
        raise AssertionError(f"{text} was read as {script}")
    for text in ("yaw+3 yaw-5", "yaw+1_0", "2.5f", "٣s"):
        try:
            script = parse(text)
        except ActionError:
            continue
        raise AssertionError(f"{text} was read as {script}")


@examples(60)
@given(damage=ANY, as_json=st.booleans())
def test_a_damaged_file_is_a_script_or_an_error(tmp_path_factory, damage: Damage, as_json: bool) -> None:
    script = parse("forward 2s; forward yaw+3 1s; yaw-5 jump 7f; idle 1s")
    whole = (script.to_json() if as_json else str(script)).encode()
    path: Path = tmp_path_factory.mktemp("script") / ("walk.json" if as_json else "walk.txt")
    path.write_bytes(damage.apply(whole))
    try:
        says_the_same(load_script(path))
    except ActionError:
        return


def test_names_that_no_file_can_have_and_byte_order_marks(tmp_path: Path) -> None:
    for name in ("a\0b.json", "x" * 5000 + ".txt"):
        try:
            load_script(name)
        except ActionError:
            continue
        raise AssertionError(name)
    (tmp_path / "walk.txt").write_bytes("\ufeffforward 1s".encode())
    assert load_script(tmp_path / "walk.txt") == parse("forward 1s")
