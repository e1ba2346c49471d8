"""A faster decoder for the latents that a world already speaks: `reverie distill decoder`.

The encoder stays as it is, and so does the linear map in the decoder (its best guess without a network); a narrower
network learns the rest, by the tokenizer's own loss.  The world model needs no training: latents are the same.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reverie.data.dataset import Dataset
from reverie.errors import TrainError
from reverie.models.checkpoint import ModelBundle, load_model, save_model
from reverie.models.dit import count_parameters
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.config import trainer_config
from reverie.train.device import pick_device
from reverie.train.display import SILENT, Display
from reverie.train.start_frames import add_start_frames
from reverie.train.tokenizer import TokenizerOptions, TokenizerTask, read_pool, time_tokenizer
from reverie.train.trainer import Trainer
from reverie.types import Frames

HELD_OUT_CLIPS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillDecoderConfig(TokenizerOptions):
    """Train a narrower decoder for a model's latents.

    Example: reverie distill decoder --teacher runs/student/model --data rec -o runs/fast --minutes 20
    """

    teacher: Path
    """A model folder, of the games of the data."""
    coarse: int = 96
    """Width of the new decoder's coarse blocks, as `TokenizerConfig` has it."""
    middle: int = 96
    """Width of its middle blocks."""
    fine: int = 24
    """Width of its fine blocks."""
    blocks: tuple[int, int] = (1, 1)
    """Residual blocks, coarse and middle."""
    pool_clips: int = 512
    clip: float = 0.5
    """Largest norm of a gradient."""
    warmup_steps: int = 30
    """Steps over which the learning rate rises."""
    decay: float = 0.4
    """Last share of the budget, over which the learning rate falls linearly to zero."""
    ema: float = 0.99
    """Decay of the moving average of the weights, which is what figures and the model are of."""


class DecoderTask(TokenizerTask):
    """The tokenizer's task with its encoder frozen, and the teacher's figures beside the student's."""

    def __init__(self, config: DistillDecoderConfig, teacher: ModelBundle, pool: Frames, held_out: Frames) -> None:
        old = teacher.tokenizer
        if not isinstance(old, VideoTokenizer):
            raise TrainError("the model's tokenizer is not our own; only those of our own get another decoder")
        self.teacher, self._old, self._teacher_folder = teacher, old, config.teacher
        new = VideoTokenizer(
            dataclasses.replace(
                old.config,
                decoder_coarse=config.coarse,
                decoder_middle=config.middle,
                decoder_fine=config.fine,
                decoder_blocks=config.blocks,
            )
        )
        new.encoder.load_state_dict(old.encoder.state_dict())
        new.decoder.linear.load_state_dict(old.decoder.linear.state_dict())
        new.latent_mean.copy_(old.latent_mean)
        new.latent_std.copy_(old.latent_std)
        new.encoder.requires_grad_(False)
        super().__init__(new, config, pool, held_out)
        self._teacher_psnr: float | None = None

    def validate(self) -> dict[str, float]:
        """Runs the tokenizer's validation, and adds the teacher's PSNR on the same clips."""
        if self._teacher_psnr is None:
            new, self.tokenizer = self.tokenizer, self._old.to(self.device)
            self._teacher_psnr = super().validate()["psnr"]
            self.tokenizer = new
        return super().validate() | {"teacher_psnr": self._teacher_psnr}

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """The model folder with the new decoder, at `folder`/model."""
        old, new = self._old, self.tokenizer
        timing = {"teacher": time_tokenizer(old, self.held_out), "student": time_tokenizer(new, self.held_out)}
        sizes = [count_parameters([tokenizer.decoder]) for tokenizer in (old, new)]
        summary |= {"step_ms": timing, "decoder_parameters": sizes}
        config = dataclasses.replace(
            self.teacher.config,
            tokenizer=self.tokenizer.config,
            summary={**self.teacher.config.summary, "decoder": summary},
        )
        bundle = ModelBundle(config, self.teacher.model, self.tokenizer, self.teacher.image_encoder)
        save_model(folder / "model", bundle)
        add_start_frames(folder / "model", self.config.data, start=self._teacher_folder)


def distill_decoder(config: DistillDecoderConfig, display: Display = SILENT) -> dict[str, float]:
    """Trains the decoder; returns the figures on the held-out data."""
    device = pick_device(config.device)
    teacher = load_model(config.teacher, device)
    length = max(17, config.clip_frames)
    pool = read_pool(
        [Dataset(path) for path in config.data], config.pool_clips, max(33, config.clip_frames), config.seed
    )
    held_out = read_pool([Dataset(path) for path in config.held_out or config.data], HELD_OUT_CLIPS, length, seed=0)
    torch.manual_seed(config.seed)
    task = DecoderTask(config, teacher, pool, held_out)
    return Trainer(task, trainer_config(config, config.output), display=display).run()
