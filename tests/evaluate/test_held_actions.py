import numpy as np
import pytest
from tests.helpers.synthetic_recordings import SPACE, FakeEngine, FakeRecording, moving

from reverie.evaluate import held_actions
from reverie.evaluate.held_actions import PAIRS, Rate, held_metrics, motion_rate
from reverie.evaluate.rollout import pick_starts, roll
from reverie.types import ActionSpace, Clip


def obedience_of(engine: FakeEngine, swap: bool = False) -> dict[str, float]:
    """The row of an engine over 2 starts; swap: every action is carried out as its opposite."""
    rates = []
    for _ in range(2):
        for pair in PAIRS:
            for side in (0, 1):
                held = PAIRS[pair][1 - side if swap else side]
                picture = np.asarray(roll(engine, np.zeros((64, 112, 3), np.uint8), [held.action] * 8, 0)[1])
                video = roll(engine, picture, [held.action] * 8, 0)[1:]
                rates.append(Rate(pair, side, motion_rate(pair, video, fov_deg=73.5)))
    return held_metrics(rates)


def test_a_world_that_obeys_gets_full_marks() -> None:
    row = obedience_of(FakeEngine())
    shares = ("turn", "look", "strafe", "forward_expands", "back_contracts", "walk_clips", "walk_apart")
    assert {name: row[name] for name in shares} == dict.fromkeys(shares, 1.0)
    # A field of view of 73.5 degrees over 112 px is 1.31 px a degree in the middle, more outside; the fake moves 1.5.
    assert row["turn_deg"] == pytest.approx(3.0, abs=0.4)
    assert row["look_deg"] == pytest.approx(1.0, abs=0.25)
    assert row["clips"] == 16


def test_a_world_that_does_the_opposite_or_nothing_gets_none() -> None:
    for row in (obedience_of(FakeEngine(), swap=True), obedience_of(FakeEngine(obeys=False))):
        assert {row[name] for name in ("turn", "look", "strafe", "walk_clips", "walk_apart")} == {0.0}


def test_real_windows_are_found_by_what_the_player_did() -> None:
    clip = FakeRecording([81]).clip(0, 0, 81)
    found = [(pair, side) for pair, side, _ in held_actions.real_windows(clip, SPACE)]
    assert found == [("walk", 0), ("turn", 1), ("turn", 0), ("walk", 1)]
    assert all(
        frames.shape[0] == held_actions.WINDOW_FRAMES + 1 for _, _, frames in held_actions.real_windows(clip, SPACE)
    )


def test_walks_against_a_wall_are_left_out_where_poses_tell() -> None:
    clip = FakeRecording([81]).clip(0, 0, 81)
    poses = np.zeros((81, 5), np.float32)
    standing = Clip(clip.frames, clip.actions, poses=poses)
    assert {pair for pair, _, _ in held_actions.real_windows(standing, SPACE)} == {"turn"}
    walking = Clip(clip.frames, clip.actions, poses=poses + np.arange(81, dtype=np.float32)[:, None] * 10)
    assert {pair for pair, _, _ in held_actions.real_windows(walking, SPACE)} == {"turn", "walk"}


def test_the_ruler_passes_on_the_recording_it_was_made_for() -> None:
    rates = [
        Rate(pair, side, motion_rate(pair, frames, fov_deg=73.5))
        for start in pick_starts(FakeRecording([200, 200]), 2, 101, seed=0)
        for pair, side, frames in held_actions.real_windows(start.clip, SPACE)
    ]
    row = held_metrics(rates, paired=False)
    assert row["turn"] == row["walk_clips"] == 1.0


def test_the_controls_stand_still_and_lag() -> None:
    frames = moving(5, x_px=1.0)
    assert np.array_equal(held_actions.delay(frames)[1:], frames[:-1])
    assert all(np.array_equal(frame, frames[0]) for frame in held_actions.freeze(frames))


def test_only_what_the_space_can_say_is_asked() -> None:
    assert held_actions.pair_names(SPACE) == list(PAIRS)
    assert held_actions.pair_names(ActionSpace(("forward", "back"), mouse=False)) == ["walk"]
    assert held_actions.pair_names(ActionSpace(("left", "right"), mouse=False)) == ["strafe"]


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_opposites(name: str) -> None:
    first, second = (SPACE.encode([held.action])[0] for held in PAIRS[name])
    assert not np.array_equal(first, second)
    assert np.array_equal(first[4:], -second[4:])
