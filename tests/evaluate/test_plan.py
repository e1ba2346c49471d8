from pathlib import Path

import pytest
from tests.evaluate.synthetic import SPACE, FakeRecording

from reverie.errors import DataError
from reverie.evaluate.fit import fit_actions
from reverie.evaluate.plan import game_names, pick_game, size_of

FIT = fit_actions(SPACE, SPACE)


def test_sizes_keep_their_promise_of_time() -> None:
    """At 31 frames a second (nano, two idle cores): 30 and 3 minutes, a third of it for measuring."""
    assert size_of(False).num_frames(4, True) / 31 < 20 * 60
    assert size_of(True).num_frames(4, True) / 31 < 2 * 60
    assert size_of(False, 2).plays == size_of(False, 2).starts == 2
    assert size_of(True, long_s=60).play_s == size_of(True, long_s=60).idle_s == 60
    with pytest.raises(DataError, match="5 seconds or more, got --long-s 4"):
        size_of(True, long_s=4)


def test_a_game_is_picked_from_what_is_held_out_alone() -> None:
    recording = FakeRecording([130, 130], heldout=[True, False])
    size = size_of(True)
    game = pick_game("g", Path("g"), recording, FIT, None, size, seed=0)
    assert {start.label.split()[0] for start in (*game.starts, *game.plays)} == {"M0"}
    assert game.long_starts == []
    assert "No episode lasts 16 s" in game.notes[0]
    assert len(game.play_rows(0, 1000)) == 1000
    again = pick_game("g", Path("g"), recording, FIT, None, size, seed=0)
    assert [start.label for start in again.starts] == [start.label for start in game.starts]


def test_too_short_or_not_held_out_is_told() -> None:
    with pytest.raises(DataError, match="episodes of at least 101 frames, the longest of 1 has 60"):
        pick_game("g", Path("g"), FakeRecording([60]), FIT, None, size_of(True), 0)
    seen = FakeRecording([130], heldout=[False])
    with pytest.raises(DataError, match="g has no held-out episodes"):
        pick_game("g", Path("g"), seen, FIT, None, size_of(True), 0)
    assert pick_game("g", Path("g"), seen, FIT, None, size_of(True), 0, any_split=True).starts


def test_recordings_of_one_name_are_told_apart() -> None:
    assert game_names([Path("a/x"), Path("b/x"), Path("b/y")]) == ["x", "x+", "y"]
