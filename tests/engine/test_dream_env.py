from __future__ import annotations

import gymnasium
import numpy as np

import reverie.env


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
