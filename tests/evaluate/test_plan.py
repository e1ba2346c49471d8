from pathlib import Path

import pytest
from tests.helpers.synthetic_recordings import SPACE, FakeRecording

from reverie.errors import DataError
from reverie.evaluate import plan
from reverie.evaluate.action_mapping import match_actions
from reverie.evaluate.plan import Size, game_names, pick_game, size_of
from reverie.types import FPS

MAPPING = match_actions(SPACE, SPACE)


def num_frames(size: Size) -> int:
    """Generated frames of one game with a mouse and four pairs of opposite actions."""
    seconds = 2 * (size.starts * plan.SHORT_S + size.long_starts * plan.LONG_S) + size.plays * size.play_s
    seconds += size.idles * size.idle_s + size.endurances * size.endurance_s
    held, returns = 2 * 4 * plan.HELD_FRAMES, 2 * plan.THERE_FRAMES + plan.TURN_FRAMES
    return FPS * seconds + size.held * held + size.returns * returns


def test_sizes_keep_their_promise_of_time() -> None:
    """At 31 frames a second (nano, two idle cores): 30 and 3 minutes, a third of it for measuring."""
    assert num_frames(size_of(False)) / 31 < 20 * 60
    assert num_frames(size_of(True)) / 31 < 2 * 60
    assert size_of(False, 2).plays == size_of(False, 2).starts == 2
    assert size_of(True, long_s=60).play_s == size_of(True, long_s=60).idle_s == 60
    with pytest.raises(DataError, match="5 seconds or more, got --long-s 4"):
        size_of(True, long_s=4)


def test_a_game_is_picked_from_what_is_held_out_alone() -> None:
    recording = FakeRecording([130, 130], heldout=[True, False])
    size = size_of(True)
    game = pick_game("g", Path("g"), recording, MAPPING, None, size, seed=0)
    assert {start.label.split()[0] for start in (*game.starts, *game.plays)} == {"M0"}
    assert game.long_starts == []
    assert "No episode lasts 16 s" in game.notes[0]
    assert len(game.play_actions(0, 1000)) == 1000
    again = pick_game("g", Path("g"), recording, MAPPING, None, size, seed=0)
    assert [start.label for start in again.starts] == [start.label for start in game.starts]


def test_too_short_or_not_held_out_is_told() -> None:
    with pytest.raises(DataError, match="episodes of at least 101 frames, the longest of 1 has 60"):
        pick_game("g", Path("g"), FakeRecording([60]), MAPPING, None, size_of(True), 0)
    seen = FakeRecording([130], heldout=[False])
    with pytest.raises(DataError, match="g has no held-out episodes"):
        pick_game("g", Path("g"), seen, MAPPING, None, size_of(True), 0)
    assert pick_game("g", Path("g"), seen, MAPPING, None, size_of(True), 0, any_split=True).starts


def test_recordings_of_one_name_are_told_apart() -> None:
    assert game_names([Path("a/x"), Path("b/x"), Path("b/y")]) == ["x", "x+", "y"]
