"""The one training loop: the tokenizer's, the world model's and distillation's.

A `Task` defines the training (a module, batches, a loss, images to look at); the `Trainer` does the rest: schedule,
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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.tensor import DTensor

from reverie.errors import TrainError
from reverie.models.compiled_blocks import TRAINING_PIECES, check_compiler, compile_pieces
from reverie.nn.attention import flex, flex_works
from reverie.train.average import Average
from reverie.train.batches import Batches
from reverie.train.budget import take_preparation_s
from reverie.train.checkpoints import Checkpoints, FolderLock, Progress
from reverie.train.config import TrainerConfig
from reverie.train.device import matrix_precision, pick_device, pick_dtype
from reverie.train.display import SILENT, Display
from reverie.train.guards import GradientGuard, StopRequest, check_loss, clip_gradients, device_failures, gradient_norm
from reverie.train.optimizers import build_optimizers
from reverie.train.parallel import Ranks, Shards
from reverie.train.report import SAMPLES, Report
from reverie.train.task import Task
from reverie.train.throughput import FlopCount, Work, peak_flops


class Trainer:
    """Runs a task within its budget.  `run` trains (or goes on training) and returns the last validation figures."""

    def __init__(
        self,
        task: Task,
        config: TrainerConfig,
        on_checkpoint: Callable[[Progress], None] | None = None,
        display: Display = SILENT,
    ) -> None:
        """on_checkpoint: called after each checkpoint, once the model so far is exported."""
        self.task, self.config, self.on_checkpoint, self.display = task, config, on_checkpoint, display
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
        self.average = Average(self.parameters, config.ema, self.shards)
        self.progress = Progress()
        self._guard, self._stop = GradientGuard(config.skip_above), StopRequest()
        self._checkpoints = Checkpoints(config.folder)
        self._has_counted = False
        self._flex = False

    def _shard(self) -> Shards:
        self.ranks.__enter__()  # `run` leaves it
        self.ranks.broadcast(self.task.model.state_dict().values())
        return Shards(self.task.model, self.task.blocks(), self.ranks, self.device)

    def run(self) -> dict[str, float]:
        """Train until the budget is used, then validate and export.  An interrupt saves and ends early.

        Raises TrainError if the folder is in use or of another model, the data has shrunk since the last checkpoint,
        the disk is full, a GPU fails, or the loss is no longer a number.
        """
        config = self.config
        with (
            self.ranks,
            FolderLock(config.folder, held=self.ranks.is_first),
            matrix_precision(self.device),
            device_failures("in training", f"checkpoints are kept in {config.folder}"),
        ):
            self._resume()
            every = [*self.task.model.state_dict().values(), *self.average.tensors]
            self.ranks.broadcast(tensor for tensor in every if not isinstance(tensor, DTensor))
            peak = self._peak()
            with (
                Report(config, self.progress.step, self.display, self.ranks.is_first, peak) as report,
                self._stop.on_signal(),
            ):
                if config.compile:
                    self._compile()
                if config.validate_first and self.progress.step == 0:
                    self._validate(report)
                report.prepared(take_preparation_s())
                self._train(report)
                if self._stop.asked:
                    self._save()
                    raise TrainError(f"stopped at step {self.progress.step}; run the same command to go on")
                metrics = self._validate(report)
                self._save()
                self._export(metrics)
                return metrics

    def _compile(self) -> None:
        """Pieces whose shapes never change, so that each is compiled once for all blocks of its kind."""
        check_compiler(self.device)
        self._flex = flex_works(self.device)
        if compile_pieces(*self.task.networks(), pieces=TRAINING_PIECES) == 0:
            self.task.compile()

    @contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """Runs the code as written: FlexAttention too would run uncompiled, and keep all products."""
        with torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext(), flex(False):
            yield

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with its averaged weights, in eval mode and without gradients.

        All processes enter it.  Of a sharded training only the first has the weights then, whole.
        """
        self.task.model.eval()
        try:
            with self.average.applied(), torch.no_grad(), self._uncompiled():
                yield
        finally:
            self.task.model.train()

    def _train(self, report: Report) -> None:
        config = self.config
        started = time.monotonic() - self.progress.elapsed_s
        last_save = last_validation = time.monotonic()
        self.task.model.train()
        batches = Batches(self.task, config, self.progress.step, self.ranks, self.device)
        with batches, flex(self._flex):
            while self._agree(started) < 1 and not self._stop.asked:
                begun = time.monotonic()
                scalars, tokens = self._step(batches)
                flops = config.accumulate * self.progress.micro_flops
                report.step(self.progress, self.task.progress, scalars, Work(tokens, flops, time.monotonic() - begun))
                now = time.monotonic()
                minutes = self.ranks.same((now - last_save) / 60, (now - last_validation) / 60)
                if minutes[0] >= config.checkpoint_minutes:
                    self._save()
                    self._export(None)
                    if self.on_checkpoint is not None and self.ranks.is_first:
                        self.on_checkpoint(self.progress)
                    last_save = time.monotonic()
                if minutes[1] >= config.validate_minutes:
                    self._validate(report)
                    last_validation = time.monotonic()
        self.progress.elapsed_s = time.monotonic() - started

    def _agree(self, started: float) -> float:
        """The part of the budget used, the same in every process; also whether to stop."""
        config = self.config
        elapsed_s, stop = self.ranks.same(time.monotonic() - started, float(self._stop.asked))
        self.progress.elapsed_s, self._stop.asked = elapsed_s, bool(stop)
        if config.steps is not None:
            self.task.progress = self.progress.step / config.steps
        else:
            self.task.progress = elapsed_s / 60 / (config.minutes or 1)
        return self.task.progress

    def _step(self, batches: Batches) -> tuple[dict[str, float], float]:
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
        norm_tensor = gradient_norm(gradients, self.ranks, self.device)
        names = list(totals)
        *values, norm = torch.stack([*(totals[name] for name in names), norm_tensor.float()]).tolist()
        figures = dict(zip(names, values, strict=True))
        check_loss(figures["loss"], step, self._checkpoints.latest)
        lr = config.lr * lr_scale(step, self.task.progress, config)
        if self._guard.accepts(norm, self.progress, self._checkpoints.latest):
            clip_gradients(self.parameters, norm_tensor, config.clip)
            self._update(lr)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        figures |= {"grad_norm": norm, "lr": lr, "skipped": float(self.progress.skipped)}
        return figures, float(tokens * self.ranks.count)

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
        """Operations a second that the device could make in the training's number type; nan if no report needs it."""
        if not self.ranks.is_first:
            return math.nan
        return peak_flops(self.device, self.dtype)

    def _update(self, lr: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_factor"]
            optimizer.step()
        self.average.update(self.progress.step)

    def _seed(self, step: int, micro: int) -> torch.Generator:
        seed = _seed(self.config.seed, step, self.ranks.index(micro), 0, 1)
        torch.manual_seed(seed)
        return torch.Generator(self.device).manual_seed(seed)

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
        self.progress, norms = self._checkpoints.load(latest, self.task.model, self.average.tensors, self.optimizers)
        self._guard.norms.extend(norms)
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
                norms, averages = list(self._guard.norms), self.average.tensors
                self._checkpoints.save(self.progress, norms, self.task.model, averages, self.optimizers)
            except TrainError as error:
                failure = error
        (failed,) = self.ranks.same(float(failure is not None))
        if failure or failed:
            raise failure or TrainError("the first process could not write the checkpoint; it says why")

    def _export(self, metrics: dict[str, float] | None) -> None:
        """Has the first process write the model: the finished one, or without figures what there is so far."""
        folder = self.config.folder
        with self.averaged_weights():
            if self.ranks.is_first:
                write = self.task.export_so_far if metrics is None else self.task.export
                try:
                    write(folder, self._summary(metrics or {}))
                except (OSError, SafetensorError) as error:
                    reason = (str(error) or type(error).__name__).splitlines()[0]
                    raise TrainError(
                        f"cannot write the model to {folder} ({reason}); its checkpoint is kept: free some space and "
                        "run the same command to go on"
                    ) from error
        self.ranks.barrier()

    def _summary(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Summary of the training for a model card."""
        return {
            "steps": self.progress.step,
            "minutes": round(self.progress.elapsed_s / 60, 1),
            "parameters": sum(p.numel() for p in self.parameters),
            "device": self.device.type,
            "processes": self.ranks.count,
            "seed": self.config.seed,
            "metrics": {name: round(value, 4) for name, value in metrics.items()},
        }


def _seed(*parts: int) -> int:
    """A number of 32 bits that depends on all of `parts`."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def lr_scale(step: int, progress: float, config: TrainerConfig) -> float:
    """The trapezoid: warm-up by steps, then hold, then down to zero over the last `decay` of the budget."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fall = (1 - progress) / config.decay if config.decay > 0 else 1.0
    return max(0.0, min(rise, fall, 1.0))
