"""The player of Minetest, on a plain without a game: what it does in which shares, and how it meets obstacles."""

from typing import Any

import numpy as np
import pytest

from reverie.data.policies import Seen, policy_for
from reverie.types import Action
from reverie_worlds.minetest.player import FLICK_LIMIT, PITCH_RATE, MinetestPolicy
from reverie_worlds.minetest.world import DEGREES_PER_PX, MinetestWorld

FRAME = np.zeros((1, 1, 3), np.uint8)
OPEN: dict[str, Any] = {
    "knee": [12.0] * 5, "eye": [12.0] * 5, "drop": [0.0, 0.0], "ground": True, "liquid": False, "light": 15,
}  # fmt: skip
WALK = 0.16
"""Nodes a frame."""


def play(policy: MinetestPolicy, num_frames: int, *, moves: bool = True, **hints: Any) -> list[Action]:
    """Actions on a plain where keys move the player (or do not)."""
    pose, actions = np.zeros(5), []
    for _ in range(num_frames):
        action = policy.act(Seen(FRAME, pose.astype(np.float32), None, OPEN | hints))
        actions.append(action)
        pose[3] = (pose[3] + action.mouse[1]) % 360
        pose[4] = np.clip(pose[4] + action.mouse[0], -89.5, 89.5)
        heading = np.radians(-pose[3])
        way = ("forward" in action.keys) - ("back" in action.keys)
        if moves:
            pose[:2] += WALK * way * np.array([np.cos(heading), np.sin(heading)])
    return actions


def share(actions: list[Action], key: str) -> float:
    return float(np.mean([key in action.keys for action in actions]))


@pytest.fixture(scope="module")
def long_play() -> list[Action]:
    return [action for seed in range(12) for action in play(MinetestPolicy(seed), 1000)]


def test_the_shares_of_what_it_does(long_play: list[Action]) -> None:
    assert share(long_play, "forward") > 0.55
    assert 0.01 < share(long_play, "attack") < 0.05
    assert 0.001 < share(long_play, "use") < 0.02
    assert 0.01 < share(long_play, "jump") < 0.2
    for key in ("back", "left", "right", "crouch"):
        assert 0.005 < share(long_play, key) < 0.15, key
    assert all(action.keys <= set(MinetestWorld.action_space.keys) for action in long_play)


def test_it_stands_still_at_times_and_for_long(long_play: list[Action]) -> None:
    still = np.array([not action.keys and action.mouse == (0.0, 0.0) for action in long_play])
    assert 0.03 < still.mean() < 0.14
    ends = np.flatnonzero(np.diff(np.concatenate([[0], still, [0]])))
    assert (ends[1::2] - ends[::2]).max() >= 75


def test_turns_are_smooth_bounded_and_what_the_game_can_do(long_play: list[Action]) -> None:
    mouse = np.array([action.mouse for action in long_play])
    np.testing.assert_allclose(mouse / DEGREES_PER_PX, np.round(mouse / DEGREES_PER_PX), atol=1e-6)
    assert np.abs(mouse[:, 1]).max() <= FLICK_LIMIT
    assert np.abs(mouse[:, 0]).max() <= PITCH_RATE
    jerk = np.abs(np.diff(mouse[:1000], axis=0)).max()
    assert jerk <= 0.35 * 2 * FLICK_LIMIT


def test_it_looks_up_and_down(long_play: list[Action]) -> None:
    pitch, seen = 0.0, []
    for i, action in enumerate(long_play):
        pitch = 0.0 if i % 1000 == 0 else pitch + action.mouse[0]
        seen.append(pitch)
    low, high = np.percentile(seen, [3, 97])
    assert low < -20
    assert high > 10
    assert -15 < np.median(seen) < 5


def test_the_seed_decides() -> None:
    assert play(MinetestPolicy(3), 300) == play(MinetestPolicy(3), 300)
    assert play(MinetestPolicy(3), 300) != play(MinetestPolicy(4), 300)
    assert isinstance(policy_for("minetest", 1), MinetestPolicy)


def test_it_hops_up_a_step() -> None:
    step = play(MinetestPolicy(0), 400, knee=[12.0, 12.0, 1.0, 12.0, 12.0])
    assert share(step, "jump") > 2 * share(play(MinetestPolicy(0), 400), "jump")


def test_it_turns_from_a_wall_to_the_open_side() -> None:
    wall: dict[str, Any] = {"knee": [1.0, 1.0, 1.0, 9.0, 12.0], "eye": [1.0, 1.0, 1.0, 9.0, 12.0]}
    yaw = [action.mouse[1] for seed in range(6) for action in play(MinetestPolicy(seed), 200, **wall)]
    assert np.mean(yaw) > 0.5


def test_it_does_not_stay_stuck() -> None:
    actions = play(MinetestPolicy(1), 600, moves=False)
    assert share(actions, "back") > 0.1
    assert share(actions, "attack") > 0.02
    assert np.abs(np.cumsum([action.mouse[1] for action in actions])).max() > 90


def test_it_swims_up_and_ashore() -> None:
    actions = play(MinetestPolicy(2), 100, liquid=True)[2:]
    assert share(actions, "jump") == 1.0
    assert share(actions, "forward") > 0.9
    assert not share(actions, "attack")
