"""`reverie distill init | dmd | decoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie.cli.display import TrainingDisplay, tell
from reverie.train.budget import announce

if TYPE_CHECKING:
    from reverie.train.distill_decoder import DistillDecoderConfig
    from reverie.train.distill_dmd import DistillDmdConfig
    from reverie.train.distill_init import DistillInitConfig


def distill_init(config: DistillInitConfig) -> None:
    """Makes a few-step student, with a progress bar."""
    from reverie.train.distill import run_distillation
    from reverie.train.distill_init import InitTask

    announce(config, tell)
    run_distillation(config, InitTask, TrainingDisplay())


def distill_dmd(config: DistillDmdConfig) -> None:
    """Teaches a student under its own rollouts, with a progress bar."""
    from reverie.train.distill import run_distillation
    from reverie.train.distill_dmd import DmdTask

    announce(config, tell)
    run_distillation(config, DmdTask, TrainingDisplay())


def distill_decoder(config: DistillDecoderConfig) -> None:
    """Trains a narrower decoder, with a progress bar."""
    from reverie.train import distill_decoder as decoder

    announce(config, tell)
    decoder.distill_decoder(config, TrainingDisplay())
