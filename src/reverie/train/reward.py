"""Training a learned reward: `reverie train reward --data DIR --tokenizer nano-folder -o RUN --minutes 2`.

A run ends with a folder of `config.json` and `reward.safetensors`, which `reward=` of environments takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from reverie.argument_markers import alias
from reverie.data.dataset import Dataset
from reverie.data.rewards import read_rewards
from reverie.errors import DataError, TrainError
from reverie.models.checkpoint import save_trained
from reverie.models.reward import RewardConfig, RewardNet, tokenizer_fingerprint
from reverie.train.config import LoopOptions, trainer_config
from reverie.train.device import pick_device
from reverie.train.display import SILENT, Display
from reverie.train.encode import load_latents
from reverie.train.task import Task
from reverie.train.tokenizer import read_tokenizer
from reverie.train.trainer import Trainer
from reverie.types import STEP_FRAMES

HELD_OUT_EVERY = 5
"""Without held-out episodes in a recording, every so many-th of it is held out."""
CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRewardConfig(LoopOptions):
    """Train a small network that predicts the reward of a generated step, and whether it ends the episode.

    Example: reverie train reward --data rec/doom --tokenizer models/nano -o runs/reward --minutes 2
    """

    data: Path
    """A recording with the column next.reward, and next.done where episodes end."""
    tokenizer: Path
    """Folder of the model whose rollouts are scored, or of its tokenizer's training."""
    output: Annotated[Path, alias("-o")]
    """Folder of the run."""
    held_out: Path | None = None
    """A held-out recording, for the figures; without it they are on episodes of the data that are not trained on."""
    latents: Path | None = None
    """Folder of encoded recordings, to share them between runs (default: in the run's folder)."""
    batch: int = 64
    """Latent steps of a batch."""
    lr: float = 1e-3
    """Learning rate."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise TrainError(f"--batch must be at least 1, got {self.batch}")


@dataclass(frozen=True, slots=True)
class RewardedSteps:
    """Latent steps that have one before them.

    z: (N, c, u, v) of the whole recording; index: (n,) which of them; reward: (n,) the sum over the step's four frames;
    ends: (n,) whether one of these ends the episode; episode: (n,); has_ends: whether the recording states it.
    """

    z: npt.NDArray[np.float16]
    index: npt.NDArray[np.int64]
    reward: npt.NDArray[np.float32]
    ends: npt.NDArray[np.bool_]
    episode: npt.NDArray[np.int32]
    has_ends: bool

    def __len__(self) -> int:
        return len(self.index)

    def where(self, chosen: npt.NDArray[np.bool_]) -> RewardedSteps:
        """The steps of a mask (n,)."""
        parts = (self.index[chosen], self.reward[chosen], self.ends[chosen], self.episode[chosen])
        return RewardedSteps(self.z, *parts, self.has_ends)

    def batch(self, picks: npt.NDArray[np.int64] | slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """before and z (b, c, u, v), reward (b,), ends (b,)."""
        index = self.index[picks]
        before, z = (torch.from_numpy(self.z[i].astype(np.float32)) for i in (index - 1, index))
        return before, z, torch.from_numpy(self.reward[picks]), torch.from_numpy(self.ends[picks]).float()


def load_steps(
    data: Path, config: TrainRewardConfig, tokenizer: Any, cache: Path, display: Display = SILENT
) -> RewardedSteps:
    """The steps of a recording with their rewards.  Raises DataError for one without rewards."""
    dataset = Dataset(data)
    if not dataset.num_episodes:
        raise DataError(f"{data}: holds no episodes; record some first")
    read_rewards(dataset, 0)  # before minutes of encoding
    clips = load_latents(data, tokenizer, cache, pick_device(config.device), display=display)
    firsts = np.flatnonzero(np.diff(clips.episode, prepend=-1))
    index, reward, ends, has_ends = [], [], [], False
    for first, after in zip(firsts, [*firsts[1:], len(clips)], strict=True):
        rewards, done = read_rewards(dataset, int(clips.episode[first]))
        num_steps = int(after - first) - 1
        index.append(first + 1 + np.arange(num_steps))
        reward.append(_by_step(rewards, num_steps).sum(1))
        has_ends |= done is not None
        ends.append(np.zeros(num_steps, np.bool_) if done is None else _by_step(done, num_steps).any(1))
    joined = np.concatenate(index)
    return RewardedSteps(clips.z, joined, np.concatenate(reward), np.concatenate(ends), clips.episode[joined], has_ends)


def _by_step(rows: npt.NDArray[Any], num_steps: int) -> npt.NDArray[Any]:
    """Rows (f,) that lead to frames of latent steps: (num_steps, 4), the first step of an episode left out."""
    return rows[: STEP_FRAMES * num_steps].reshape(num_steps, STEP_FRAMES)


def split_steps(steps: RewardedSteps, dataset: Dataset) -> tuple[RewardedSteps, RewardedSteps]:
    """Steps to train on and held-out ones, by whole episodes: those recorded as held out, else every fifth.

    Raises DataError for a single episode.
    """
    episodes = np.unique(steps.episode)
    held = [e for e in episodes if dataset.episodes[e].is_heldout] or list(
        episodes[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    )
    held = held or list(episodes[-1:])
    chosen = np.isin(steps.episode, held)
    if chosen.all():
        raise DataError(
            f"{dataset.path}: none of its {len(episodes)} episodes is left to train on when some are held out; record "
            "more, or give --held-out"
        )
    return steps.where(~chosen), steps.where(chosen)


class RewardTask(Task):
    """Batches of steps; squared error of rewards and cross-entropy of ends; the same on held-out episodes, beside a
    predictor of the training's mean of every step."""

    def __init__(self, model: RewardNet, config: TrainRewardConfig, steps: RewardedSteps, held_out: RewardedSteps):
        self.model = self.net = model
        self.config, self.steps, self.held_out = config, steps, held_out

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.steps.batch(rng.integers(len(self.steps), size=self.config.batch))

    def loss(
        self, batch: tuple[Tensor, Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        before, z, reward, ends = batch
        guess, end = self.net(before, z)
        error = F.mse_loss(guess.float(), (reward - self.net.config.mean) / self.net.config.scale)
        if not self.net.config.has_ends:
            return error, {"reward": error}
        ended = F.binary_cross_entropy_with_logits(end.float(), ends)
        return error + ended, {"reward": error, "end": ended}

    def validate(self) -> dict[str, float]:
        """Mean squared errors in the recording's units, and the share of the constant predictor's that is gone."""
        true, (guesses, chances) = self.held_out.reward, self._predict_held_out()
        mse = float(np.square(guesses - true).mean())
        constant = float(np.square(self.steps.reward.mean() - true).mean())
        figures = {
            "reward.mse": mse,
            "reward.constant_mse": constant,
            "reward.explained": 1 - mse / max(constant, 1e-12),
        }
        if self.net.config.has_ends:
            rate = np.full(len(true), self.steps.ends.mean(), np.float32)
            figures["end.cross_entropy"] = _cross_entropy(chances, self.held_out.ends)
            figures["end.constant_cross_entropy"] = _cross_entropy(rate, self.held_out.ends)
        return figures

    def _predict_held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and chances of an end, of every held-out step."""
        guesses, chances = [], []
        for first in range(0, len(self.held_out), CHUNK):
            before, z, _, _ = self.held_out.batch(slice(first, first + CHUNK))
            guess, chance = self.net.rewards(before.to(self.device), z.to(self.device))
            guesses.append(guess.float().cpu().numpy())
            chances.append(chance.float().cpu().numpy())
        return np.concatenate(guesses), np.concatenate(chances)

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        save_trained(folder, "reward", self.net, {**summary, "data": str(self.config.data)})

    def data_size(self) -> int:
        return len(self.steps)


def _cross_entropy(chance: npt.NDArray[np.float32], true: npt.NDArray[np.bool_]) -> float:
    chance = chance.clip(1e-6, 1 - 1e-6)
    return float(-np.where(true, np.log(chance), np.log1p(-chance)).mean())


def train_reward(config: TrainRewardConfig, display: Display = SILENT) -> dict[str, float]:
    """Trains the predictor.  Raises DataError for recordings that are missing, without rewards or of another size."""
    torch.manual_seed(config.seed)
    folders: Sequence[Path] = (config.data,) if config.held_out is None else (config.data, config.held_out)
    sizes = [Dataset(folder).resolution for folder in folders]
    if len(set(sizes)) > 1:
        raise DataError(
            f"{config.held_out} has frames of {sizes[1]}, {config.data} of {sizes[0]}; take the same for both"
        )
    tokenizer = read_tokenizer(config.tokenizer).to(pick_device(config.device))
    cache = config.latents or config.output / "latents"
    steps = load_steps(config.data, config, tokenizer, cache / config.data.resolve().name, display)
    if config.held_out is None:
        steps, held_out = split_steps(steps, Dataset(config.data))
    else:
        kept = cache / "held-out" / config.held_out.resolve().name
        held_out = load_steps(config.held_out, config, tokenizer, kept, display)
    model = RewardNet(
        RewardConfig(
            latent=tuple(steps.z.shape[1:]),
            resolution=sizes[0],
            tokenizer=tokenizer_fingerprint(tokenizer),
            mean=float(steps.reward.mean()),
            scale=float(steps.reward.std()) or 1.0,
            has_ends=steps.has_ends,
        )
    )
    options = trainer_config(config, config.output, warmup_steps=20, ema=0.99)
    return Trainer(RewardTask(model, config, steps, held_out), options, display=display).run()
