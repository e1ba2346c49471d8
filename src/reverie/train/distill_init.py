"""The start of a student: a copy of the teacher that needs a few steps, teacher-forced.

`ode`: the teacher's straight-path solutions from noise are worked out, and the student learns their ends from what
stands at its own few levels (CausVid, arXiv 2412.07772).  `consistency`: no solutions; what the student makes at a
level must equal what it makes a little further down the teacher's path (arXiv 2303.01469).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reverie.models.schedule import shifted
from reverie.sampling import add_noise
from reverie.train.distill import DistillConfig, DistillTask
from reverie.train.forcing import Past, clean_estimates, follow, noise_like, noised_context
from reverie.train.latents import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillInitConfig(DistillConfig):
    """Start a few-step student from a many-step teacher.

    Example: reverie distill init --teacher runs/teacher/model --data rec -o runs/init --minutes 20
    """

    method: Literal["ode", "consistency"] = "ode"
    """ode learns the ends of the teacher's paths; consistency needs no paths."""
    teacher_steps: int = 12
    """Steps of the teacher's path from noise."""


class InitTask(DistillTask):
    """The few-step start."""

    config: DistillInitConfig

    def path_levels(self) -> list[float]:
        """The teacher's levels, from 1 down; the student's are among them."""
        even = [shifted(1 - i / self.config.teacher_steps, self.config.shift) for i in range(self.config.teacher_steps)]
        return sorted({*even, *self.config.sigmas}, reverse=True)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        self.settle()
        z, rows, image = batch.z, batch.rows, self.image(batch.image)
        past = noised_context(z, self.config.context_noise, generator)
        if self.config.method == "ode":
            return self._ode(past, rows, image, generator)
        return self._consistency(z, past, rows, image, generator)

    def _ode(
        self, past: Past, rows: Tensor, image: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Any]]:
        sigmas, noise = self.config.sigmas, noise_like(past.z[:, 1:], generator)
        *at, end = follow(self.teacher, noise, self.path_levels(), sigmas, past, rows, image)
        told = torch.tensor(sigmas, device=noise.device).repeat_interleave(noise.shape[1]).expand(len(noise), -1)
        found = clean_estimates(self.student, past, torch.cat(at, 1), told, rows, image)
        error = (found.float() - end.repeat(1, len(sigmas), 1, 1, 1)).square().mean()
        return error, {"ode_mse": error}

    def _consistency(
        self, z: Tensor, past: Past, rows: Tensor, image: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Any]]:
        grid = torch.tensor([*self.path_levels(), 0.0], device=z.device)
        target = z[:, 1:]
        place = torch.randint(len(grid) - 1, target.shape[:2], generator=generator, device=z.device)
        sigma, following = grid[place], grid[place + 1]
        x = add_noise(target, noise_like(target, generator), sigma)
        clean = self.teacher(past, x, sigma, rows, image)
        with torch.no_grad():
            lower = clean + (following / sigma)[..., None, None, None] * (x - clean)
            asked = clean_estimates(self.student, past, lower, following, rows, image)
            wanted = torch.where((following > 0)[..., None, None, None], asked, lower)
        found = clean_estimates(self.student, past, x, sigma, rows, image)
        # Squared, not pseudo-Huber, whose pull stays strong near the goal and shakes few-step students (docs/LOG.md).
        error = (found.float() - wanted).square().mean()
        return error, {"consistency_mse": error}

    def validate(self) -> dict[str, float]:
        """Measures the error of the few-step student against the end of the teacher's path.

        Both start from the same noise and context.  For scale, also the error of the teacher itself in as few steps.
        """
        self.settle()
        generator = torch.Generator(self.device).manual_seed(0)
        clips = self.held_out_clips(16)
        z, rows, image = clips.z, clips.rows, self.image(clips.image)
        past = noised_context(z, self.config.context_noise, generator)
        noises = [noise_like(z[:, 1:], generator) for _ in self.config.sigmas]
        given = (past, rows, image)
        *_, end = follow(self.teacher, noises[0], self.path_levels(), (), *given)
        rows_of = {"one_step_mse": self.asked(self.student), "teacher_one_step_mse": self.teacher}
        found = {
            name: (self.few_steps(estimate, noises, (1.0,), *given) - end).square().mean().item()
            for name, estimate in rows_of.items()
        }
        few = self.few_steps(self.asked(self.student), noises, self.config.sigmas, *given)
        return found | {"few_step_mse_to_data": (few - z[:, 1:]).square().mean().item()}
