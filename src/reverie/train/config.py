"""Settings of a training: the options that commands share, each documented here alone, and `TrainerConfig`.

A command's own class adds what is its own, and restates an option only to give it another default.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from reverie.argument_markers import alias
from reverie.errors import TrainError
from reverie.train.tracking import Track


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """Options of every training."""

    minutes: float | None = None
    """Budget of wall clock over all resumes, or else give steps: time for training steps, and figures between them.
    Preparing the recordings and the last figures come on top."""
    steps: int | None = None
    """Budget of optimizer steps over all resumes, or else give minutes."""
    seed: int = 0
    """Seed of all random draws."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of the computation; auto is bfloat16 on a GPU that has it and on a CPU with AMX, else float32."""
    track: Track = "auto"
    """Tracker of figures and sheets besides log.jsonl; auto is TensorBoard if it is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedLoopOptions(LoopOptions):
    """Options of trainings that take long enough to be watched."""

    muon: bool = False
    """Optimise matrices, and kernels reshaped to matrices, by Muon (at AdamW's scale) and the rest by AdamW, instead of
    all by AdamW."""
    compile: bool = False
    """Compile the pieces of transformers, or else the task's own heavy part.  Validation, samples and exports run as
    written, or they would be compiled for shapes of their own."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints, and exports of the model so far."""
    validate_minutes: float = 5.0
    """Minutes between figures on the held-out data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelLoopOptions(SavedLoopOptions):
    """Options of trainings that may run in several processes."""

    warmup_steps: int = 100
    """Steps over which the learning rate rises."""
    decay: float = 0.3
    """Last share of the budget, over which the learning rate falls linearly to zero."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what figures and models are of; 0 averages nothing."""
    accumulate: int = 1
    """Micro-batches of a step in each process; the global batch is batch x accumulate x processes."""
    workers: int = 1
    """Threads that make batches ahead."""
    shard: bool = False
    """With several processes, each keeps its part of the blocks (FSDP2): weights, gradients, optimizer and average."""
    remat: bool = False
    """Activation checkpointing of the blocks: less memory, more computation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldLoopOptions(ParallelLoopOptions):
    """Options of trainings of worlds on encoded recordings."""

    data: tuple[Path, ...]
    """Datasets in the LeRobot v3 layout, one or several games, each drawn equally often."""
    output: Annotated[Path, alias("-o")]
    """Folder of the run; the model is in model below it."""
    held_out: tuple[Path, ...] = ()
    """Datasets for the figures; without any they are on the data itself."""
    latents: Path | None = None
    """Folder of encoded recordings, to share them between runs (default: in the run's folder)."""
    max_hours: float | None = None
    """Hours used of each dataset, at most."""
    held_out_hours: float = 0.1
    """Hours used of each held-out dataset, at most."""
    batch: int = 4
    """Clips of a batch."""
    shift: float = 3.0
    """Shift of the training noise levels towards 1."""
    max_shard_mb: float | None = None
    """Largest file of the model's weights; larger ones are sharded as on the Hugging Face Hub."""
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig(ParallelLoopOptions):
    """Settings of the training loop.  The budget is `steps` or `minutes` of wall clock, one of them, over all resumes.

    Minutes count steps and the validations between them, and neither what comes before the first nor after the last.
    """

    folder: Path
    """Folder of the run."""
    lr: float = 3e-4
    """Learning rate between its rise and its fall."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decays of the two moments."""
    weight_decay: float = 0.01
    """Weight decay of matrices."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    skip_above: float = 10.0
    """Gradient norm, as a multiple of the recent median, above which a step is left out."""
    validate_first: bool = True
    """Measure figures before the first step too."""
    log_steps: int = 20
    """Steps between lines of the log."""
    resume: bool = True
    """Go on from the newest checkpoint of the folder."""

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


def trainer_config(options: LoopOptions, folder: Path, **chosen: Any) -> TrainerConfig:
    """Builds a `TrainerConfig` from a command's options: those of its fields that `TrainerConfig` has too.

    chosen: other fields, or in place of options.
    """
    names = {field.name for field in fields(TrainerConfig)} - {"folder"}
    return TrainerConfig(
        folder=folder, **{name: getattr(options, name) for name in names if hasattr(options, name)} | chosen
    )
