"""The one training loop: the tokenizer's, the world model's and distillation's.

A `Task` says what is trained (a module, batches, a loss, pictures to look at); the `Trainer` does the rest: schedule,
optimizers, clipping, averaging of weights, checkpoints that resume bit for bit, several processes, and reports.

Everything random in step `i` follows from `(seed, i, micro-batch)` alone, so a training that was killed and resumed
takes the very steps that it would have taken (with `steps` as its budget; `minutes` depends on the clock).  A step's
micro-batches are numbered across the processes: `batch` and `accumulate x processes` decide the loss curve, however
the micro-batches are shared out.

    class Double(Task):
        def __init__(self): self.model = torch.nn.Linear(1, 1)
        def batch(self, rng): x = torch.from_numpy(rng.normal(size=(8, 1)).astype("float32")); return x, 2 * x
        def loss(self, batch, generator): x, y = batch; return (self.model(x) - y).square().mean(), {}

    Trainer(Double(), TrainerConfig(folder=Path("runs/double"), steps=100)).run()
"""

from __future__ import annotations

import math
import os
import signal
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reverie.errors import DeviceError, TrainError
from reverie.models.pieces import TRAINING_PIECES, check_compiler, compile_pieces
from reverie.nn.attention import flex, flex_works
from reverie.train.budget import take_preparation_s
from reverie.train.checkpoints import Checkpoints, FolderLock, Progress
from reverie.train.optimizers import build_optimizers
from reverie.train.parallel import Ranks, Shards, local
from reverie.train.report import SAMPLES, Report
from reverie.train.throughput import FlopCount, Work, peak_flops
from reverie.train.tracking import Track

MALLOC_HINTS = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Memory kept by glibc instead of being given back and faulted in again: steps of fixed shapes run 25-30% faster."""

NORMS_KEPT = 100
"""Gradient norms remembered to tell a huge one."""

MAX_SKIPPED_IN_A_ROW = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How to train.  The budget is `steps` or `minutes` of wall clock, one of them; time is kept over resumes.

    Minutes count steps and the validations between them, and neither what comes before the first nor after the last.

    The learning rate rises over `warmup_steps`, holds, and falls linearly to zero over the last `decay` of the budget.
    muon: matrices, and kernels seen as matrices, are optimised by Muon (at AdamW's scale), the rest by AdamW.
    skip_above: a step whose gradient norm is that many times the recent median is left out.
    accumulate: micro-batches of a step in each process; the global batch is batch x accumulate x processes.
    workers: threads that make batches ahead.  dtype: what autocast computes in; auto is bfloat16 on a GPU that has it,
    else float32.  compile: the pieces of transformers (`reverie.models.pieces`) or else the task's own heavy part;
    validation, samples and export run as written, or they would be compiled for shapes of their own.
    shard: with several processes, each keeps its part of the task's blocks: weights, gradients, optimizer and average.
    remat: activations of the blocks are worked out again instead of kept, where the model offers it.
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


def trainer_config(options: Any, folder: Path) -> TrainerConfig:
    """How to train, from a command's options: those of its fields that `TrainerConfig` has too."""
    names = {field.name for field in fields(TrainerConfig)} - {"folder"}
    return TrainerConfig(folder=folder, **{name: getattr(options, name) for name in names if hasattr(options, name)})


class Task(ABC):
    """What is trained.  Subclasses set `model`; the trainer sets `device` before anything else and the rest always.

    model: every trained weight; its state is what checkpoints hold.  progress: part of the budget used, 0..1.
    step_seed: the same for all micro-batches of a step, in all processes.  What decides which passes a loss makes, or
    which scalars it logs, must follow from it, and not from the micro-batch's generator: processes wait for each
    other's passes and scalars.
    """

    model: nn.Module
    device: torch.device = torch.device("cpu")
    progress: float = 0.0
    step_seed: int = 0

    @abstractmethod
    def batch(self, rng: np.random.Generator) -> Any:
        """A training batch on the CPU (tensors, or tuples, lists and dicts of them), a function of `rng` alone.

        Called ahead of time from another thread.
        """

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The scalar to minimise, and scalars to log.  `batch` is on the device; draw noise from `generator`."""

    def validate(self) -> dict[str, float]:
        """Figures on held-out data.  Called with the averaged weights, in eval mode, without gradients."""
        return {}

    def sample(self, folder: Path, step: int) -> None:  # noqa: B027  # optional
        """Write pictures to look at into `folder`.  Called after `validate`, in the same way."""

    def export(self, folder: Path, summary: dict[str, Any]) -> None:  # noqa: B027  # optional
        """Write the finished model into `folder`.  Called once at the end with the averaged weights."""

    def prefers_adamw(self, name: str) -> bool:
        """Whether a matrix of this name is left to AdamW although Muon is on (embeddings, first and last layers)."""
        return False

    def lr_factor(self, name: str) -> float:
        """What the learning rate is multiplied by for the parameter of this name."""
        return 1.0

    def compile(self) -> None:
        """Compile the heavy part, in place.  Asked for where the model has none of the known pieces."""
        self.model.compile()

    def blocks(self) -> list[nn.Module]:
        """The modules that `shard` splits, as `Shards` takes them.  None: the task cannot be sharded."""
        return []

    def remat(self) -> None:
        """Have activations worked out again.  Raises TrainError where no module of the model has a `remat` to set."""
        offers = [module for module in self.model.modules() if hasattr(module, "remat")]
        if not offers:
            raise TrainError("this model cannot work its activations out again; leave --remat out")
        for module in offers:
            module.remat = True  # type: ignore[assignment]

    def tokens(self, batch: Any) -> int:
        """Tokens that the model learns from in a batch, for the log; 0 where the word means nothing."""
        return 0

    def data_size(self) -> int:
        """How much data there is to draw from, in any unit; 0 for data that may change between resumes."""
        return 0


class Trainer:
    """Runs a task within its budget.  `run` trains (or goes on training) and returns the last validation figures."""

    def __init__(
        self, task: Task, config: TrainerConfig, on_checkpoint: Callable[[Progress], None] | None = None
    ) -> None:
        """on_checkpoint: called after each checkpoint of a single process with the averaged weights in the model."""
        self.task, self.config, self.on_checkpoint = task, config, on_checkpoint
        self.ranks = Ranks.from_environment()
        self.device = self.ranks.device(pick_device(config.device))
        self.dtype = pick_dtype(config.dtype, self.device)
        task.device = self.device
        task.model.to(self.device)
        if config.remat:
            task.remat()
        self.shards = self._shard() if config.shard and self.ranks.count > 1 else None
        self.optimizers = build_optimizers(task.model, config, task.prefers_adamw, task.lr_factor)
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.ema = [p.detach().clone() for p in self.parameters]
        self.progress = Progress()
        self.norms: deque[float] = deque(maxlen=NORMS_KEPT)
        self._checkpoints = Checkpoints(config.folder)
        self._stop = False
        self._skipped_in_a_row = 0
        self._has_counted = False
        self._flex = False

    def _shard(self) -> Shards:
        self.ranks.__enter__()  # `run` leaves it
        self.ranks.broadcast(self.task.model.state_dict().values())
        return Shards(self.task.model, self.task.blocks(), self.ranks, self.device)

    def run(self) -> dict[str, float]:
        """Train until the budget is used, then validate and export.  An interrupt saves and ends early.

        Raises TrainError if the folder is in use or of another model, the data has shrunk since the last checkpoint,
        the disk is full, or the loss is no longer a number.
        """
        config = self.config
        with self.ranks, FolderLock(config.folder, held=self.ranks.is_first), matrix_precision(self.device):
            self._resume()
            every = [*self.task.model.state_dict().values(), *self.ema]
            self.ranks.broadcast(tensor for tensor in every if not isinstance(tensor, DTensor))
            peak = self._peak()
            with Report(config, self.progress.step, self.ranks.is_first, peak) as report, self._stop_on_signal():
                if config.compile:
                    self._compile()
                if config.validate_first and self.progress.step == 0:
                    self._validate(report)
                report.prepared(take_preparation_s())
                self._train(report)
                if self._stop:
                    self._save()
                    raise TrainError(f"stopped at step {self.progress.step}; run the same command to go on")
                metrics = self._validate(report)
                self._save()
                with self.averaged_weights():
                    if self.ranks.is_first:
                        self.task.export(config.folder, self._summary(metrics))
                self.ranks.barrier()
                return metrics

    def _compile(self) -> None:
        """Pieces whose shapes never change, so that each is compiled once for all blocks of its kind."""
        check_compiler(self.device)
        self._flex = flex_works(self.device)
        if compile_pieces(self.task.model, pieces=TRAINING_PIECES) == 0:
            self.task.compile()

    @contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """As the code is written: FlexAttention too would run uncompiled, and keep all products."""
        with torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext(), flex(False):
            yield

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with its averaged weights, in eval mode and without gradients.

        All processes enter it.  Of a sharded training only the first has the weights then, whole.
        """
        averages: dict[Tensor, Tensor] = dict(zip(self.parameters, self.ema, strict=True))
        self._swap()
        self.task.model.eval()
        try:
            gathered = self.shards.gathered(averages) if self.shards else nullcontext()
            with torch.no_grad(), gathered, self._uncompiled():
                yield
        finally:
            self.task.model.train()
            self._swap()

    def _train(self, report: Report) -> None:
        config = self.config
        started = time.monotonic() - self.progress.elapsed_s
        last_save = last_validation = time.monotonic()
        self.task.model.train()
        batches = _Batches(self.task, config, self.progress.step, self.ranks, self.device)
        with batches, flex(self._flex):
            while self._agree(started) < 1 and not self._stop:
                begun = time.monotonic()
                scalars, tokens = self._step(batches)
                flops = config.accumulate * self.progress.micro_flops
                report.step(self.progress, self.task.progress, scalars, Work(tokens, flops, time.monotonic() - begun))
                now = time.monotonic()
                minutes = self.ranks.same((now - last_save) / 60, (now - last_validation) / 60)
                if minutes[0] >= config.checkpoint_minutes:
                    self._save()
                    if self.on_checkpoint is not None and self.ranks.count == 1:
                        with self.averaged_weights():
                            self.on_checkpoint(self.progress)
                    last_save = time.monotonic()
                if minutes[1] >= config.validate_minutes:
                    self._validate(report)
                    last_validation = time.monotonic()
        self.progress.elapsed_s = time.monotonic() - started

    def _agree(self, started: float) -> float:
        """The part of the budget used, the same in every process; also whether to stop."""
        config = self.config
        elapsed_s, stop = self.ranks.same(time.monotonic() - started, float(self._stop))
        self.progress.elapsed_s, self._stop = elapsed_s, bool(stop)
        if config.steps is not None:
            self.task.progress = self.progress.step / config.steps
        else:
            self.task.progress = elapsed_s / 60 / (config.minutes or 1)
        return self.task.progress

    def _step(self, batches: _Batches) -> tuple[dict[str, float], float]:
        """Take a step.  Returns its scalars, and its tokens, all of them averaged or added over the processes."""
        config, step = self.config, self.progress.step
        totals: dict[str, Tensor] = {}
        tokens = 0
        self.task.step_seed = _seed(config.seed, step, 2)
        for micro in range(config.accumulate):
            batch = batches.next()
            tokens += self.task.tokens(batch)
            generator = self._seed(step, micro)
            with self._counted():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                    loss, scalars = self.task.loss(batch, generator)
                (loss / config.accumulate).backward()
            for name, value in {"loss": loss, **scalars}.items():
                value = torch.as_tensor(value, dtype=torch.float32, device=self.device).detach()
                totals[name] = totals.get(name, 0) + value / config.accumulate
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.ranks.average([*(g for g in gradients if not isinstance(g, DTensor)), *totals.values()])
        norm_tensor = self._norm(gradients)
        names = list(totals)
        *values, norm = torch.stack([*(totals[name] for name in names), norm_tensor.float()]).tolist()
        figures = dict(zip(names, values, strict=True))
        if not math.isfinite(figures["loss"]):
            raise TrainError(
                f"the loss became {figures['loss']} at step {step}; the last good checkpoint is "
                f"{self._checkpoints.latest() or 'none'}: lower --lr, or raise the warm-up, and run again"
            )
        lr = config.lr * lr_scale(step, self.task.progress, config)
        if self._is_usable(norm):
            self._clip(gradients, norm_tensor)
            self._update(lr)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        figures |= {"grad_norm": norm, "lr": lr, "skipped": float(self.progress.skipped)}
        return figures, float(tokens * self.ranks.count)

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """Of all gradients together, whole and sharded."""
        if self.shards is None:
            return torch.nn.utils.get_total_norm(gradients)
        parts = [local(g) for g in gradients if isinstance(g, DTensor)]
        whole = [g for g in gradients if not isinstance(g, DTensor)]
        split, rest = (torch.nn.utils.get_total_norm(x).to(self.device, torch.float32) for x in (parts, whole))
        return (self.ranks.sum(split.square()) + rest.square()).sqrt()

    def _clip(self, gradients: list[Tensor], norm: Tensor) -> None:
        if self.shards is None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip, norm)
            return
        scale = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([local(g) for g in gradients], scale)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Once in a training: count what the first micro-batch costs."""
        if self._has_counted or self.progress.micro_flops > 0:
            yield
            return
        self._has_counted = True
        with self._uncompiled(), FlopCount() as count:
            yield
        if math.isfinite(count.flops):
            self.progress.micro_flops = count.flops

    def _peak(self) -> float:
        """Operations a second that the device could make in the training's number type; nan where nobody asks."""
        if not self.ranks.is_first:
            return math.nan
        return peak_flops(self.device, self.dtype)

    def _is_usable(self, norm: float) -> bool:
        """Whether to take a step with this gradient norm; counts those left out.  Raises TrainError after too many."""
        median = statistics.median(self.norms) if len(self.norms) >= 20 else math.inf
        if math.isfinite(norm):
            self.norms.append(norm)
            if norm <= self.config.skip_above * median:
                self._skipped_in_a_row = 0
                return True
        self.progress.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise TrainError(
                f"{self._skipped_in_a_row} steps in a row up to {self.progress.step} had a huge or infinite gradient "
                f"(now {norm:.3g}, median {median:.3g}); last checkpoint {self._checkpoints.latest()}: lower --lr"
            )
        return False

    def _update(self, lr: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_factor"]
            optimizer.step()
        keep = min(self.config.ema, (1 + self.progress.step) / (10 + self.progress.step))
        averages, current = [local(x) for x in self.ema], [local(p.detach()) for p in self.parameters]
        torch._foreach_lerp_(averages, current, 1 - keep)  # pyright: ignore[reportPrivateImportUsage]

    def _seed(self, step: int, micro: int) -> torch.Generator:
        seed = _seed(self.config.seed, step, self.ranks.index(micro), 0, 1)
        torch.manual_seed(seed)
        return torch.Generator(self.device).manual_seed(seed)

    def _swap(self) -> None:
        """Trade places with the averages, but for sharded weights, which FSDP2 knows by their memory."""
        for parameter, average in zip(self.parameters, self.ema, strict=True):
            if not isinstance(parameter, DTensor):
                parameter.data, average.data = average.data, parameter.data

    def _validate(self, report: Report) -> dict[str, float]:
        metrics: dict[str, float] = {}
        with self.averaged_weights():
            if self.ranks.is_first:
                folder = self.config.folder / SAMPLES
                folder.mkdir(parents=True, exist_ok=True)
                metrics = self.task.validate()
                self.task.sample(folder, self.progress.step)
        report.validation(self.progress, metrics)
        report.samples(self.progress)
        self.ranks.barrier()
        return metrics

    def _resume(self) -> None:
        latest = self._checkpoints.latest()
        if latest is None:
            return
        if not self.config.resume:
            raise TrainError(
                f"{self.config.folder} holds a training already ({latest.name}); resume it or give another folder"
            )
        self.progress, norms = self._checkpoints.load(latest, self.task.model, self.ema, self.optimizers)
        self.norms.extend(norms)
        size = self.task.data_size()
        if size < self.progress.data_size:
            raise TrainError(
                f"the data has shrunk to {size} since {latest.name}, which was trained on {self.progress.data_size}; "
                f"bring the rest back, or train anew in another folder"
            )

    def _save(self) -> None:
        self.progress.data_size = self.task.data_size()
        failure: TrainError | None = None
        if self.ranks.is_first or self.shards:
            try:
                self._checkpoints.save(self.progress, list(self.norms), self.task.model, self.ema, self.optimizers)
            except TrainError as error:
                failure = error
        (failed,) = self.ranks.same(float(failure is not None))
        if failure or failed:
            raise failure or TrainError("the first process could not write the checkpoint; it says why")

    def _summary(self, metrics: dict[str, float]) -> dict[str, Any]:
        """What a model card says of the training."""
        return {
            "steps": self.progress.step,
            "minutes": round(self.progress.elapsed_s / 60, 1),
            "parameters": sum(p.numel() for p in self.parameters),
            "device": self.device.type,
            "processes": self.ranks.count,
            "seed": self.config.seed,
            "metrics": {name: round(value, 4) for name, value in metrics.items()},
        }

    @contextmanager
    def _stop_on_signal(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the training after the step in hand (only where this is the main thread)."""

        def stop(*_: object) -> None:
            self._stop = True

        try:
            before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Batches:
    """Batches on the device, in order, made ahead in threads; each from its own random stream, so that order and
    resumes agree.  For a GPU they go through pinned memory, begun one batch ahead on a stream of their own: a step
    never waits for a copy."""

    def __init__(self, task: Task, config: TrainerConfig, step: int, ranks: Ranks, device: torch.device) -> None:
        self._task, self._config, self._ranks, self._device = task, config, ranks, device
        self._index = step * config.accumulate
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="batch")
        self._ahead: deque[Future[Any]] = deque()
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._moving: deque[tuple[Any, Any]] = deque()

    def __enter__(self) -> _Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> Any:
        if self._copies is None:
            return move(self._made(), self._device)
        while len(self._moving) < 2:
            self._moving.append(self._begin_move(self._made()))
        batch, done = self._moving.popleft()
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(done)
        for tensor in tensors_of(batch):
            tensor.record_stream(stream)
        return batch

    def _begin_move(self, batch: Any) -> tuple[Any, Any]:
        with torch.cuda.stream(self._copies):
            moved, done = move(batch, self._device), torch.cuda.Event()
            done.record(self._copies)
        return moved, done

    def _made(self) -> Any:
        while len(self._ahead) < 2 * self._config.workers:
            step, micro = divmod(self._index, self._config.accumulate)
            rng = np.random.default_rng((self._config.seed, step, self._ranks.index(micro), 0))
            self._ahead.append(self._pool.submit(self._make, rng))
            self._index += 1
        return self._ahead.popleft().result()

    def _make(self, rng: np.random.Generator) -> Any:
        batch = self._task.batch(rng)
        return batch if self._copies is None else pinned(batch)


def _seed(*parts: int) -> int:
    """A number of 32 bits that depends on all of `parts`."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def lr_scale(step: int, progress: float, config: TrainerConfig) -> float:
    """The trapezoid: warm-up by steps, then hold, then down to zero over the last `decay` of the budget."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fall = (1 - progress) / config.decay if config.decay > 0 else 1.0
    return max(0.0, min(rise, fall, 1.0))


def move(batch: Any, device: torch.device) -> Any:
    """The tensors of `batch`, in tuples, lists, dicts and dataclasses, on `device`; anything else as it is."""
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True))


def pinned(batch: Any) -> Any:
    """The tensors of `batch` in memory that a GPU copies from by itself."""
    return _each(batch, lambda tensor: tensor if tensor.device.type != "cpu" else tensor.pin_memory())


def tensors_of(batch: Any) -> list[Tensor]:
    """In order."""
    found: list[Tensor] = []
    _each(batch, lambda tensor: found.append(tensor) or tensor)
    return found


def _each(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: _each(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_each(value, change) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_each(value, change) for value in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: _each(getattr(batch, f.name), change) for f in fields(batch) if f.init})
    return batch


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """What autocast computes in; `auto` is bfloat16 on a GPU that has it, else float32.  Raises DeviceError for another
    name."""
    if name == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bf16 else torch.float32
    if name not in ("float32", "bfloat16"):
        raise DeviceError(f"cannot train in {name!r}; expected auto, float32 or bfloat16")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@contextmanager
def matrix_precision(device: torch.device) -> Iterator[None]:
    """While it lasts, float32 matrix products on a GPU use its TF32 units: ten times the rate, and three digits, which
    training does not miss.  Elsewhere nothing changes."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one.  Raises DeviceError for a device that this machine does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; expected auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("cuda was asked for but this machine has no usable NVIDIA GPU; use --device cpu")
    return device


def use_malloc_hints(device: str) -> None:
    """On a Linux CPU, start this command again with `MALLOC_HINTS` unless memory settings were chosen already.

    The hints are read by glibc at start-up only.  Call it first thing in a training command.
    """
    chosen = any(name in os.environ for name in MALLOC_HINTS)
    if chosen or not sys.platform.startswith("linux") or pick_device(device).type != "cpu":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC_HINTS)
