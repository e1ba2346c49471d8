from __future__ import annotations

import os
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from tests.helpers.counting_world import CountingWorld

import reverie.env
from reverie.engine.loading import device, forking
from reverie.env import DreamEnv, gym_action_space, to_action
from reverie.errors import ActionError, DeviceError, ImageError
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


def test_a_dream_is_an_environment(model_folder, engine, picture) -> None:
    assert reverie.env  # importing it registers
    options = {"model": str(model_folder), "image": picture, "device": "cpu", "dtype": "float32"}
    env = gymnasium.make("Reverie/Dream-v0", **options, per_frame=True, disable_env_checker=True)
    first, _ = env.reset(seed=1)
    assert first.shape == (32, 64, 3)
    action = {"keys": np.ones((4, 4), np.int8), "mouse": np.zeros((4, 2), np.float32)}
    shown = env.step(action)[0]
    again, _ = env.reset(seed=1)
    assert np.array_equal(first, again)
    assert np.array_equal(shown, env.step(action)[0])
    env.reset(seed=2)
    assert not np.array_equal(shown, env.step(action)[0])
    other = env.reset(seed=1, options={"image": picture[::-1].copy()})[0]
    assert not np.array_equal(first, other)
    env.close()


FORKED = """
import functools, sys
import gymnasium, torch
import reverie.env

torch.set_num_threads(2)
torch.ones(512, 512) @ torch.ones(512, 512)  # the parent's threads are there now, and stay behind in a fork
make = functools.partial(gymnasium.make, "Reverie/Dream-v0", model=sys.argv[1], image=sys.argv[2], device="cpu")
envs = gymnasium.vector.AsyncVectorEnv([make] * 2, context="fork")
pictures, _ = envs.reset(seed=[1, 2])
envs.step(envs.action_space.sample())
print(pictures.shape, envs.metadata["render_fps"])
envs.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_environments_play(model_folder, picture, tmp_path) -> None:
    """As AsyncVectorEnv makes them on Linux, after the parent has used torch with two threads."""
    from PIL import Image

    Image.fromarray(picture).save(tmp_path / "room.png")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", FORKED, str(model_folder), str(tmp_path / "room.png")]
    play = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, _ = play.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(play.pid, signal.SIGKILL)  # our own group: the children of the fork are in it
        play.wait()
        pytest.fail("the forked environments hang")
    assert play.returncode == 0
    assert out.split("\n")[0] == "(2, 32, 64, 3) 6.25"


def test_a_forked_child_of_cuda_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(forking.ForkState, "is_child", True)
    monkeypatch.setattr(forking.ForkState, "had_cuda", True)
    for name in ("auto", "cuda"):
        with pytest.raises(DeviceError, match='context="spawn"'):
            device.pick_device(name)
    assert device.pick_device("cpu").type == "cpu"


def test_a_model_without_start_pictures_wants_one(model_folder) -> None:
    with pytest.raises(ImageError, match="no start pictures; give one"):
        reverie.env.DreamEnv(model=str(model_folder), device="cpu", dtype="float32")
