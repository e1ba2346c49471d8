from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from reverie.data.policies import Policy, Seen, policy_for
from reverie_worlds.rally.player import OPPOSITE, RallyPolicy

FRAME = np.zeros((8, 8, 3), np.uint8)
KEYS = ("forward", "back", "left", "right", "handbrake")
AHEAD_M = (8.0, 16.0, 30.0, 50.0, 80.0)


class ToyCar:
    """A car on an endless road that winds about the x axis: `bend(x)` is the road's y."""

    def __init__(self, bend: Callable[[float], float] = lambda x: 0.0, walls: bool = False) -> None:
        self.x = self.y = self.yaw = self.speed = self.wheel = 0.0
        self.bend = bend
        self.walls = walls

    @property
    def hints(self) -> dict:
        ways = [(d, self.bend(self.x + d) - self.y) for d in AHEAD_M]
        angles = [(math.degrees(math.atan2(-dy, dx)) - self.yaw + 180) % 360 - 180 for dx, dy in ways]
        distances = [math.hypot(*way) for way in ways]
        off = abs(self.bend(self.x) - self.y)
        return {"speed": self.speed, "ahead": np.stack([angles, distances], axis=1), "off_route_m": off}

    def step(self, keys: frozenset[str]) -> None:
        pull = 0.2 * (("forward" in keys) - ("back" in keys)) - (0.4 if "handbrake" in keys and self.speed > 0 else 0)
        self.speed = max(0.99 * self.speed + pull, -6.0)
        if self.walls and self.speed > 0:
            self.speed = 0.0
        self.wheel = 0.8 * self.wheel + 0.3 * (("right" in keys) - ("left" in keys))
        self.yaw += self.wheel * min(self.speed, 8.0) * 0.35
        yaw = math.radians(self.yaw)
        self.x += 0.04 * self.speed * math.cos(yaw)
        self.y -= 0.04 * self.speed * math.sin(yaw)


def drive(policy: Policy, car: ToyCar, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys `(f, 5)` bool, and x, y, speed, distance from the road `(f, 4)`."""
    keys, states = [], []
    for _ in range(frames):
        hints = car.hints
        states.append((car.x, car.y, car.speed, hints["off_route_m"]))
        action = policy.act(Seen(FRAME, hints=hints))
        assert action.mouse == (0.0, 0.0)
        keys.append([key in action.keys for key in KEYS])
        car.step(action.keys)
    return np.array(keys), np.array(states)


def only(mood: str, seed: int = 0) -> RallyPolicy:
    policy = RallyPolicy(seed)
    policy._set(mood)
    policy._mood_left = 10_000
    return policy


@pytest.fixture(scope="module")
def much_play() -> list[tuple[np.ndarray, np.ndarray]]:
    """Forty episodes of 40 s."""
    return [drive(RallyPolicy(seed), ToyCar(lambda x: 20 * math.sin(x / 60)), 1000) for seed in range(40)]


def test_it_is_the_policy_of_the_game_and_the_seed_decides() -> None:
    assert isinstance(policy_for("trigger-rally", 0), RallyPolicy)
    a, b, c = (drive(RallyPolicy(seed), ToyCar(), 300)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_it_uses_the_keys_like_a_person(much_play: list) -> None:
    keys = np.concatenate([keys for keys, _ in much_play])
    share = dict(zip(KEYS, keys.mean(axis=0), strict=True))
    assert 0.35 < share["forward"] < 0.8
    assert 0.05 < share["back"] < 0.25
    assert 0.1 < share["left"] < 0.4
    assert abs(share["left"] - share["right"]) < 0.06
    assert 0.01 < share["handbrake"] < 0.12
    for key, opposite in OPPOSITE.items():
        assert not (keys[:, KEYS.index(key)] & keys[:, KEYS.index(opposite)]).any()


def test_keys_are_held_as_long_as_fingers_do(much_play: list) -> None:
    holds = []
    for keys, _ in much_play:
        for column in keys.T:
            runs = [len(list(run)) for held, run in itertools.groupby(column) if held]
            holds += runs[1:-1]
    assert min(holds) >= 3
    assert 4 <= np.median(holds) <= 20


def test_it_stands_now_and_then_for_seconds(much_play: list) -> None:
    stands = [np.abs(states[:, 2]) < 0.3 for _, states in much_play]
    assert 0.03 < np.concatenate(stands).mean() < 0.15
    longest = [max((len(list(r)) for s, r in itertools.groupby(stand) if s), default=0) for stand in stands]
    assert np.mean(np.array(longest) >= 75) > 0.15, "three seconds and more, in some episodes"


def test_speeds_vary(much_play: list) -> None:
    speeds = np.concatenate([states[:, 2] for _, states in much_play])
    assert np.percentile(speeds, 90) > 15
    assert (speeds < -1).mean() > 0.01, "it backs up too"


def test_it_follows_a_winding_road_but_not_on_rails() -> None:
    off = []
    for seed in range(8):
        _, states = drive(only("drive", seed), ToyCar(lambda x: 20 * math.sin(x / 50)), 800)
        assert states[-1, 0] > 150, "it comes along"
        off.append(states[:, 3])
    assert np.mean(off) < 5
    assert np.max(off) > 2


def test_it_brakes_before_a_bend() -> None:
    """A corner of 90 degrees after 300 m of straight road."""
    slowest = []
    for seed in range(6):
        policy = only("drive", seed)
        policy._cruise, policy._cruise_left = 28.0, 10_000
        _, states = drive(policy, ToyCar(lambda x: 0.0 if x < 300 else 8.0 * (x - 300)), 700)
        straight = states[states[:, 0] < 240]
        corner = states[states[:, 0] > 270]
        assert len(corner), "it gets there"
        slowest.append((straight[:, 2].max(), corner[:, 2].min()))
    assert all(slow < 0.8 * fast for fast, slow in slowest)


def test_exploring_leaves_the_road() -> None:
    away = [drive(only("explore", seed), ToyCar(), 250)[1][-1, 3] for seed in range(6)]
    assert np.median(away) > 10


def test_who_is_stuck_backs_out() -> None:
    keys, _ = drive(only("drive"), ToyCar(walls=True), 120)
    assert keys[:30, KEYS.index("forward")].mean() > 0.8
    assert keys[30:, KEYS.index("back")].mean() > 0.25


def test_it_plays_blind_without_hints() -> None:
    policy = RallyPolicy(1)
    pressed = {key for _ in range(500) for key in policy.act(Seen(FRAME)).keys}
    assert "forward" in pressed
