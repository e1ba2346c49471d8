"""Speed, latency and memory of a model on this machine.

What the figures mean:

frames_per_s      frames made by one session, one block after another as fast as it goes, decoding and the copy to uint8
                  included, over the whole run.
latency_*_ms      input-to-frame latency as played at 25 frames a second.  An input may come at any moment; it waits for
                  the next block boundary, where the action is sampled, then for the block to be made.  So each
                  measured block cost is combined with waits spread evenly over one block's time on the screen (160 ms
                  for 4 frames; the block's cost, where that is longer), and the percentiles are of all the sums.  The
                  network and the screen are not in it: the page reads those out itself.
dit_pass_ms       median of one pass of the transformer over one block, with a full window behind it.
decode_block_ms   median of decoding one block to pixels.
peak_memory_mib   the most memory that the process had: resident on a CPU, allocated by torch on a GPU.
early, late       median cost of the blocks around frame 300 and frame 3,000 (or the end of a run that ends before).
growth_mib        memory at the end less memory once the window was full.
baselines         frames_per_s over 25 (real time), and over a short run beside it: in the other number type, or of
                  compiled code the same uncompiled.
graphs, ...       as in `reverie.bench.blocks`.
"""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch

from reverie.engine.accelerate.cuda_graphs import CountedCapture
from reverie.engine.engine import Engine, load
from reverie.engine.loading.load_options import LoadOptions
from reverie.engine.sessions.script import parse
from reverie.engine.sessions.session import Session
from reverie.hardware import cpu_name, rss_mib, synchronize
from reverie.models.compiled_blocks import num_compiled
from reverie.models.conditioning.next_condition import next_condition
from reverie.types import FPS, Action

WALK = "forward 2s; forward yaw+3 1s; yaw-4 1s; forward left 1s; back pitch+1 0.4s; idle 0.6s"
WAIT_STEPS = 32
"""Into how many waits a block's time is split for the latency."""
NEAR_BLOCKS = 25
"""Blocks on either side of frame 300 and frame 3,000 that count for its cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReport:
    """The figures; the module's docstring defines each."""

    frames_per_s: float
    latency_p50_ms: float
    latency_p95_ms: float
    dit_pass_ms: float
    decode_block_ms: float
    peak_memory_mib: float
    machine: str
    model: str
    block_p50_ms: float
    block_p95_ms: float
    frames: int
    early_frame: int
    early_block_ms: float
    late_frame: int
    late_block_ms: float
    late_over_early: float
    growth_mib: float
    session_mib: float
    load_s: float
    times_real_time: float
    baseline: str
    baseline_frames_per_s: float
    times_baseline: float
    mode: str
    graphs: dict[str, int]
    graphs_refused: str | None
    compiled_graphs: int
    compiled_in_play: int


def bench(options: LoadOptions, seconds: float, tell: Callable[[str], None] = lambda text: None) -> BenchReport:
    """Loads a model and measures it for `seconds` of play, telling what is being done."""
    tell(f"loading {options.model}")
    start = time.perf_counter()
    engine = load(**asdict(options), say=tell)
    load_s = time.perf_counter() - start
    tell(f"playing for {seconds:g} s")
    graphs, compiled_before = GraphCount(engine), num_compiled()
    session = open_any(engine)
    costs_ms, growth_mib = play(session, seconds)
    recorded, compiled_in_play = graphs.recorded(), num_compiled() - compiled_before
    per_block = session.block_frames
    peak_mib = peak_memory_mib(engine)
    tell("timing the parts")
    pass_ms, decode_ms = time_parts(session)
    p50, p95 = latency_ms(costs_ms, per_block)
    early, late = near_frame(len(costs_ms), 300, per_block), near_frame(len(costs_ms), 3000, per_block)
    early_ms, late_ms = (float(np.median(costs_ms[near])) for near in (early, late))
    frames_per_s = per_block * 1000 / float(np.mean(costs_ms))
    session_mib, mode = session.num_bytes / 2**20, engine.mode
    compare = other_dtype if mode == "eager" else eager
    baseline, baseline_frames_per_s = compare(engine, min(5.0, seconds / 4), tell)
    return BenchReport(
        frames_per_s=round(frames_per_s, 2),
        latency_p50_ms=round(p50, 1),
        latency_p95_ms=round(p95, 1),
        dit_pass_ms=round(pass_ms, 2),
        decode_block_ms=round(decode_ms, 2),
        peak_memory_mib=round(peak_mib, 1),
        machine=describe_machine(engine),
        model=engine.fingerprint,
        block_p50_ms=round(float(np.percentile(costs_ms, 50)), 2),
        block_p95_ms=round(float(np.percentile(costs_ms, 95)), 2),
        frames=len(costs_ms) * per_block,
        early_frame=(early.start + early.stop) // 2 * per_block,
        early_block_ms=round(early_ms, 2),
        late_frame=(late.start + late.stop) // 2 * per_block,
        late_block_ms=round(late_ms, 2),
        late_over_early=round(late_ms / early_ms, 3),
        growth_mib=round(growth_mib, 1),
        session_mib=round(session_mib, 1),
        load_s=round(load_s, 2),
        times_real_time=round(frames_per_s / FPS, 2),
        baseline=baseline,
        baseline_frames_per_s=round(baseline_frames_per_s, 2),
        times_baseline=round(frames_per_s / baseline_frames_per_s, 2),
        mode=mode,
        graphs=recorded,
        graphs_refused=graphs.refused(),
        compiled_graphs=num_compiled(),
        compiled_in_play=compiled_in_play,
    )


class GraphCount:
    """The CUDA graphs that an engine's sessions record from now on."""

    def __init__(self, engine: Engine) -> None:
        captures = {name: engine.new_capture(name) for name in ("passes", "decode")}
        self._captures = {name: one for name, one in captures.items() if isinstance(one, CountedCapture)}
        self._before = {name: one.num_captured for name, one in self._captures.items()}

    def recorded(self) -> dict[str, int]:
        """By what was recorded; empty where nothing is."""
        return {name: one.num_captured - self._before[name] for name, one in self._captures.items()}

    def refused(self) -> str | None:
        """Joins the reasons why a session runs without CUDA graphs into one line; None where no capture failed."""
        reasons = [record.failure for record in self._captures.values() if record.failure is not None]
        return "; ".join(reasons) or None


def open_any(engine: Engine) -> Session:
    """A session on the model's first start image, or on a random one."""
    starts = engine.start_images()
    if starts:
        return engine.open(starts[0][1])
    noise = np.random.default_rng(0).integers(0, 256, (8, 14, 3), dtype=np.uint8)
    return engine.open(noise.repeat(16, 0).repeat(16, 1))


def play(session: Session, seconds: float) -> tuple[np.ndarray, float]:
    """Play for `seconds`.  Returns each block's cost in ms, and how much memory grew after the window was full."""
    space = session.action_space
    blocks = cycle([[space.restrict(action) for action in block] for block in parse(WALK).blocks(session.block_frames)])
    costs_ms: list[float] = []
    full_after, before_mib = 50, rss_mib()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or not costs_ms:
        start = time.perf_counter()
        session.step(next(blocks)[: session.next_frames])
        costs_ms.append((time.perf_counter() - start) * 1000)
        if len(costs_ms) == full_after:
            before_mib = rss_mib()
    return np.array(costs_ms), rss_mib() - before_mib


def latency_ms(costs_ms: np.ndarray, block_frames: int) -> tuple[float, float]:
    """Median and 95th percentile of the input-to-frame latency, as the module's docstring defines it."""
    period_ms = np.maximum(costs_ms, block_frames * 1000 / FPS)
    waits = (np.arange(WAIT_STEPS) + 0.5) / WAIT_STEPS
    sums = costs_ms[:, None] + period_ms[:, None] * waits
    return float(np.percentile(sums, 50)), float(np.percentile(sums, 95))


def near_frame(num_blocks: int, frame: int, block_frames: int) -> slice:
    """The blocks around `frame`, or, in a run that ends before, the last ones."""
    middle = max(0, min(frame // block_frames, num_blocks - 1 - NEAR_BLOCKS))
    return slice(max(0, middle - NEAR_BLOCKS), min(num_blocks, middle + NEAR_BLOCKS + 1))


@torch.inference_mode()
def time_parts(session: Session, repeats: int = 20) -> tuple[float, float]:
    """Medians in ms: one transformer pass over the session's next block, and decoding one block."""
    engine, twin = session.engine, session.fork()
    world, decoder = twin.state["world"], twin.state["decoder"]
    model, tokenizer = engine.bundle.model, engine.bundle.tokenizer
    rows = torch.from_numpy(engine.action_space.encode([Action()] * engine.block_frames))[None].to(engine.device)
    step = twin._next_view(rows)  # pyright: ignore[reportPrivateUsage]
    cond = next_condition(model, rows, world, None if step is None else step.parts)
    z = world.last[:, None].expand(-1, model.config.block, -1, -1, -1).contiguous()
    levels = torch.full(z.shape[:2], engine.bundle.config.schedule.sigmas[0], device=engine.device)
    pass_ms = median_ms(lambda: model(z, levels, cond, world), repeats, engine.device)
    decode_ms = median_ms(lambda: tokenizer.decode(z, decoder), repeats, engine.device)
    return pass_ms, decode_ms


def median_ms(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Median wall time of `work`, after two runs that do not count."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times[2:]))


def other_dtype(engine: Engine, seconds: float, tell: Callable[[str], None]) -> tuple[str, float]:
    """A short run of the same model in the number type that was not picked: its name and frames per second."""
    dtype = "bfloat16" if engine.dtype == torch.float32 else "float32"
    tell(f"playing for {seconds:g} s in {dtype}, to compare")
    decoder = "tiny" if engine.decoder is engine.bundle.tiny_decoder else "full"
    variant = engine.bundle.config.summary.get("variant")
    other = load(engine.folder, device=str(engine.device), dtype=dtype, variant=variant, decoder=decoder)
    costs_ms, _ = play(open_any(other), seconds)
    return f"the same in {dtype}", other.block_frames * 1000 / float(np.mean(costs_ms))


def eager(engine: Engine, seconds: float, tell: Callable[[str], None]) -> tuple[str, float]:
    """A short run of the same engine as its code is written, uncompiled; the engine is left so."""
    tell(f"playing for {seconds:g} s eagerly, to compare")
    engine.set_mode("eager")
    session = open_any(engine)
    play(session, seconds / 4)
    costs_ms, _ = play(session, seconds)
    return "the same, eager", engine.block_frames * 1000 / float(np.mean(costs_ms))


def peak_memory_mib(engine: Engine) -> float:
    """The most memory so far: of the process on a CPU, of torch on a GPU; nan where the system does not report it."""
    if engine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(engine.device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def describe_machine(engine: Engine) -> str:
    """The hardware and software that the figures hold for."""
    parts = [f"{cpu_name()}, {torch.get_num_threads()} threads"]
    if engine.device.type == "cuda":
        parts.append(torch.cuda.get_device_name(engine.device))
    dtype = str(engine.dtype).removeprefix("torch.")
    return ", ".join([*parts, f"torch {torch.__version__}", f"python {platform.python_version()}", dtype])
