"""A generated world as an environment of LeRobot's EnvHub: copy this file into a repository on the Hub.

    from lerobot.envs.factory import make_env
    envs = make_env("somebody/reverie-env", n_envs=2, trust_remote_code=True)

Observation: `pixels`, uint8 `(H, W, 3)`, the last frame of a block.  Action: `(keys + 2,)` float32 in [-1, 1], as in
Reverie's recordings: a key is held above 0.5, then mouse pitch and yaw, 1 being 15 degrees a frame.  It is held for a
block of frames.  REVERIE_MODEL names another model than the bundled one.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from reverie.env import MAX_ENV_TURN_DEG, DreamEnv

MAX_BLOCKS = 250
"""Length of an episode: 40 s of blocks of 4 frames."""


class FlatActions(gym.Wrapper):
    """One vector of numbers for keys and mouse, and pixels by name, as LeRobot's policies have them."""

    task = task_description = "explore"
    _max_episode_steps = MAX_BLOCKS

    def __init__(self, env: DreamEnv) -> None:
        super().__init__(env)
        parts: Any = env.action_space
        self._num_keys = parts["keys"].n if "keys" in parts.spaces else 0
        self._has_mouse = "mouse" in parts.spaces
        self.action_space = gym.spaces.Box(-1, 1, (self._num_keys + 2 * self._has_mouse,), np.float32)
        self.observation_space = gym.spaces.Dict({"pixels": env.observation_space})

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        frame, _ = self.env.reset(**options)
        return {"pixels": frame}, {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        parts = {}
        if self._num_keys:
            parts["keys"] = (action[: self._num_keys] > 0.5).astype(np.int8)
        if self._has_mouse:
            parts["mouse"] = action[self._num_keys :].astype(np.float32) * MAX_ENV_TURN_DEG
        frame, reward, terminated, truncated, _ = self.env.step(parts)
        return {"pixels": frame}, float(reward), terminated, truncated, {"is_success": False}


def make_one(model: str) -> FlatActions:
    return FlatActions(DreamEnv(model=model, max_steps=MAX_BLOCKS, render_mode="rgb_array"))


def make_env(
    n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None
) -> dict[str, dict[int, gym.vector.VectorEnv]]:
    """Makes the environments, for LeRobot.  Each loads the model: with `use_async_envs`, in a process of its own."""
    makers = [partial(make_one, os.environ.get("REVERIE_MODEL", "nano"))] * n_envs
    if use_async_envs:
        return {"reverie": {0: gym.vector.AsyncVectorEnv(makers, context="spawn")}}
    return {"reverie": {0: gym.vector.SyncVectorEnv(makers)}}
