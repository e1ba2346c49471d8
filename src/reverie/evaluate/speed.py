"""Speed of the model on this machine: measured here in a short run, or read from `reverie bench --json`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.errors import DataError
from reverie.evaluate.rollout import Dream
from reverie.evaluate.store import Unit
from reverie.evaluate.subject import Subject
from reverie.evaluate.tables import DREAM, Column, Table
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


def run_speed(dream: Dream, actions: Sequence[Action], seconds: float) -> Unit:
    """Plays block after block for `seconds`, under actions over and over, then closes the session.

    Latency is that of `reverie.bench.command`: the wait for the next block, then the block.  facts: the figures of
    COLUMNS, and the machine.
    """
    from reverie.bench.latency import latency_ms
    from reverie.engine.loading.device import cpu_name

    size = dream.block_frames
    sent = 0
    costs_ms: list[float] = []
    deadline, cpu = float("inf"), 0.0
    try:
        for block in range(10**9):
            if block == WARM_BLOCKS:
                deadline, cpu = time.perf_counter() + seconds, time.process_time()
            began = time.perf_counter()
            num_frames = getattr(dream, "next_frames", size)
            dream.step([actions[(sent + i) % len(actions)] for i in range(num_frames)])
            sent += num_frames
            costs_ms.append((time.perf_counter() - began) * 1000)
            if time.perf_counter() >= deadline:
                break
    finally:
        dream.close()
    timed = np.array(costs_ms[WARM_BLOCKS:])
    frames = len(timed) * size
    p50, p95 = latency_ms(timed, size)
    figures = {
        "frames_per_s": frames * 1000 / float(timed.sum()),
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "block_p50_ms": float(np.percentile(timed, 50)),
        "block_p95_ms": float(np.percentile(timed, 95)),
        "cpu_ms_per_frame": (time.process_time() - cpu) * 1000 / frames,
    }
    return Unit({"figures": figures, "machine": cpu_name(), "how": f"{frames} frames in {timed.sum() / 1000:.1f} s"})


def read_bench(path: Path, subject: Subject) -> Unit:
    """Reads the output of `reverie bench MODEL --json`.  Raises DataError for another file or another model."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text().strip().splitlines()[-1])
        figures = {column.key: float(raw[column.key]) for column in COLUMNS if column.key in raw}
        model = str(raw["model"])
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not the output of `reverie bench --json` ({type(error).__name__}); make it anew, or leave "
            "--bench out"
        ) from None
    if model.split("/")[:2] != subject.fingerprint.split("/")[:2]:
        raise DataError(
            f"{path} is of {model}, the model is {subject.fingerprint}; run `reverie bench` with this model"
        )
    return Unit({"figures": figures, "machine": str(raw.get("machine", "")), "how": "from reverie bench"})


def speed_table(unit: Unit) -> Table:
    note = f"{unit.facts['how']} on {unit.facts['machine']}. To keep up takes {FPS} frames a second."
    table = Table("speed", "Speed", COLUMNS, note)
    table.rows[DREAM] = dict(unit.facts["figures"])
    table.rows["real time"] = {"frames_per_s": float(FPS)}
    return table
