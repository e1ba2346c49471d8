"""Raw input becomes one action a frame: taps are not lost, turns add up, latency moves events to later frames."""

from __future__ import annotations

import pytest

from reverie.data.screen.recording import RecordScreenConfig
from reverie.data.screen.timeline import KeyEvent, Meaning, MotionEvent, Timeline, split
from reverie.errors import DataError
from reverie.types import Action

MEANING = Meaning(keys={"w": "forward", "button1": "attack"}, deg_per_count=0.1)


def test_a_key_is_held_until_it_is_let_go() -> None:
    timeline = Timeline(MEANING)
    assert timeline.action([KeyEvent(5, "w", True)]).keys == {"forward"}
    assert timeline.action([]).keys == {"forward"}
    assert timeline.action([KeyEvent(90, "w", False)]).keys == {"forward"}, "held for a part of the frame"
    assert timeline.action([]).keys == frozenset()


def test_a_tap_within_a_frame_counts() -> None:
    timeline = Timeline(MEANING)
    assert timeline.action([KeyEvent(5, "button1", True), KeyEvent(9, "button1", False)]).keys == {"attack"}
    assert timeline.action([]).keys == frozenset()


def test_unknown_keys_mean_nothing() -> None:
    assert Timeline(MEANING).action([KeyEvent(5, "F5", True)]) == Action()


def test_motion_adds_up_right_and_up_are_positive() -> None:
    action = Timeline(MEANING).action([MotionEvent(1, 10, 4), MotionEvent(2, 20, -10)])
    assert action.mouse == pytest.approx((0.6, 3.0))
    assert Timeline(MEANING).action([MotionEvent(1, 1e6, 0)]).mouse == (0.0, 180.0)


def test_events_fall_to_the_picture_that_shows_them() -> None:
    events = [KeyEvent(30, "w", True), KeyEvent(10, "w", False), KeyEvent(41, "w", True)]
    shown, later = split(events, 40, 0)
    assert [event.time_ns for event in shown] == [10, 30]
    assert [event.time_ns for event in later] == [41]
    assert [event.time_ns for event in split(events, 40, 20)[0]] == [10], "twenty later, at a latency of twenty"


def test_the_action_space_is_what_the_keys_mean(tmp_path) -> None:
    config = RecordScreenConfig(window="x", out=tmp_path, keys=("q=trick", "s=back", "w=forward"))
    assert config.action_space.names == ("key.forward", "key.back", "key.trick")
    assert RecordScreenConfig(window="x", out=tmp_path, counts_per_turn=3600).meaning.deg_per_count == 0.1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"keys": ("w",)}, "w=forward"),
        ({"keys": ("=forward",)}, "=forward"),
        ({"latency_ms": -1.0}, "not be negative"),
        ({"size": (100, 224)}, "multiples of 16"),
    ],
)
def test_bad_settings(tmp_path, changes, complaint) -> None:
    with pytest.raises(DataError, match=complaint):
        RecordScreenConfig(window="x", out=tmp_path, **changes)
