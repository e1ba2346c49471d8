"""A small network that reads a latent step and the one before it: the step's reward, and whether it ends the episode.

    learned = LearnedReward.load("runs/reward")
    gymnasium.make("Reverie/Dream-v0", reward="runs/reward")       # the same

It reads latents, which every rollout has at hand, so it costs a rollout no encoding.

Legend: n steps, c u v a latent step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.errors import CheckpointError
from reverie.models.checkpoint import from_json, load_trained
from reverie.models.weights import fingerprint

GRID = (2, 4)
"""Grid of the pooled features, down and across."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Sizes of a learned reward, and the model that it is of."""

    latent: tuple[int, int, int]
    """(c, u, v) of a latent step."""
    resolution: tuple[int, int]
    """(H, W) of its frames, pixels."""
    tokenizer: str
    """`tokenizer_fingerprint` of the tokenizer whose latents it reads."""
    mean: float = 0.0
    """Mean reward of a step."""
    scale: float = 1.0
    """Standard deviation of a step's reward."""
    has_ends: bool = False
    """Recordings mark where episodes end."""
    width: int = 32
    """Channels of the network."""


class RewardNet(nn.Module):
    """Two latent steps to a reward and an end; untrained it predicts the mean reward of every step."""

    def __init__(self, config: RewardConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.body = nn.Sequential(
            nn.Conv2d(2 * config.latent[0], width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.head = nn.Linear(2 * width * GRID[0] * GRID[1], 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, before: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """before, z: (n, c, u, v).  Returns rewards (n,), less their mean and by their scale, and logits of an end."""
        seen = self.body(torch.cat([z, z - before], 1))
        return self.head(F.adaptive_avg_pool2d(seen, GRID).flatten(1)).unbind(1)

    def rewards(self, before: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts rewards in recorded units and probabilities of an episode's end; arguments as for `forward`."""
        reward, end = self(before, z)
        return reward * self.config.scale + self.config.mean, end.sigmoid()


class LearnedReward:
    """A trained network as hooks of an environment: `reward=learned`, `terminated=learned.ends`."""

    def __init__(self, model: RewardNet) -> None:
        self.model = model.eval().requires_grad_(False)
        self._last: tuple[Any, float, bool] | None = None

    @classmethod
    def load(cls, folder: str | Path) -> LearnedReward:
        """Loads a reward that `reverie train reward` wrote.  Raises CheckpointError."""
        return cls(load_reward(Path(folder))[0])

    def check(self, tokenizer: nn.Module, resolution: tuple[int, int]) -> None:
        """Raises CheckpointError for a model with another resolution (H, W), pixels, or tokenizer."""
        config = self.model.config
        if config.resolution != resolution:
            raise CheckpointError(
                f"the reward was trained on frames of {config.resolution}, the model makes {resolution}; train one on "
                "recordings of that resolution"
            )
        if config.tokenizer != (found := tokenizer_fingerprint(tokenizer)):
            raise CheckpointError(
                f"the reward was trained on latents of the tokenizer {config.tokenizer}, the model has {found}; train "
                "one with that model as --tokenizer"
            )

    def __call__(self, step: Any) -> float:
        """The reward of a `reverie.env.Step`: the sum over its latent steps."""
        return self._judge(step)[0]

    def ends(self, step: Any) -> bool:
        """Returns whether the step ends the episode: an end is more likely than none in one of its latent steps."""
        return self._judge(step)[1]

    @torch.inference_mode()
    def _judge(self, step: Any) -> tuple[float, bool]:
        if self._last is None or self._last[0] is not step:
            if step.latents is None:
                raise CheckpointError("a learned reward reads latents, which only dreams have; give a function")
            latents = torch.from_numpy(step.latents)
            reward, end = self.model.rewards(latents[:-1], latents[1:])
            self._last = step, float(reward.sum()), bool((end > 0.5).any())
        return self._last[1:]


def tokenizer_fingerprint(tokenizer: nn.Module) -> str:
    """A short name for a tokenizer's weights, as model folders keep them."""
    return fingerprint({name: tensor.bfloat16() for name, tensor in tokenizer.state_dict().items()})


def load_reward(folder: Path) -> tuple[RewardNet, dict[str, float]]:
    """Loads a network that `reverie train reward` made, with its figures on held-out episodes.

    Raises CheckpointError.
    """
    return load_trained(folder, "reward", "a learned reward", lambda raw: RewardNet(from_json(RewardConfig, raw)))
