from __future__ import annotations

import json
import random

import pytest

from reverie.engine.sessions.script import ActionScript, Segment, load_script, parse, parse_json
from reverie.errors import ActionError
from reverie.types import Action, ActionSpace

SPACE = ActionSpace(("forward", "back", "left", "right"))
FORWARD = frozenset({"forward"})


def test_reads_the_example_of_the_docstring() -> None:
    script = parse("forward 2s; forward yaw+3 1s; yaw-5 1s; idle 1s")
    assert script.segments == (
        Segment(Action(FORWARD), 50),
        Segment(Action(FORWARD, (0.0, 3.0)), 25),
        Segment(Action(mouse=(0.0, -5.0)), 25),
        Segment(Action(), 25),
    )
    assert script.num_frames == 125
    assert script.seconds == 5.0
    assert len(list(script.actions())) == 125


@pytest.mark.parametrize(
    ("text", "frames"), [("idle 10f", 10), ("idle 0.4s", 10), ("idle", 25), ("idle .04s", 1), ("idle 2.s", 50)]
)
def test_reads_durations(text: str, frames: int) -> None:
    assert parse(text).num_frames == frames


def test_lines_separate_segments_too() -> None:
    assert parse("forward 1s\n\nback 1s;\n") == parse("forward 1s; back 1s")


def test_reads_both_json_forms() -> None:
    segments = [{"keys": ["forward"], "mouse": [0, 3], "frames": 25}, {"seconds": 1}]
    expected = parse("forward yaw+3 1s; idle 1s")
    assert parse_json(json.dumps(segments)) == expected
    assert parse_json(json.dumps({"fps": 25, "segments": segments})) == expected


def test_any_script_survives_both_forms() -> None:
    rng = random.Random(0)
    for _ in range(100):
        actions = [
            Action(frozenset(rng.sample(SPACE.keys, rng.randint(0, 3))), (rng.choice([0.0, -1.5]), rng.uniform(-9, 9)))
            for _ in range(rng.randint(1, 8))
            for _ in range(rng.choice([1, 25, 50]))
        ]
        script = ActionScript.from_actions(actions)
        assert list(script.actions()) == actions
        assert parse(str(script)) == script
        assert parse_json(script.to_json()) == script


def test_tiny_turns_survive_the_inline_form() -> None:
    script = ActionScript((Segment(Action(mouse=(-1e-7, 1e-300)), 1),))
    assert parse(str(script)) == script


def test_blocks_fill_up_the_last_one() -> None:
    blocks = list(parse("forward 3f; idle 2f").blocks(4))
    assert [len(block) for block in blocks] == [4, 4]
    assert blocks[1] == [Action()] * 4


def test_reads_files(tmp_path) -> None:
    inline, as_json = tmp_path / "walk.txt", tmp_path / "walk.json"
    inline.write_text("forward 1s\nback 1s\n")
    as_json.write_text(parse("forward 1s; back 1s").to_json())
    assert load_script(inline, SPACE) == load_script(str(as_json), SPACE) == load_script("forward 1s; back 1s", SPACE)


def test_an_unknown_key_is_named_with_the_choices() -> None:
    with pytest.raises(ActionError, match=r"segment 2.*'fly'.*forward, back, left, right"):
        load_script("forward 1s; fly 1s", SPACE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one segment"),
        (" ; ;", "at least one segment"),
        ("forward 0s", "one frame"),
        ("forward 0f", "one frame"),
        ("forward 99999999s", "must last"),
        ("1s forward", "must come last"),
        ("forward yaw", "needs a signed angle"),
        ("yaw+x 1s", "cannot read 'yaw\\+x'"),
        ("yaw+inf 1s", "at most 180"),
        ("yaw+nan 1s", "at most 180"),
        ("pitch+181 1s", "at most 180"),
        ("forward, 1s", "cannot read 'forward,'"),
        ("idle forward 1s", "idle stands alone"),
    ],
)
def test_broken_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ActionError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid JSON"),
        ("3", "list of segments"),
        ("{}", "list of segments"),
        ("[]", "at least one segment"),
        ('{"fps": 30, "segments": []}', "fps 30"),
        ("[3]", "segment 1 .* must be an object"),
        ('[{"frames": 1}, {"key": "forward", "frames": 1}]', "segment 2 .* must be an object"),
        ('[{"keys": "forward", "frames": 1}]', "list of names"),
        ('[{"mouse": [1], "frames": 1}]', "pitch, yaw"),
        ('[{"mouse": [true, 1], "frames": 1}]', "pitch, yaw"),
        ('[{"keys": []}]', "duration"),
        ('[{"frames": 1, "seconds": 1}]', "duration"),
        ('[{"frames": -1}]', "one frame"),
    ],
)
def test_broken_json_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ActionError, match=message):
        parse_json(text)


def test_missing_and_binary_files(tmp_path) -> None:
    with pytest.raises(ActionError, match="cannot read the action script"):
        load_script("no-such-file.json")
    binary = tmp_path / "x.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ActionError, match="UTF-8"):
        load_script(binary)
