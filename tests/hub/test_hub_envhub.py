"""The file for LeRobot's EnvHub."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

ENV = Path(__file__).parents[2] / "spaces/envhub/env.py"


def test_a_vector_of_worlds_with_flat_actions(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERIE_MODEL", str(model))
    envs = runpy.run_path(str(ENV))["make_env"](n_envs=2)["reverie"][0]
    keys = 4
    observation, _ = envs.reset(seed=[1, 1])
    assert observation["pixels"].shape == (2, 32, 64, 3)
    assert envs.single_action_space.shape == (keys + 2,)
    assert envs.call("_max_episode_steps") == (250, 250)
    still, turning = np.zeros(keys + 2, np.float32), np.zeros(keys + 2, np.float32)
    turning[-1] = 1.0
    observation, reward, terminated, truncated, info = envs.step(np.stack([still, turning]))
    assert (observation["pixels"][0] != observation["pixels"][1]).any()
    assert not any(values.any() for values in (reward, terminated, truncated, info["is_success"]))
    envs.close()
