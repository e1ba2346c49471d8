"""Latent steps with rewards that can be learnt from them."""

from __future__ import annotations

import numpy as np

from reverie.models.reward import RewardConfig
from reverie.train.reward import RewardedSteps

SIZE = (32, 48)


def rewarded_steps(num_steps: int, seed: int) -> RewardedSteps:
    """What is bright on the left is worth more; a bright second channel, a third of the time, ends the episode."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num_steps + 1, 16, 4, 6)).astype(np.float16)
    ends = rng.random(num_steps) < 0.3
    z[1:, 1] += np.where(ends, 1, -1)[:, None, None].astype(np.float16)
    reward = 3 * z[1:, 0, :, :3].astype(np.float32).mean((1, 2)) + 0.5
    return RewardedSteps(z, 1 + np.arange(num_steps), reward, ends, np.zeros(num_steps, np.int32), True)


def reward_config(steps: RewardedSteps) -> RewardConfig:
    """A small network for such steps."""
    return RewardConfig(
        latent=(16, 4, 6), resolution=SIZE, tokenizer="x", mean=float(steps.reward.mean()),
        scale=float(steps.reward.std()), has_ends=True, width=16,
    )  # fmt: skip
