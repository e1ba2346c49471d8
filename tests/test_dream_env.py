from __future__ import annotations

import os
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import reverie.env
from reverie.engine.loading import device, forking
from reverie.errors import DeviceError, ImageError


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
