from collections import Counter

import numpy as np
import pytest

from reverie.data.policies import Seen, policy_for
from reverie_worlds.temple.player import TemplePolicy
from reverie_worlds.temple.runner import Runner
from reverie_worlds.temple.track import first_leg

BLANK = np.zeros((128, 224, 3), np.uint8)
KEYS = {"left", "right", "jump", "crouch", "turn-left", "turn-right"}


def play(seed: int, frames: int = 1000) -> tuple[list[frozenset[str]], Runner]:
    runner, policy, keys = Runner(first_leg(seed), 9.0), policy_for("temple", seed), []
    for _ in range(frames):
        keys.append(policy.act(Seen(BLANK, hints=runner.hints())).keys)
        runner.step(keys[-1])
    return keys, runner


@pytest.fixture(scope="module")
def games() -> list[tuple[list[frozenset[str]], Runner]]:
    return [play(seed) for seed in range(24)]


def test_it_follows_from_its_seed() -> None:
    assert isinstance(policy_for("temple", 3), TemplePolicy)
    assert play(3, 400)[0] == play(3, 400)[0]
    assert play(3, 400)[0] != play(4, 400)[0]


def test_every_key_is_played_and_some_stretches_are_idle(games: list[tuple[list[frozenset[str]], Runner]]) -> None:
    held: Counter[str] = Counter()
    idle_runs, idle = [], 0
    for keys, _ in games:
        for now in keys:
            held.update(now)
            if now:
                idle_runs.append(idle)
            idle = 0 if now else idle + 1
    frames = sum(len(keys) for keys, _ in games)
    assert set(held) == KEYS
    for key in KEYS:
        assert held[key] / frames > 0.004, key
    assert 0.4 < sum(idle_runs) / frames < 0.85
    assert sum(run >= 75 for run in idle_runs) >= 5


def test_it_plays_well_but_not_without_mistakes(games: list[tuple[list[frozenset[str]], Runner]]) -> None:
    seconds = 40.0 * len(games)
    deaths = sum(runner.deaths for _, runner in games)
    assert 15.0 < seconds / deaths < 60.0
    assert any(runner.stumbles for _, runner in games)
    assert sum(runner.coins for _, runner in games) / seconds > 0.4


def test_it_goes_both_ways_at_junctions() -> None:
    ways = Counter()
    for seed in range(60):
        hints = {
            "obstacles": (), "corner": (0.5, ("left", "right")), "coins": (), "mode": "run", "speed": 10.0,
            "x": 0.0, "leg": 1,
        }  # fmt: skip
        policy = TemplePolicy(seed)
        for _ in range(4):
            ways.update(policy.act(Seen(BLANK, hints=hints)).keys)
    assert min(ways["turn-left"], ways["turn-right"]) > 15


def test_nothing_is_held_during_a_fall_or_without_hints() -> None:
    policy = TemplePolicy(0)
    assert not policy.act(Seen(BLANK)).keys
    assert not policy.act(Seen(BLANK, hints={"mode": "fall"})).keys
