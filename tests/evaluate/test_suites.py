import json
from pathlib import Path

import pytest

from reverie.errors import DataError
from reverie.evaluate.suites import load_suite, suite_names
from reverie.types import Action, ActionSpace


def test_the_gameworld_suite_is_the_published_one() -> None:
    suite = load_suite("gameworld-76")
    assert len(suite.actions) == 76
    assert {len(actions) for actions in suite.actions.values()} == {64}
    assert suite.actions["empty"] == [Action()] * 64
    assert set(suite.actions["back_camera_ul"]) == {Action(frozenset({"back"}), (0.75, -0.75))}
    held = ["attack" in action.keys for action in suite.actions["forward_attack"]]
    assert held == [8 <= i % 16 < 16 for i in range(64)]
    walker = ActionSpace(("forward", "back", "left", "right"))
    assert len(suite.sayable(walker)) == 4 + 8 + 1 + 4 + 32
    assert len(suite.sayable(ActionSpace(("forward", "back"), mouse=False))) == 3


def test_ours_are_said_by_cars_and_runners() -> None:
    assert suite_names() == ["driving", "gameworld-76", "running"]
    car = ActionSpace(("forward", "back", "left", "right", "handbrake"), mouse=False)
    runner = ActionSpace(("left", "right", "jump", "crouch", "turn-left", "turn-right"), mouse=False)
    for name, space in (("driving", car), ("running", runner)):
        suite = load_suite(name)
        assert suite.sayable(space) == suite.actions
        assert len(suite.actions) >= 18


def test_an_unknown_or_broken_suite_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no suite 'flying'; expected driving, gameworld-76, running"):
        load_suite("flying")
    broken = tmp_path / "mine.json"
    broken.write_text(json.dumps({"name": "mine", "frames": 8, "actions": [{"name": "x"}]}))
    with pytest.raises(DataError, match="is not an action suite"):
        load_suite(str(broken))
    segment = {"keys": ["up"], "mouse_deg": [0, 1], "frames": 3}
    whole = {"name": "mine", "title": "", "source": "", "seed": 1, "frames": 4}
    broken.write_text(json.dumps({**whole, "actions": [{"name": "x", "segments": [segment]}]}))
    assert load_suite(str(broken)).actions["x"] == [Action(frozenset({"up"}), (0.0, 1.0))] * 4
