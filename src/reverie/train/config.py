"""Settings of a training (`TrainerConfig`)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from reverie.errors import TrainError
from reverie.train.tracking import Track


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Options of the training loop.  The budget is `steps` or `minutes` of wall clock, one of them, over all resumes.

    Minutes count steps and the validations between them, and neither what comes before the first nor after the last.

    The learning rate rises over `warmup_steps`, holds, and falls linearly to zero over the last `decay` of the budget.
    muon: matrices, and kernels reshaped to matrices, are optimised by Muon (at AdamW's scale), the rest by AdamW.
    skip_above: a step whose gradient norm is that many times the recent median is left out.
    accumulate: micro-batches of a step in each process; the global batch is batch x accumulate x processes.
    workers: threads that make batches ahead.  dtype: what autocast computes in; auto is bfloat16 on a GPU that has it,
    else float32.  compile: the pieces of transformers (`reverie.models.compiled_blocks`) or else the task's own heavy
    part; validation, samples and export run as written, or they would be compiled for shapes of their own.
    shard: with several processes, each keeps its part of the task's blocks: weights, gradients, optimizer and average.
    remat: activation checkpointing of the blocks, if the model offers it.
    track: where figures and sheets go besides `log.jsonl` (`reverie.train.tracking`).
    """

    folder: Path
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    muon: bool = False
    warmup_steps: int = 100
    decay: float = 0.3
    clip: float = 1.0
    skip_above: float = 10.0
    ema: float = 0.999
    accumulate: int = 1
    workers: int = 1
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    shard: bool = False
    remat: bool = False
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 5.0
    validate_first: bool = True
    log_steps: int = 20
    track: Track = "auto"
    resume: bool = True

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise TrainError(
                f"give a budget of either steps or minutes, got steps={self.steps}, minutes={self.minutes}"
            )
        budget = self.steps if self.steps is not None else self.minutes
        if budget is None or not budget > 0:
            raise TrainError(f"the training budget must be above zero, got {budget}")
        if self.accumulate < 1 or self.workers < 1 or self.log_steps < 1:
            raise TrainError("accumulate, workers and log_steps must be at least 1")
        if self.shard and self.muon:
            raise TrainError("Muon needs whole matrices and --shard splits them; add --no-muon to train with AdamW")
        if not (0 <= self.decay <= 1 and 0 <= self.ema < 1 and self.lr > 0 and self.clip > 0):
            raise TrainError(
                f"expected 0 <= decay <= 1, 0 <= ema < 1, lr > 0 and clip > 0, got {self.decay}, {self.ema}, "
                f"{self.lr}, {self.clip}"
            )


def trainer_config(options: Any, folder: Path, **chosen: Any) -> TrainerConfig:
    """Builds a `TrainerConfig` from a command's options: those of its fields that `TrainerConfig` has too.

    chosen: other fields, or in place of options.
    """
    names = {field.name for field in fields(TrainerConfig)} - {"folder"}
    return TrainerConfig(
        folder=folder, **{name: getattr(options, name) for name in names if hasattr(options, name)} | chosen
    )
