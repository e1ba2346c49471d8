from typing import Any

import numpy as np
import pytest

from reverie.data.policies import Seen, policy_for
from reverie.types import Action
from reverie_worlds.tux.player import SNOW_FIRST_ASIDE, SNOW_STEP_AHEAD, SlidingPolicy
from reverie_worlds.tux.world import SENSE_AHEAD, SENSE_ASIDE

FRAME = np.zeros((4, 4, 3), np.uint8)
TURN_PER_FRAME = 2.0
NOTHING = np.zeros((0, 3), np.float32)


class Slope:
    """A slope without bumps on which leaning turns, paddling drives and braking slows: enough to be steered on."""

    def __init__(self, trees: np.ndarray = NOTHING) -> None:
        self.trees = trees
        self.along = self.right = self.heading = 0.0
        self.speed = 3.0
        self.charged = 0

    def seen(self) -> Seen:
        near = self.trees - np.array([self.along, self.right, 0.0])
        hints: dict[str, Any] = {
            "middle": self.right,
            "half_width": 30.0,
            "above": 0.0,
            "speed": self.speed,
            "heading": self.heading,
            "left_to_go": 1000.0 - self.along,
            "snow": np.zeros((len(SENSE_AHEAD), len(SENSE_ASIDE)), np.float32),
            "way": np.repeat(-SENSE_AHEAD[:, None] / 2, len(SENSE_ASIDE), axis=1),
            "trees": near[(near[:, 0] > -2) & (near[:, 0] < 48)],
            "fish": np.zeros((0, 2), np.float32),
        }
        return Seen(FRAME, hints=hints)

    def step(self, action: Action) -> None:
        keys = action.keys
        self.heading += TURN_PER_FRAME * (("right" in keys) - ("left" in keys))
        self.speed += 0.1 * ("forward" in keys) + 0.08 - 0.4 * ("back" in keys)
        self.speed = min(max(self.speed, 1.4), 18.0)
        self.along += self.speed / 25 * np.cos(np.radians(self.heading))
        self.right += self.speed / 25 * np.sin(np.radians(self.heading))


def play(policy: SlidingPolicy, slope: Slope, frames: int) -> tuple[list[Action], np.ndarray]:
    actions, track = [], []
    for _ in range(frames):
        actions.append(policy.act(slope.seen()))
        slope.step(actions[-1])
        track.append((slope.along, slope.right, slope.heading, slope.speed))
    return actions, np.array(track)


def runs(held: list[bool]) -> list[int]:
    """Frames that each press lasts, but for one that is cut by the end."""
    lengths, now = [], 0
    for down in held:
        if down:
            now += 1
        elif now:
            lengths.append(now)
            now = 0
    return lengths


def test_it_is_the_policy_of_the_game_and_follows_from_its_seed() -> None:
    assert isinstance(policy_for("tux-racer", 3), SlidingPolicy)
    one, two, other = (play(SlidingPolicy(seed), Slope(), 300)[0] for seed in (3, 3, 4))
    assert one == two
    assert one != other


def test_the_snow_is_laid_out_as_the_world_tells_it() -> None:
    assert SENSE_AHEAD[0] == SNOW_STEP_AHEAD
    assert SENSE_AHEAD[1] - SENSE_AHEAD[0] == SNOW_STEP_AHEAD
    assert SENSE_ASIDE[0] == SNOW_FIRST_ASIDE


def test_every_key_is_used_and_held_like_fingers_do() -> None:
    pressed: dict[str, list[int]] = {}
    idle = frames = 0
    for seed in range(8):
        actions, _ = play(SlidingPolicy(seed), Slope(), 900)
        frames += len(actions)
        idle += sum(not action.keys for action in actions)
        for key in ("forward", "back", "left", "right", "jump"):
            pressed.setdefault(key, []).extend(runs([key in action.keys for action in actions]))
    for key, lengths in pressed.items():
        assert len(lengths) >= 3, key
        assert np.median(lengths) >= 4, key
    assert idle / frames > 0.1


def test_it_goes_down_and_stays_on_the_course() -> None:
    for seed in range(6):
        _, track = play(SlidingPolicy(seed), Slope(), 700)
        assert track[-1, 0] > 80, seed
        assert np.abs(track[:, 1]).max() < 32, seed
        assert np.abs(track[:, 2]).mean() < 45, seed


def test_it_steers_around_trees() -> None:
    """Over many forests, far fewer frames among the trunks than for a player that goes straight."""
    touched = {"policy": 0, "straight": 0}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        trees = np.column_stack([rng.uniform(15, 400, 60), rng.uniform(-12, 12, 60), np.full(60, 1.2)])
        for who in touched:
            slope, policy = Slope(trees), SlidingPolicy(seed)
            for _ in range(500):
                slope.step(policy.act(slope.seen()) if who == "policy" else Action())
                touched[who] += bool((np.hypot(trees[:, 0] - slope.along, trees[:, 1] - slope.right) < 1.5).any())
    assert touched["policy"] < 0.5 * touched["straight"]


def test_it_rests_at_a_crawl_for_three_seconds_now_and_then() -> None:
    rests = [
        length
        for seed in range(12)
        for length in runs([bool(slow) for slow in play(SlidingPolicy(seed), Slope(), 900)[1][:, 3] < 2.4])
    ]
    assert max(rests) >= 75


def test_it_tumbles_only_in_the_air() -> None:
    tricks = 0
    for seed in range(6):
        policy, slope = SlidingPolicy(seed), Slope()
        for i in range(300):
            seen = slope.seen()
            flies = i % 60 >= 40
            action = policy.act(Seen(FRAME, hints={**seen.hints, "above": 2.0 if flies else 0.0}))
            assert flies or "trick" not in action.keys
            assert "trick" not in action.keys or len(action.keys) == 2
            tricks += "trick" in action.keys
    assert tricks > 20


def test_when_stuck_it_paddles_out_to_a_side() -> None:
    policy = SlidingPolicy(0)
    slope = Slope()
    slope.speed = 1.0
    seen = slope.seen()
    actions = [policy.act(seen) for _ in range(700)]
    escapes = [action for action in actions if "forward" in action.keys and action.keys & {"left", "right"}]
    assert len(escapes) >= 20


@pytest.mark.parametrize("hints", [{}, None])
def test_without_hints_it_slides(hints: dict[str, Any] | None) -> None:
    assert SlidingPolicy(0).act(Seen(FRAME, hints=hints or {})) == Action()
