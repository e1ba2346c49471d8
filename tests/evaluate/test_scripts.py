import numpy as np
import pytest

from reverie.evaluate.scripts import FORWARD, PAIRS, YAW_LEFT, can_say, player_actions
from reverie.types import ActionSpace

WALKER = ActionSpace(("forward", "back", "left", "right"), mouse=True)


def test_a_player_can_be_said_in_the_space_and_comes_again_with_the_seed() -> None:
    actions = player_actions(WALKER, 500, seed=3)
    assert len(actions) == 500
    assert WALKER.encode(actions).shape == (500, 6)
    assert actions == player_actions(WALKER, 500, seed=3)
    assert actions != player_actions(WALKER, 500, seed=4)


def test_a_player_mostly_walks_turns_both_ways_and_looks_level() -> None:
    rows = np.concatenate([WALKER.encode(player_actions(WALKER, 500, seed)) for seed in range(8)])
    assert 0.5 < rows[:, 0].mean() < 0.95
    yaw = rows[:, 5]
    assert (yaw > 1).mean() > 0.05
    assert (yaw < -1).mean() > 0.05
    assert np.abs(yaw).max() <= 6
    assert np.abs(np.diff(yaw)).max() < 3.5
    for seed in range(8):
        assert np.abs(np.cumsum(WALKER.encode(player_actions(WALKER, 500, seed))[:, 4])).max() <= 9


def test_a_space_without_mouse_or_keys_gets_what_it_can_say() -> None:
    arrows = ActionSpace(("left", "right"), mouse=False)
    assert any(action.keys for action in player_actions(arrows, 2000, seed=0))
    assert not can_say(arrows, FORWARD)
    assert not can_say(arrows, YAW_LEFT)
    assert [name for name, pair in PAIRS.items() if all(can_say(arrows, held) for held in pair)] == ["strafe"]


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_opposites(name: str) -> None:
    first, second = (WALKER.encode([held.action])[0] for held in PAIRS[name])
    assert not np.array_equal(first, second)
    assert np.array_equal(first[4:], -second[4:])
