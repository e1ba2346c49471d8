import functools
import operator

import numpy as np
import pytest
from tests.helpers.synthetic_recordings import FakeEngine, FakeRecording

from reverie.errors import DataError
from reverie.evaluate.rollout import pick_starts, roll
from reverie.types import Action

FORWARD = Action(frozenset({"forward"}))


def test_a_rollout_begins_with_the_picture_and_shows_each_action() -> None:
    engine = FakeEngine()
    picture = np.full((64, 112, 3), 7, np.uint8)
    ticks: list[int] = []
    actions = [FORWARD] * 5 + [Action()]
    video = roll(engine, picture, actions, seed=1, tick=lambda: ticks.append(1))
    assert video.shape == (7, 64, 112, 3)
    assert np.array_equal(video[0], picture)
    dream = engine.opened[0]
    assert [len(step) for step in dream.steps] == [4, 4]
    assert functools.reduce(operator.iadd, dream.steps, [])[:6] == actions
    assert dream.steps[1][2:] == [Action()] * 2
    assert dream.is_closed
    assert len(ticks) == 2


def test_starts_are_spread_over_the_episodes_and_come_again() -> None:
    recording = FakeRecording([30, 10, 40])
    starts = pick_starts(recording, 6, 20, seed=5)
    assert sorted({start.label.split()[0] for start in starts}) == ["M0", "M2"]
    assert all(start.clip.frames.shape[0] == 20 for start in starts)
    again = pick_starts(recording, 6, 20, seed=5)
    assert [start.label for start in starts] == [start.label for start in again]


def test_only_held_out_episodes_are_used_where_some_are() -> None:
    recording = FakeRecording([30, 30, 30], heldout=[False, True, False])
    assert {start.label.split()[0] for start in pick_starts(recording, 4, 20, seed=0)} == {"M1"}


def test_episodes_that_are_too_short_are_told() -> None:
    with pytest.raises(DataError, match="at least 101 frames, the longest of 2 has 30"):
        pick_starts(FakeRecording([30, 20]), 4, 101, seed=0)
