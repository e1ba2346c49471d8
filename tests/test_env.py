from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from tests.helpers.counting_world import CountingWorld

import reverie.env
from reverie.env import DreamEnv, gym_action_space, to_action
from reverie.errors import ActionError
from reverie.types import FPS, Action, ActionSpace


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")  # our turns are in degrees, on purpose
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
@pytest.mark.parametrize("per_frame", [False, True])
def test_passes_gymnasiums_checker(per_frame: bool) -> None:
    check_env(DreamEnv(CountingWorld(), per_frame=per_frame, render_mode="rgb_array"))


def test_is_registered() -> None:
    assert reverie.env  # importing it registers
    env = gymnasium.make("Reverie/Dream-v0", world=CountingWorld(), max_steps=3, disable_env_checker=True)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_seeds_repeat_and_differ() -> None:
    env = DreamEnv(CountingWorld())
    first, second, third = (env.reset(seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_an_action_is_held_for_the_block() -> None:
    world = CountingWorld()
    env = DreamEnv(world)
    env.reset(seed=0)
    picture, reward, terminated, truncated, info = env.step({"keys": np.array([1, 0]), "mouse": np.array([0, 3.0])})
    assert world.actions == [Action(frozenset({"forward"}), (0.0, 3.0))] * 4
    assert info["frames"].shape == (4, 16, 32, 3)
    assert np.array_equal(picture, info["frames"][-1])
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_one_action_per_frame() -> None:
    world = CountingWorld()
    env = DreamEnv(world, per_frame=True)
    env.reset(seed=0)
    mouse = np.zeros((4, 2), np.float32)
    mouse[:, 1] = range(4)
    env.step({"keys": np.zeros((4, 2), np.int8), "mouse": mouse})
    assert [action.mouse[1] for action in world.actions] == [0, 1, 2, 3]


def test_what_is_returned_belongs_to_the_caller() -> None:
    env = DreamEnv(CountingWorld(), render_mode="rgb_array")
    picture, _ = env.reset(seed=0)
    picture[:] = 0
    assert env.render().any()


def test_worlds_without_keys_or_mouse() -> None:
    assert set(gym_action_space(ActionSpace((), mouse=True))) == {"mouse"}
    assert set(gym_action_space(ActionSpace(("jump",), mouse=False))) == {"keys"}
    assert to_action({"keys": np.array([1])}, ActionSpace(("jump",), mouse=False)) == Action(frozenset({"jump"}))


def test_another_picture_needs_a_model() -> None:
    with pytest.raises(ActionError, match="made from a model"):
        DreamEnv(CountingWorld()).reset(options={"image": np.zeros((16, 32, 3), np.uint8)})


def test_an_unknown_render_mode() -> None:
    with pytest.raises(ValueError, match="human"):
        DreamEnv(CountingWorld(), render_mode="human")


def test_one_picture_a_step_is_shown_for_the_block() -> None:
    """What RecordVideo writes, one picture a step at `render_fps`, lasts as long as the play did."""
    env = gymnasium.make("Reverie/Dream-v0", world=CountingWorld(), render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=0)
    frames = pictures = 0
    for _ in range(5):
        *_, info = env.step(env.action_space.sample())
        frames, pictures = frames + len(info["frames"]), pictures + 1
    assert pictures / env.metadata["render_fps"] == frames / FPS
    assert DreamEnv.metadata["render_fps"] == FPS  # an environment's own rate leaves the others alone
