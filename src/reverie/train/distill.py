"""Shared parts of the stages of distillation: `distill_init`, then `distill_dmd`.

A many-step teacher becomes a few-step student that does not drift:

    reverie distill init --teacher runs/teacher/model --data REC -o runs/init       # a few steps, teacher-forced
    reverie distill dmd  --teacher runs/teacher/model --student runs/init/model --data REC -o runs/student
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.errors import TrainError
from reverie.models.checkpoint import ModelBundle, load_model, save_model, shard_bytes_of
from reverie.models.dit import WorldModel
from reverie.models.start_frames import INDEX
from reverie.models.tokenizer import VideoTokenizer
from reverie.sampling import Schedule, add_noise
from reverie.train.batches import move
from reverie.train.config import WorldLoopOptions, trainer_config
from reverie.train.device import pick_device
from reverie.train.display import SILENT, Display
from reverie.train.forcing import Guided, Past, clean_estimates, count_tokens
from reverie.train.latents import Batch, Clips, load_for
from reverie.train.rollout import SCRIPTS, roll_out, save_sheet, script_rows
from reverie.train.start_frames import add_start_frames
from reverie.train.task import Task
from reverie.train.trainer import Trainer
from reverie.vision.pixels import to_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig(WorldLoopOptions):
    """Options of both stages of distillation."""

    teacher: Path
    """A model folder, of the games of the data."""
    student: Path | None = None
    """A model folder of the teacher's shape to go on from (default: the teacher)."""
    name: str = "student"
    """The student's name."""
    sigmas: tuple[float, ...] = (1.0, 0.6)
    """Noise levels of the student's denoising passes; it renoises between them."""
    context_sigma: float = 0.06
    """Noise on the context of the student's sessions."""
    guidance: float = 1.0
    """Guidance of the teacher; 1 is none."""
    context_noise: float = 0.25
    """The most noise that context gets in training."""
    clip_steps: int = 8
    """Latent steps of a training clip."""
    lr: float = 1e-4
    """Learning rate of the student."""
    warmup_steps: int = 20
    ema: float = 0.99

    def __post_init__(self) -> None:
        if self.batch < 1 or self.clip_steps < 2:
            raise TrainError(f"expected batch >= 1 and clip_steps >= 2, got {self.batch} and {self.clip_steps}")
        Schedule(self.sigmas, renoise=True)  # raises for bad levels


class DistillTask(Task):
    """A teacher, a student, and clips.  The image encoder and the tokenizer are the teacher's, and stay."""

    def __init__(
        self,
        config: DistillConfig,
        teacher: ModelBundle,
        train: Clips,
        held_out: Clips,
        student: WorldModel | None = None,
    ) -> None:
        self.config, self.bundle, self.clips, self.held_out = config, teacher, train, held_out
        self.teacher = Guided(teacher.model.eval().requires_grad_(False), config.guidance)
        self.student = copy.deepcopy(student or teacher.model).train()
        self.student.requires_grad_(True)
        self.model: nn.Module = nn.ModuleDict({"student": self.student})
        self.schedule = Schedule(config.sigmas, renoise=len(config.sigmas) > 1, context_sigma=config.context_sigma)

    def image(self, picture: Tensor) -> Tensor:
        """Tokens of images (b, 3, H/2, W/2) uint8."""
        with torch.no_grad():
            return self.bundle.image_encoder(to_pixels(picture))

    def settle(self) -> None:
        """The frozen parts go where the trained ones are."""
        if next(self.teacher.world.parameters()).device != self.device:
            self.bundle.to(self.device, torch.float32)

    def batch(self, rng: np.random.Generator) -> Batch:
        return self.clips.draw(rng, self.config.batch, self.config.clip_steps)

    def blocks(self) -> list[nn.Module]:
        return self.student.shard_units()

    def networks(self) -> list[nn.Module]:
        return [self.model, self.teacher.world]

    def tokens(self, batch: Batch) -> int:
        return count_tokens(self.student, batch.rows)

    def data_size(self) -> int:
        return self.clips.num_steps

    def held_out_clips(self, count: int) -> Batch:
        return move(self.held_out.spread(count, self.config.clip_steps), self.device)

    def sample(self, folder: Path, step: int) -> None:
        """A sheet of rollouts under fixed scripts, from held-out start frames of every game."""
        self.settle()
        if not isinstance(self.bundle.tokenizer, VideoTokenizer):
            return
        opening = move(self.held_out.openings(2 if len(self.held_out.parts) == 1 else 1), self.device)
        rows = script_rows(self.bundle.config.action_space, 64).to(self.device).repeat(len(opening.z), 1, 1)
        z0, image = (x.repeat_interleave(len(SCRIPTS), 0) for x in (opening.z, self.image(opening.image)))
        clips = roll_out(self.student, self.bundle.tokenizer, z0, image, rows, self.schedule)
        save_sheet(folder / f"{step:07d}.png", clips)

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """The finished model folder, at `folder`/model."""
        self._save(folder / "model", summary)
        add_start_frames(folder / "model", self.config.data, start=self.config.teacher)

    def export_so_far(self, folder: Path, summary: dict[str, Any]) -> None:
        """The model folder, at `folder`/model."""
        self._save(folder / "model", summary)
        if not (folder / "model" / INDEX).is_file():
            add_start_frames(folder / "model", self.config.data, start=self.config.teacher)

    def _save(self, folder: Path, summary: dict[str, Any]) -> None:
        config = dataclasses.replace(
            self.bundle.config,
            name=self.config.name,
            schedule=self.schedule,
            summary={"distilled": summary},
        )
        bundle = ModelBundle(config, self.student, self.bundle.tokenizer, self.bundle.image_encoder)
        save_model(folder, bundle, shard_bytes=shard_bytes_of(self.config.max_shard_mb))

    @staticmethod
    def few_steps(
        estimate: Any, noises: Sequence[Tensor], sigmas: Sequence[float], past: Past, rows: Tensor, image: Tensor
    ) -> Tensor:
        """A few-step sample of every step of a clip at once: clean estimate, fresh noise, and again."""
        x = noises[0]
        for i, sigma in enumerate(sigmas):
            clean = estimate(past, x, torch.full(x.shape[:2], sigma, device=x.device), rows, image)
            if i + 1 < len(sigmas):
                x = add_noise(clean, noises[i + 1], sigmas[i + 1])
        return clean  # pyright: ignore[reportPossiblyUnboundVariable]  # there is at least one level

    def asked(self, model: WorldModel) -> Any:
        """`clean_estimates` of a model that learns."""
        return lambda *given: clean_estimates(model, *given)


def run_distillation(config: DistillConfig, task: type[DistillTask], display: Display = SILENT) -> dict[str, float]:
    """Encode the recordings, train, and write a model folder to `output`/model."""
    device = pick_device(config.device)
    teacher = load_model(config.teacher, device)
    if not isinstance(teacher.tokenizer, VideoTokenizer):
        raise TrainError(f"{config.teacher} has a tokenizer that is not our own; distillation is for worlds of our own")
    student = None
    if config.student is not None:
        student = load_model(config.student, device).model
        if student.config != teacher.model.config:
            raise TrainError(f"{config.student} and {config.teacher} are not models of one shape; distil either anew")
    train, held_out = load_for(teacher, config, device, display)
    check_fits(teacher, train)
    check_fits(teacher, held_out)
    torch.manual_seed(config.seed)
    made = task(config, teacher, train, held_out, student)
    return Trainer(made, trainer_config(config, config.output), display=display).run()


def check_fits(teacher: ModelBundle, clips: Clips) -> None:
    """Raises TrainError where recordings have other latents than the teacher."""
    latent = teacher.config.world.latent
    if clips.latent != latent:
        raise TrainError(f"the recordings have latents {clips.latent} (c, h, w), the teacher {latent}")
