import numpy as np
import pytest

from reverie.data.policies import Seen, policy_for, seen_now
from reverie.types import Action
from reverie.worlds import WORLDS, missing

if missing(WORLDS["city"]):
    pytest.skip(f"city needs {', '.join(missing(WORLDS['city']))}", allow_module_level=True)

from reverie_worlds.city.player import CityPolicy
from reverie_worlds.city.world import CityWorld


def play(view: str, seed: int, frames: int) -> tuple[list[Action], np.ndarray, CityWorld]:
    """The actions, and where the player was, `(frames, 2)`."""
    world = CityWorld(view=view)
    policy, actions, spots = policy_for("city", seed), [], []
    assert isinstance(policy, CityPolicy)
    frame = world.reset(seed)[0]
    for _ in range(frames):
        actions.append(policy.act(seen_now(world, frame)))
        frame = world.step(actions[-1])[0]
        spots.append(world._player_state()[:2])
    world.close()
    return actions, np.array(spots), world


@pytest.mark.parametrize(("view", "least_m"), [("car", 60.0), ("walk", 12.0)])
def test_it_gets_about(view: str, least_m: float) -> None:
    gone = []
    for seed in (0, 2):
        actions, spots, _ = play(view, seed, 300)
        gone.append(np.hypot(*np.diff(spots, axis=0).T).sum())
        assert any("forward" in a.keys for a in actions)
        turns = np.array([a.mouse for a in actions])
        assert np.isfinite(turns).all()
        assert np.abs(turns).max() < 20
    assert max(gone) > least_m


def test_the_driver_stays_on_the_road_when_it_cruises() -> None:
    world = CityWorld(("oldtown",), view="car")
    off = frames = 0
    for seed in (1, 3):
        policy = CityPolicy(seed)
        policy._left = 10_000
        frame = world.reset(seed)[0]
        for _ in range(200):
            frame = world.step(policy.act(seen_now(world, frame)))[0]
            off += world._plan.on_land(*world._player_state()[:2])
            frames += 1
    world.close()
    assert off / frames < 0.1


def test_every_mood_comes_up_and_everything_follows_from_the_seed() -> None:
    hints = {"speed": 9.0}
    for moods_of in ("DRIVE_MOODS", "WALK_MOODS"):
        moods = getattr(__import__("reverie_worlds.city.player", fromlist=["x"]), moods_of)
        policy, twin = CityPolicy(4), CityPolicy(4)
        seen = []
        for _ in range(200):
            policy._change(moods, hints)
            twin._change(moods, hints)
            assert (policy._mood, policy._left) == (twin._mood, twin._left)
            seen.append(policy._mood)
        assert set(seen) == set(moods)


def test_blind_it_does_nothing() -> None:
    assert CityPolicy(0).act(Seen(np.zeros((128, 224, 3), np.uint8))) == Action()
