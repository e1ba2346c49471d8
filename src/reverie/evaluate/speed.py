"""Speed of the model on this machine: measured here in a short run, or read from `reverie bench --json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from reverie.bench.latency import latency_ms
from reverie.errors import DataError
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.rollout import Dream, next_frames
from reverie.evaluate.store import Record
from reverie.evaluate.tables import DREAM, Column, Metrics, Table
from reverie.hardware import cpu_name
from reverie.types import FPS, Action

WARM_BLOCKS = 12
COLUMNS = (
    Column("frames_per_s", "frames per second", "{:.1f}", "high"),
    Column("latency_p50_ms", "input to frame, median ms", "{:.0f}", "low"),
    Column("latency_p95_ms", "input to frame, 95% ms", "{:.0f}", "low"),
    Column("block_p50_ms", "block, median ms", "{:.0f}", "low"),
    Column("block_p95_ms", "block, 95% ms", "{:.0f}", "low"),
    Column("cpu_ms_per_frame", "processor ms per frame", "{:.0f}", "low"),
)


@dataclass(frozen=True, slots=True)
class SpeedResult(Record):
    """Metrics of COLUMNS.  how: they were measured, as text."""

    metrics: Metrics
    machine: str
    how: str


def measure(
    experiment: Experiment,
    open_session: Callable[[], Dream],
    actions: Sequence[Action],
    seconds: float,
    bench: Path | None,
) -> Table:
    """The table of the model's speed: measured in a session, or read from a bench's output."""
    if bench is not None:
        return speed_table(read_bench(bench, experiment.model.fingerprint))
    return speed_table(experiment.get("speed", SpeedResult, lambda tick: run_speed(open_session(), actions, seconds)))


def run_speed(dream: Dream, actions: Sequence[Action], seconds: float) -> SpeedResult:
    """Plays block after block for `seconds`, under actions over and over, then closes the session.

    Latency is that of `reverie.bench.command`: the wait for the next block, then the block.
    """
    size, script = dream.block_frames, cycle(actions)
    costs_ms: list[float] = []
    deadline, cpu = float("inf"), 0.0
    try:
        for block in count():
            if block == WARM_BLOCKS:
                deadline, cpu = time.perf_counter() + seconds, time.process_time()
            began = time.perf_counter()
            dream.step(list(islice(script, next_frames(dream))))
            costs_ms.append((time.perf_counter() - began) * 1000)
            if time.perf_counter() >= deadline:
                break
    finally:
        dream.close()
    timed = np.array(costs_ms[WARM_BLOCKS:])
    frames = len(timed) * size
    p50, p95 = latency_ms(timed, size)
    metrics = {
        "frames_per_s": frames * 1000 / float(timed.sum()),
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "block_p50_ms": float(np.percentile(timed, 50)),
        "block_p95_ms": float(np.percentile(timed, 95)),
        "cpu_ms_per_frame": (time.process_time() - cpu) * 1000 / frames,
    }
    return SpeedResult(metrics, cpu_name(), f"{frames} frames in {timed.sum() / 1000:.1f} s")


def read_bench(path: Path, fingerprint: str) -> SpeedResult:
    """Reads the output of `reverie bench MODEL --json`.  Raises DataError for another file or another model."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text().strip().splitlines()[-1])
        metrics = {column.key: float(raw[column.key]) for column in COLUMNS if column.key in raw}
        model = str(raw["model"])
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not the output of `reverie bench --json` ({type(error).__name__}); make it anew, or leave "
            "--bench out"
        ) from None
    if model.split("/")[:2] != fingerprint.split("/")[:2]:
        raise DataError(f"{path} is of {model}, the model is {fingerprint}; run `reverie bench` with this model")
    return SpeedResult(metrics, str(raw.get("machine", "")), "from reverie bench")


def speed_table(result: SpeedResult) -> Table:
    note = f"{result.how} on {result.machine}. To keep up takes {FPS} frames a second."
    return Table("Speed", COLUMNS, note, {DREAM: result.metrics, "real time": {"frames_per_s": float(FPS)}})
