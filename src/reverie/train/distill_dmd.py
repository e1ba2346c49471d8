"""A student taught under its own rollouts, by matching distributions.

It rolls out on its own ring, through `sampling.denoise`; what it makes moves along the difference of two scores, the
frozen teacher's and that of a critic which keeps learning what the student makes (distribution matching, arXiv
2311.18828; under its own rollouts: Self-Forcing, arXiv 2506.08009).  Both are asked as teacher forcing asks, for each
step given the student's own steps before it.  Gradients flow through one random pass of each block, and not through the
ring.  Actions are drawn from recorded play, whatever frames they were recorded with.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie import sampling
from reverie.errors import TrainError
from reverie.models.dit import WorldModel
from reverie.models.state import Condition, WorldState
from reverie.sampling import Schedule, add_noise
from reverie.train.distill import DistillConfig, DistillTask
from reverie.train.forcing import clean_estimates, noise_like, noised_context
from reverie.train.latents import Batch

SMALLEST_SIGMA = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillDmdConfig(DistillConfig):
    """Teach a few-step student under its own rollouts.

    Example: reverie distill dmd --teacher runs/teacher/model --student runs/init/model --data rec -o runs/student
    """

    rollout_blocks: int = 10
    """Blocks of a rollout, which may be longer than the clips that the teacher judges (`clip_steps`)."""
    critic_updates: int = 4
    """Updates of the critic for each of the student's."""
    critic_lr: float = 5.0
    """The critic's learning rate, as a multiple of `lr`."""
    critic_first: float = 0.1
    """Share of the budget in which only the critic learns: before it fits the student, its score is useless."""
    still: float = 0.1
    """Share of rollouts in which nothing is done."""
    lr: float = 2e-5

    def __post_init__(self) -> None:
        super(DistillDmdConfig, self).__post_init__()
        if self.rollout_blocks < 1 or self.critic_updates < 1:
            raise TrainError(
                "expected rollout_blocks and critic_updates of at least 1, "
                f"got {self.rollout_blocks} and {self.critic_updates}"
            )
        if self.critic_lr <= 0 or not 0 <= self.critic_first < 1:
            raise TrainError(
                f"expected critic_lr > 0 and 0 <= critic_first < 1, got {self.critic_lr} and {self.critic_first}"
            )


class DmdTask(DistillTask):
    """Distribution matching under the student's own rollouts."""

    config: DistillDmdConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.critic = copy.deepcopy(self.teacher.world).train()
        self.critic.requires_grad_(True)
        self.model = nn.ModuleDict({"student": self.student, "critic": self.critic})
        if not self.student.config.block == 1 or self.student.config.conditioning != "previous_latent":
            raise TrainError("distribution matching takes models that make one step at a time from a given picture")

    def lr_factor(self, name: str) -> float:
        return self.config.critic_lr if name.startswith("critic.") else 1.0

    def blocks(self) -> list[nn.Module]:
        return [*super().blocks(), *self.critic.shard_units()]

    def _shared(self, purpose: int = 0) -> torch.Generator:
        """Draws that all processes must make alike: which network's turn it is, which pass has gradients."""
        return torch.Generator().manual_seed(self.step_seed + purpose)

    def batch(self, rng: np.random.Generator) -> Batch:
        """Start latents (b, 1, c, h, w), start images, and action rows (b, 4 blocks, a) of other moments of play."""
        batch = self.clips.play(rng, self.config.batch, self.config.rollout_blocks)
        batch.rows[torch.from_numpy(rng.random(len(batch.rows)) < self.config.still)] = 0.0
        return batch

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        self.settle()
        z0, rows, image = batch.z, batch.rows, self.image(batch.image)
        turn = torch.rand((), generator=self._shared()).item()
        is_students = self.progress >= self.config.critic_first and turn < 1 / (1 + self.config.critic_updates)
        with torch.set_grad_enabled(is_students):
            clip = self.rollout(z0, image, rows, generator)
        clip, rows = self._excerpt(clip, rows, generator)
        past = noised_context(clip.detach(), self.config.context_noise, generator)
        made = clip[:, 1:]
        sigma = self._levels(made, generator)
        noisy = add_noise(made.detach(), noise_like(made, generator), sigma)
        if not is_students:
            found = clean_estimates(self.critic, past, noisy, sigma, rows, image)
            weight = 1 / sigma.clamp(min=0.25) ** 2
            error = ((found.float() - made.detach()).square().mean((2, 3, 4)) * weight).mean()
            return error, {"critic_loss": error}
        real = self.teacher(past, noisy, sigma, rows, image)
        with torch.no_grad():
            fake = clean_estimates(self.critic, past, noisy, sigma, rows, image)
            scale = (made - real).abs().mean((2, 3, 4), keepdim=True).clamp(min=1e-3)
            wanted = made - (fake - real) / scale
        gap = (fake - real).abs().mean()
        return 0.5 * (made.float() - wanted).square().mean(), {"score_gap": gap}

    def rollout(self, z0: Tensor, image: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The student's own rollout, (b, 1 + blocks, c, h, w), with gradients through one pass of each block: the same
        random one for all, which is also the last."""
        model, schedule = self.student, self.schedule
        last = int(torch.randint(len(schedule.sigmas), (), generator=self._shared(1)))
        short = dataclasses.replace(schedule, sigmas=schedule.sigmas[: last + 1])
        state = model.new_state(len(z0), z0.device, z0.dtype)
        with torch.no_grad():
            sampling.begin(model, z0, image, schedule, state, generator)
        blocks = rows.split(model.config.block_frames, 1)
        steps = [
            sampling.advance(model, block, short, state, generator, run=_differentiable_passes) for block in blocks
        ]
        return torch.cat([z0, *steps], 1)

    def _excerpt(self, clip: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cuts a random excerpt, of the teacher's clip length, from a rollout and its actions."""
        length = min(self.config.clip_steps, clip.shape[1])
        room = clip.shape[1] - length
        first = int(torch.randint(room + 1, (), generator=generator, device=self.device))
        frames = self.student.config.block_frames
        return clip[:, first : first + length], rows[:, frames * first : frames * (first + length - 1)]

    def _levels(self, made: Tensor, generator: torch.Generator) -> Tensor:
        s = torch.rand(made.shape[:2], generator=generator, device=made.device)
        s = self.config.shift * s / (1 + (self.config.shift - 1) * s)
        return s.clamp(SMALLEST_SIGMA, 1 - SMALLEST_SIGMA)

    def validate(self) -> dict[str, float]:
        """Measures rollouts under recorded actions, on held-out clips.

        Returns the error against the recording, of all steps and of the last; and the spread of the rollouts over that
        of the recording (1 is right, 0 a grey haze).
        """
        self.settle()
        generator = torch.Generator(self.device).manual_seed(0)
        clips = self.held_out_clips(16)
        z = clips.z
        made = self.rollout_fully(z[:, :1], self.image(clips.image), clips.rows, generator)
        error = (made - z).square().mean((0, 2, 3, 4))
        spread = made[:, -1].std() / z[:, -1].std().clamp(min=1e-6)
        return {
            "rollout_mse": error[1:].mean().item(),
            "last_step_mse": error[-1].item(),
            "spread_ratio": spread.item(),
        }

    def rollout_fully(self, z0: Tensor, image: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Rolls out all steps with the KV cache, as a session does."""
        state = self.student.new_state(len(z0), z0.device, z0.dtype)
        sampling.begin(self.student, z0, image, self.schedule, state, generator)
        blocks = rows.split(self.student.config.block_frames, 1)
        steps = [sampling.advance(self.student, block, self.schedule, state, generator) for block in blocks]
        return torch.cat([z0, *steps], 1)


def _differentiable_passes(
    model: WorldModel, cond: Condition, schedule: Schedule, state: WorldState, noise: Sequence[Tensor]
) -> Tensor:
    """Does as `sampling.passes` does, with gradients through the last denoising pass; the block is committed
    without."""
    z = sampling.denoise(model, noise[0], cond, schedule, state, lambda i: noise[i + 1])
    with torch.no_grad():
        sampling.commit(model, z.detach(), cond, schedule, state, noise[-1] if schedule.context_sigma else None)
    return z
