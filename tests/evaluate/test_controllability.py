import numpy as np
import pytest

from reverie.errors import ShapeError
from reverie.evaluate import controllability
from reverie.types import Action, ActionSpace

SPACE = ActionSpace(("forward", "back", "left", "right", "jump"))


def rows(*actions: Action, times: int = 1) -> np.ndarray:
    return SPACE.encode(list(actions) * times)


FORWARD, BACK, NONE = Action(frozenset({"forward"})), Action(frozenset({"back"})), Action()
BOTH = Action(frozenset({"forward", "back"}))
JUMP = Action(frozenset({"jump"}))


def test_a_group_is_one_answer_of_three() -> None:
    asked = rows(FORWARD, BACK, NONE, BOTH)
    pair = controllability.GROUPS["forward/back"]
    assert controllability.group_accuracy(asked, asked, SPACE, pair) == 1
    assert controllability.group_accuracy(rows(BACK, FORWARD, NONE, NONE), asked, SPACE, pair) == 0.5, (
        "both held are none"
    )
    assert controllability.group_accuracy(rows(NONE, times=4), asked, SPACE, pair) == 0.5


def test_balanced_accuracy_gives_no_credit_for_the_common_answer() -> None:
    asked = rows(*[FORWARD] * 8, BACK, NONE)
    always_forward = rows(FORWARD, times=10)
    pair = controllability.GROUPS["forward/back"]
    assert controllability.group_accuracy(always_forward, asked, SPACE, pair) == pytest.approx(0.8)
    assert controllability.balanced_group_accuracy(always_forward, asked, SPACE, pair) == pytest.approx(1 / 3)


def test_single_keys() -> None:
    assert (
        controllability.key_accuracy(rows(JUMP, NONE, NONE, JUMP), rows(JUMP, JUMP, NONE, NONE), SPACE, "jump") == 0.5
    )


def test_nine_directions_with_a_dead_zone() -> None:
    turns = [(0.0, 0.0), (0.1, -0.1), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (1.0, 1.0), (-1.0, -1.0)]
    asked = rows(*(Action(mouse=turn) for turn in turns))
    assert controllability.directions(asked, SPACE).tolist() == [4, 4, 7, 1, 5, 3, 8, 0]
    larger = rows(*(Action(mouse=(3 * p, 3 * y)) for p, y in turns))
    assert controllability.mouse_accuracy(larger, asked, SPACE) == pytest.approx(7 / 8), (
        "0.3 degrees is a turn, 0.1 is none"
    )
    assert controllability.mouse_accuracy(-asked, asked, SPACE) == pytest.approx(2 / 8)


def test_all_at_once_is_stricter_than_each() -> None:
    asked = rows(FORWARD, BACK, JUMP, NONE)
    said = rows(FORWARD, BACK, NONE, JUMP)
    assert controllability.strict_accuracy(asked, asked, SPACE) == 1
    assert controllability.strict_accuracy(said, asked, SPACE) == 0.5
    assert controllability.strict_accuracy(rows(BOTH, times=4), rows(NONE, times=4), SPACE) == 1, "both held are none"
    turned = SPACE.encode([Action(frozenset({"forward"}), (0.0, 2.0)), *[BACK, JUMP, NONE]])
    assert controllability.strict_accuracy(turned, asked, SPACE) == 0.75, "the mouse counts"


def test_the_turn_error_is_a_distance_in_degrees() -> None:
    asked = rows(Action(mouse=(0.0, 3.0)))
    assert controllability.turn_error_deg(rows(Action(mouse=(4.0, 0.0))), asked, SPACE) == pytest.approx(5.0)


def test_all_figures_of_a_space() -> None:
    asked = rows(FORWARD, BACK, JUMP, Action(frozenset({"left"}), (0.0, 2.0)))
    perfect = controllability.controllability([asked[:2], asked[2:]], [asked[:2], asked[2:]], SPACE)
    assert {k: v for k, v in perfect.items() if k != "turn_error_deg"} == dict.fromkeys(
        ("forward/back", "left/right", "jump", "keyboard", "keyboard_balanced", "mouse"), 1.0
    )
    runner = ActionSpace(("turn-left", "turn-right", "jump"), mouse=False)
    figures = controllability.controllability([runner.encode([JUMP])], [runner.encode([NONE])], runner)
    assert figures == {"turn-left/turn-right": 1.0, "jump": 0.0, "keyboard": 0.5, "keyboard_balanced": 1.0}


def test_clips_that_do_not_match_are_refused() -> None:
    with pytest.raises(ShapeError, match="on both sides"):
        controllability.controllability([rows(NONE)], [rows(NONE, NONE)], SPACE)
