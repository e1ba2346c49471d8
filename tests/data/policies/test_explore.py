import numpy as np
import pytest
from tests.helpers.toy_world import ToyWorld

from reverie.data.policies import Seen, seen_now
from reverie.data.policies.explore import FLICK_LIMIT, PITCH_LIMIT, Clearance, ExploringPolicy

FRAME = np.zeros((8, 8, 3), np.uint8)


def blind_actions(seed: int, frames: int) -> np.ndarray:
    world = ToyWorld()
    frame = world.reset(0)[0]
    policy, actions = ExploringPolicy(seed), []
    for _ in range(frames):
        actions.append(world.action_space.restrict(policy.act(seen_now(world, frame))))
        frame = world.step(actions[-1])[0]
    return ToyWorld.action_space.encode(actions)


def test_the_seed_decides() -> None:
    np.testing.assert_array_equal(blind_actions(3, 200), blind_actions(3, 200))
    assert not np.array_equal(blind_actions(3, 200), blind_actions(4, 200))


def test_it_plays_like_a_person_in_an_open_field() -> None:
    actions = np.concatenate([blind_actions(seed, 1500) for seed in range(6)])
    keys, pitch, yaw = actions[:, :4] > 0.5, actions[:, 4], actions[:, 5]
    idle = ~keys.any(axis=1)
    assert 0.25 < keys[:, 0].mean() < 0.7, "forward about half of the time"
    assert keys[:, 1].mean() > 0.08, "back"
    assert keys[:, 2:].any(axis=1).mean() > 0.12, "strafing"
    assert idle.mean() > 0.08
    assert (idle & (yaw > 0.5)).mean() > 0.02, "turns on the spot to the right"
    assert (idle & (yaw < -0.5)).mean() > 0.02, "and to the left"
    assert np.abs(yaw).max() <= FLICK_LIMIT
    assert (np.abs(yaw) > 4.0).mean() < 0.05
    assert abs((yaw > 0.5).mean() - (yaw < -0.5).mean()) < 0.15
    assert np.abs(np.diff(yaw)).max() < 4.0, "turns are smooth"
    assert 0 < (pitch != 0).mean() < 0.25


def test_keys_are_held_for_a_while() -> None:
    keys = blind_actions(0, 2000)[:, :4]
    changes = np.flatnonzero((np.diff(keys, axis=0) != 0).any(axis=1))
    assert np.diff(changes).min() >= 5
    assert np.median(np.diff(changes)) > 12


def test_looks_up_and_down_stay_small_and_return_to_level() -> None:
    level = 0
    pitch = np.cumsum(blind_actions(5, 4000)[:, 4])
    assert np.abs(pitch).max() <= PITCH_LIMIT + 1
    level = (np.abs(pitch) < 0.5).mean()
    assert level > 0.6


@pytest.mark.parametrize("open_side", [-1, 1])
def test_it_turns_from_a_wall_to_the_open_side(open_side: int) -> None:
    depth = np.full((32, 56), 4, np.uint8)
    depth[:, 40:] = 60 if open_side > 0 else 4
    depth[:, :16] = 4 if open_side > 0 else 60
    turns = []
    for seed in range(12):
        policy = ExploringPolicy(seed)
        yaw = [policy.act(Seen(FRAME, np.zeros(6, np.float32), depth)).mouse[1] for _ in range(60)]
        turns.append(np.sign(np.sum(yaw)))
    assert np.mean(turns) * open_side > 0.3


def test_clearance_reads_the_picture() -> None:
    depth = np.full((32, 56), 50, np.uint8)
    depth[:, :20] = 5
    room = Clearance.of(depth)
    assert room.left < 10 < room.right
    assert room.ahead == 50
    assert room.gap_deg > 0


def test_it_goes_to_a_door_in_view_and_uses_it_then_leaves_it_alone() -> None:
    policy, units, used = ExploringPolicy(1), 300.0, []
    for frame in range(400):
        action = policy.act(
            Seen(FRAME, np.array([frame * 9.0, 0, 0, 0, 0]), None, {"use_units": units, "use_deg": 0.0})
        )
        units = max(units - 9.0 * ("forward" in action.keys), 40.0)
        used.append("use" in action.keys)
    presses = np.flatnonzero(np.diff(np.array(used, int)) == 1)
    assert len(presses) >= 1
    assert np.diff(presses).min(initial=1000) > 100
    assert max(map(len, "".join("u" if u else " " for u in used).split())) <= 6


def test_it_fires_in_bursts_and_rests_for_seconds() -> None:
    policy, rests, fired, run = ExploringPolicy(2), 0, 0, 0
    frames = 20_000
    for frame in range(frames):
        action = policy.act(Seen(FRAME, np.array([frame * 9.0, 0, 0, 0, 0])))
        fired += "attack" in action.keys
        run = 0 if action.keys or any(action.mouse) else run + 1
        rests += run == 75
    assert 0.03 < fired / frames < 0.12
    assert rests >= 2, "stands still for three seconds now and then"
