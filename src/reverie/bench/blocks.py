"""`reverie bench` of Matrix-Game 2.0: a number of blocks, and where their time goes.

frames_per_s            of the blocks that saw as much as the last one did, one after another, decoding and the copy to
                        uint8 included; on a GPU a block is generated while the one before is decoded, and the blocks
                        that are recorded as CUDA graphs on the way do not count.  without_decode: blocks alone, less
                        the median time of decoding one.
baseline_frames_per_s   of the same blocks by our own eager, uncompiled path, in the same process, where another mode is
                        measured.
graphs                  CUDA graphs that the played session recorded; graphs_refused: why it went on without, else null.
                        compiled_graphs: compiled functions in all; compiled_in_play: those of them that were compiled
                        after the warm-up, which should be none.
latency_*_ms, block_*   of blocks alone, each waited for; latency as in `reverie.bench.command`.
first_frame_s           from the image to the first block's frames, reading the image encoder included.
block_cpu_s             median of the processor time, all threads, that a block takes: says more than the clock where
                        others share the cores.
stages                  `reverie.bench.stages`; timed in the same blocks on a CPU, in further ones on a GPU, where
                        timing costs time.
floor_frames_per_s      what the machine's measured rates would allow if every stage took its floor.
peak_memory_mib         of the process on a CPU, of torch on a GPU; load_peak_mib: the same before a session starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from reverie.bench.latency import GraphCount, describe_machine, latency_ms, peak_memory_mib
from reverie.bench.profiling import Profile, profile_of
from reverie.bench.stages import Stage, Stopwatch, measure_rates, play_blocks, stages_of, watched
from reverie.engine.engine import Engine, load, pick_mode
from reverie.engine.loading import device as machine
from reverie.engine.loading import hardware_check, presets
from reverie.engine.loading.load_options import LoadOptions
from reverie.engine.loading.random_weights import NAMES, RandomWeights, matrix_game_2
from reverie.errors import CheckpointError
from reverie.models.compiled_blocks import num_compiled
from reverie.models.config import WorldModelConfig
from reverie.models.lazy_module import LazyModule
from reverie.models.wan_vae import WanVAEConfig
from reverie.types import FPS, Action

GPU_BLOCKS, CPU_BLOCKS, TIMED_BLOCKS = 40, 1, 10
ONCE = ("image encode", "picture encode", "condition")
"""Stages that are not part of every block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """The figures; the module's docstring defines each."""

    frames_per_s: float
    frames_per_s_without_decode: float
    latency_p50_ms: float
    latency_p95_ms: float
    block_p50_ms: float
    block_p95_ms: float
    block_cpu_s: float
    first_frame_s: float
    peak_memory_mib: float
    load_peak_mib: float
    session_mib: float
    load_s: float
    machine: str
    model: str
    decoder: str
    mode: str
    weights: str
    baseline_frames_per_s: float | None
    times_baseline: float | None
    preset: str | None
    random_weights: bool
    resolution: tuple[int, int]
    denoising_steps: int
    blocks: int
    blocks_counted: int
    frames: int
    stages: list[Stage]
    matrix_gflops: float
    copy_gbytes_per_s: float
    floor_frames_per_s: float
    times_floor: float
    times_real_time: float
    graphs: dict[str, int]
    graphs_refused: str | None
    compiled_graphs: int
    compiled_in_play: int


def bench_stages(
    options: LoadOptions,
    blocks: int | None = None,
    *,
    random_weights: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    also: Callable[[Engine], None] = lambda engine: None,
) -> StageReport:
    """Load a model, or make one up, and measure it for some blocks, telling what is being done.

    blocks: to play; as many as the device makes soon if left out.  random_weights: made up, of the published sizes.
    also: done with the engine after it was measured, before its mode is changed for the baseline.
    """
    if blocks is not None and blocks < 1:
        raise CheckpointError(f"--blocks must be at least 1, got {blocks}")
    start = time.perf_counter()
    engine = _open_random(options, tell) if random_weights else _open(options, tell)
    load_s, load_peak_mib = time.perf_counter() - start, peak_memory_mib(engine)
    is_gpu, mode = engine.device.type == "cuda", engine.mode
    num_blocks = blocks or (GPU_BLOCKS if is_gpu else CPU_BLOCKS)
    picture = np.random.default_rng(0).integers(0, 256, (*engine.resolution, 3), dtype=np.uint8)
    watch = Stopwatch(engine.device, tell)
    graphs, compiled_before = GraphCount(engine), num_compiled()
    if is_gpu:
        tell(f"playing {num_blocks} blocks, twice")
        ahead = play_blocks(engine, picture, num_blocks, _quiet, ahead=True)
        ahead.session.close()
        graphs = GraphCount(engine)
        played = play_blocks(engine, picture, num_blocks, _quiet)
        peak_mib, session_mib = peak_memory_mib(engine), played.session.num_bytes / 2**20
        played.session.close()
        tell("timing the stages")
        num_timed = min(num_blocks, TIMED_BLOCKS)
        with watched(engine, watch):
            play_blocks(engine, picture, num_timed, _quiet).session.close()
    else:
        num_timed = num_blocks
        with watched(engine, watch):
            ahead = played = play_blocks(engine, picture, num_blocks, tell)
        peak_mib, session_mib = peak_memory_mib(engine), played.session.num_bytes / 2**20
        played.session.close()
    recorded, compiled_in_play = graphs.recorded(), num_compiled() - compiled_before
    tell("measuring the machine")
    rates = measure_rates(engine.dtype, engine.device)
    stages = stages_of(engine, watch, num_timed, rates)
    skipped = uncounted_blocks(engine.bundle.config.world, num_blocks, bool(recorded))
    costs_ms, frames = np.array(played.costs_ms[skipped:]), played.frames[-1]
    p50, p95 = latency_ms(costs_ms, frames)
    block_ms, alone_ms = float(np.mean(ahead.costs_ms[skipped:])), float(np.mean(costs_ms))
    also(engine)
    baseline_ms = _eager_block_ms(engine, picture, num_blocks, skipped, tell) if engine.mode != "eager" else None
    decode_ms = next(stage.ms for stage in stages if stage.name == "decode")
    floors_ms = [s.floor_ms for s in stages if s.name not in ONCE and s.floor_ms is not None]
    floor_fps = frames * 1000 / sum(floors_ms)
    return StageReport(
        frames_per_s=_figure(frames * 1000 / block_ms),
        frames_per_s_without_decode=_figure(frames * 1000 / (alone_ms - decode_ms)),
        latency_p50_ms=round(p50, 1),
        latency_p95_ms=round(p95, 1),
        block_p50_ms=round(float(np.percentile(costs_ms, 50)), 2),
        block_p95_ms=round(float(np.percentile(costs_ms, 95)), 2),
        block_cpu_s=round(float(np.median(played.cpu_s[skipped:])), 3),
        first_frame_s=round(played.first_frame_s, 3),
        peak_memory_mib=round(peak_mib, 1),
        load_peak_mib=round(load_peak_mib, 1),
        session_mib=round(session_mib, 1),
        load_s=round(load_s, 2),
        machine=describe_machine(engine),
        model=engine.name,
        decoder="tiny" if engine.decoder is engine.bundle.tiny_decoder else "full",
        mode=mode,
        weights=engine.weights,
        baseline_frames_per_s=_figure(frames * 1000 / baseline_ms) if baseline_ms else None,
        times_baseline=_figure(baseline_ms / block_ms) if baseline_ms else None,
        preset=options.preset,
        random_weights=random_weights,
        resolution=engine.resolution,
        denoising_steps=len(engine.bundle.config.schedule.sigmas),
        blocks=num_blocks,
        blocks_counted=len(costs_ms),
        frames=sum(played.frames),
        stages=stages,
        matrix_gflops=_figure(rates.gflops),
        copy_gbytes_per_s=_figure(rates.gbytes_per_s),
        floor_frames_per_s=_figure(floor_fps),
        times_floor=_figure(floor_fps * block_ms / frames / 1000),
        times_real_time=_figure(frames * 1000 / block_ms / FPS),
        graphs=recorded,
        graphs_refused=graphs.refused(),
        compiled_graphs=num_compiled(),
        compiled_in_play=compiled_in_play,
    )


def uncounted_blocks(world: WorldModelConfig, num_blocks: int, recorded: bool) -> int:
    """Counts a session's first blocks to leave out of timings: those that attend to less than a full window, and, where
    blocks are captured as CUDA graphs, those that are captured, one for each slot of the ring.  At least the last block
    counts."""
    filling = -(-world.window // world.block) - 1
    ring = world.window - world.sink
    places = ring // math.gcd(ring, world.block) if recorded else 0
    return min(filling + places, num_blocks - 1)


def _quiet(text: str) -> None:
    """Blocks of a GPU are too many to print each."""


def _eager_block_ms(
    engine: Engine, picture: np.ndarray, num_blocks: int, skipped: int, tell: Callable[[str], None]
) -> float:
    """The mean of the same blocks, as written and uncompiled; the engine is left so."""
    tell("the baseline: eager")
    engine.set_mode("eager")
    is_gpu = engine.device.type == "cuda"
    play_blocks(engine, picture, 2, _quiet).session.close()
    played = play_blocks(engine, picture, num_blocks, _quiet if is_gpu else tell, ahead=is_gpu)
    played.session.close()
    return float(np.mean(played.costs_ms[skipped:]))


def _open(options: LoadOptions, tell: Callable[[str], None]) -> Engine:
    tell(f"loading {options.model}")
    engine = load(**asdict(options), say=tell)
    if not isinstance(engine.bundle.config.tokenizer, WanVAEConfig):
        raise CheckpointError(f"--blocks is for Matrix-Game 2.0; measure {options.model} with --seconds")
    return engine


def _open_random(options: LoadOptions, tell: Callable[[str], None]) -> Engine:
    if options.model not in NAMES:
        raise CheckpointError(f"--random-weights makes up {NAMES[0]}, not {options.model!r}; say --model {NAMES[0]}")
    settings = presets.settings(options.preset, options.dtype, options.decoder, options.weights)
    device = machine.pick_device(options.device)
    machine.set_threads()
    dtype = machine.pick_dtype("bfloat16" if settings.dtype == "auto" else settings.dtype, device)
    source = RandomWeights(matrix_game_2(options.variant))
    tell(hardware_check.check(source.config, settings, dtype, hardware_check.read_machine(device)))
    tell("making up the weights")
    with torch.inference_mode():
        bundle = source.load(device, dtype)
    if settings.keeps_encoder and isinstance(bundle.image_encoder, LazyModule):
        bundle.image_encoder = bundle.image_encoder.read()  # type: ignore[assignment]
    engine = Engine(bundle, folder=Path("random"), device=device, dtype=dtype, files=(), decoder=settings.decoder)
    if settings.weights != "full":
        tell(str(engine.quantise(settings.weights, gated=False)))
    engine.set_mode(pick_mode(options.mode, device))
    engine.warm_up(lambda share, text: tell(f"{text} ({share:.0%})"))
    return engine


def _figure(value: float) -> float:
    """Three digits that count: frames a second may be 100 or 0.001."""
    return float(f"{value:.3g}")


def profile_blocks(engine: Engine, num_blocks: int = 4) -> Profile:
    """Profiles the time of a block by kind of operation, once a session has settled."""
    picture = np.random.default_rng(0).integers(0, 256, (*engine.resolution, 3), dtype=np.uint8)
    session = engine.open(picture)
    for _ in range(uncounted_blocks(engine.bundle.config.world, 99, recorded=True) + 1):
        session.step(Action())

    def play() -> None:
        for _ in range(num_blocks):
            session.step(Action())

    found = profile_of(play, engine.device, num_blocks)
    session.close()
    return found
