"""Speed of a training step on this machine, and where its time goes.

steps_per_s     trained latent steps a second: steps of the clips of a batch, each once, over the median time of a step.
cpu_s           processor time of a step, all threads: means more than the clock where others share the cores.
gflops          arithmetic of a step, forward and backward, attention as masked.
matrix_gflops   what the machine reaches in a large matrix product of that number type, measured beside the steps.
mfu             the share of that rate: gflops a second over matrix_gflops.
kinds           the share of every kind of operation.
baseline        the same figures of an older commit, whose steps are taken in turn with these, in the same minutes.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from reverie.bench import profiling
from reverie.errors import TrainError
from reverie.train.device import pick_device, pick_dtype
from reverie.train.throughput import peak_flops

COMMIT = "87319bd"
"""Baseline commit: the last one before training was optimised for the machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchTrainConfig:
    """Measure a training step, on latents made up for it.

    Examples: reverie bench train --baseline; reverie bench train --dtype bfloat16 --compile --batch 64
    """

    size: Literal["tiny", "nano", "wide"] = "nano"
    """The network's size, of `reverie.bench.train_step_worker.SIZES`."""
    batch: int = 4
    """Clips of a batch."""
    clip_steps: int = 8
    """Latent steps of a clip."""
    copies: int = 2
    """Noisy copies of a clip that share one clean copy."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of autocast."""
    compile: bool = False
    """Compile the pieces of the transformer."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is a GPU where there is one."""
    steps: int = 8
    """Steps to time, after the first ones."""
    baseline: bool = False
    """Take the steps in turn with those of an older commit (this must be run from a clone with its history)."""
    commit: str = COMMIT
    """Baseline commit."""
    baseline_dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of autocast at the baseline commit, whose default was float32."""
    json: bool = False
    """Print one line of JSON instead of the table."""

    def __post_init__(self) -> None:
        if min(self.batch, self.copies, self.steps) < 1 or self.clip_steps < 2:
            raise TrainError(
                "batch, copies and steps are at least 1 and clip_steps at least 2, "
                f"got {self.batch}, {self.copies}, {self.steps}, {self.clip_steps}"
            )


@dataclass(frozen=True, slots=True)
class StepFigures:
    """Measurements of one training; the module's docstring explains each."""

    name: str
    dtype: str
    compiled: bool
    steps_per_s: float
    wall_s: float
    cpu_s: float
    gflops: float
    matrix_gflops: float
    mfu: float
    warm_up_s: float
    kinds: dict[str, float]


@dataclass(frozen=True, slots=True)
class StepReport:
    """times: steps_per_s over the baseline's; cpu_times: its processor time over ours."""

    size: str
    batch: int
    clip_steps: int
    copies: int
    threads: int
    torch: str
    now: StepFigures
    baseline: StepFigures | None
    times: float | None
    cpu_times: float | None


def bench_step(config: BenchTrainConfig) -> StepReport:
    """Start a process for this code, and one for the baseline if it is asked for, and take steps in turn.

    Raises TrainError where the baseline cannot be had, or a process fails.
    """
    device = pick_device(config.device)
    dtype = str(pick_dtype(config.dtype, device)).removeprefix("torch.")
    shape = {name: getattr(config, name) for name in ("size", "batch", "clip_steps", "copies")}
    common = shape | {"device": device.type, "warm_up": 3 if config.compile else 2, "profiling": profiling.__file__}
    with ExitStack() as stack:
        source = Path(__file__).parents[2]
        workers = [
            stack.enter_context(_Worker("this code", source, common | {"dtype": dtype, "compile": config.compile}))
        ]
        if config.baseline:
            old = stack.enter_context(tempfile.TemporaryDirectory())
            _extract(config.commit, source, Path(old))
            options = common | {"dtype": config.baseline_dtype, "warm_up": 2}
            workers.append(stack.enter_context(_Worker(config.commit, Path(old) / "src", options)))
        ready = [worker.heard() for worker in workers]
        times: list[list[dict[str, float]]] = [[] for _ in workers]
        peaks: list[list[float]] = [[] for _ in workers]
        for _ in range(config.steps):
            for worker, taken, peak in zip(workers, times, peaks, strict=True):
                taken.append(worker.ask("step"))
                peak.append(peak_flops(device, getattr(torch, worker.options["dtype"])))
        kinds = [worker.ask("profile")["kinds"] for worker in workers]
    trained = config.batch * (config.clip_steps - 1)
    figures = [_figures(*parts, trained) for parts in zip(workers, ready, times, peaks, kinds, strict=True)]
    now, before = figures[0], figures[1] if config.baseline else None
    return StepReport(
        **shape,
        threads=int(ready[0]["threads"]),
        torch=torch.__version__,
        now=now,
        baseline=before,
        times=round(now.steps_per_s / before.steps_per_s, 2) if before else None,
        cpu_times=round(before.cpu_s / now.cpu_s, 2) if before else None,
    )


def _figures(
    worker: _Worker,
    ready: dict[str, Any],
    times: list[dict[str, float]],
    peaks: list[float],
    kinds: list[list[Any]],
    trained: int,
) -> StepFigures:
    wall_s = statistics.median(step["wall_s"] for step in times)
    cpu_s = statistics.median(step["cpu_s"] for step in times)
    peak = statistics.median(peaks) / 1e9
    return StepFigures(
        name=worker.name,
        dtype=worker.options["dtype"],
        compiled=worker.options.get("compile", False),
        steps_per_s=round(trained / wall_s, 3),
        wall_s=round(wall_s, 4),
        cpu_s=round(cpu_s, 4),
        gflops=round(ready["gflops"], 1),
        matrix_gflops=round(peak, 1),
        mfu=round(ready["gflops"] / wall_s / peak, 4),
        warm_up_s=round(ready["warm_up_s"], 1),
        kinds={kind: part for kind, _, part, _ in kinds},
    )


class _Worker:
    """`reverie.bench.train_step_worker` in a process of its own, on the source in `source`."""

    def __init__(self, name: str, source: Path, options: dict[str, Any]) -> None:
        self.name, self.options = name, options
        script = Path(__file__).with_name("train_step_worker.py")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed when this is
        self._process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"},
            text=True,
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # of one that has ended already
                    pipe.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: `heard` says why
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise TrainError(f"the training of {self.name} ended: {said[-1] if said else 'without a word'}")


def _extract(commit: str, source: Path, folder: Path) -> None:
    """The source of an older commit.  Raises TrainError where it is not to be had."""
    try:
        words = ["git", "-C", str(source.parent), "archive", commit, "src"]
        done = subprocess.run(words, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise TrainError(
            f"the source of {commit} is not there ({said.decode().strip().splitlines()[0]}); run this from a clone "
            "with its history, or leave --baseline out"
        ) from error
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
