"""Stage timing of a session of Matrix-Game 2.0, measured while it plays.

    image encode      the tokens of the start image; at the start of a session
    picture encode    its latent; at the start of a session
    condition         the latents of the grey after it, until they repeat; every block of the first 30 steps
    dit pass 1, 2...  one for each noise level
    commit pass       lets the block into the rings
    decode            latents to pixels

Beside each stands its floor: the operations and bytes that it cannot do without (`reverie.engine.loading.flops`),
against the rates of matrix products and of memory that this machine reaches when measured.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reverie.engine.accelerate.decode_stream import FrameFuture
from reverie.engine.engine import Engine
from reverie.engine.loading import flops
from reverie.engine.loading.flops import Work
from reverie.engine.sessions.script import parse
from reverie.engine.sessions.session import Session
from reverie.hardware import measure_matmul_gflops, synchronize
from reverie.models.clip_vision import ClipVisionConfig
from reverie.models.lazy_module import LazyModule, release_memory
from reverie.models.tiny_decoder import TinyDecoder
from reverie.models.wan_vae import WanVAE, WanVAEConfig

WALK = "forward 2s; forward yaw+3 1s; yaw-4 1s; forward left 1s; back pitch+1 0.4s; idle 0.6s"
PROBE_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30, "mps": 2**28}
"""Bytes that are copied to measure the memory's speed: more than caches hold."""
PROBE_SIZE = {"cpu": 1024, "cuda": 8192, "mps": 2048}
"""Rows of the square matrices whose product is measured."""

LONG_S = 5.0
"""A stage that takes this long is reported at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage.  times: how often it was timed; floor_ms, times_floor: None where the work is not known beforehand."""

    name: str
    times: int
    ms: float
    gigaoperations: float | None
    gigabytes: float | None
    floor_ms: float | None
    times_floor: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured rates of a machine: GFLOP/s of a large matrix product, GB/s of a copy (read and written)."""

    gflops: float
    gbytes_per_s: float


class Stopwatch:
    """Milliseconds by name.  On a GPU each timing waits for it, so overlaps do not show.

    tell: called with each timing that took long.
    """

    def __init__(self, device: torch.device, tell: Callable[[str], None] = lambda text: None) -> None:
        self.times_ms: defaultdict[str, list[float]] = defaultdict(list)
        self._device = device
        self._tell = tell

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        seconds = time.perf_counter() - start
        self.times_ms[name].append(seconds * 1000)
        if seconds > LONG_S:
            self._tell(f"{name}: {seconds:.1f} s")

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            with self.time(name):
                return work(*args, **options)

        return run

    def _wait(self) -> None:
        synchronize(self._device)


@contextmanager
def watched(engine: Engine, watch: Stopwatch) -> Iterator[None]:
    """Time the engine's stages for as long as this lasts, in sessions that record nothing.  Its networks are wrapped,
    not changed."""
    bundle = engine.bundle
    encoder, model, tokenizer, decoder = bundle.image_encoder, bundle.model, bundle.tokenizer, engine.decoder
    passes, encode_still = 0, tokenizer.encode_still if isinstance(tokenizer, WanVAE) else None

    def forward(*args: Any, commit: bool = False, **options: Any) -> Any:
        nonlocal passes
        passes = 0 if commit else passes + 1
        with watch.time("commit pass" if commit else f"dit pass {passes}"):
            return type(model).forward(model, *args, commit=commit, **options)

    def steps_of_still(picture: torch.Tensor) -> Iterator[torch.Tensor]:
        assert encode_still is not None
        steps, name = encode_still(picture), "picture encode"
        while True:
            with watch.time(name):
                step = next(steps, None)
            if step is None:
                return
            yield step
            name = "condition"

    def see(pixels: torch.Tensor) -> torch.Tensor:
        network = encoder.read() if isinstance(encoder, LazyModule) else encoder  # reading is loading's business
        with watch.time("image encode"):
            tokens = network(pixels)
        del network
        release_memory()
        return tokens

    bundle.image_encoder = see  # type: ignore[assignment]
    wrapped = {model: {"forward": forward}, decoder: {"decode": watch.timed("decode", decoder.decode)}}
    if encode_still is not None:
        wrapped.setdefault(tokenizer, {})["encode_still"] = steps_of_still
    try:
        for module, methods in wrapped.items():
            module.__dict__.update(methods)
        with engine.unrecorded():
            yield
    finally:
        bundle.image_encoder = encoder
        for module, methods in wrapped.items():
            for name in methods:
                del module.__dict__[name]


@dataclass(slots=True)
class Played:
    """costs_ms, cpu_s (all threads), frames: of each block; first_frame_s: from the image to the first block's
    frames."""

    session: Session
    costs_ms: list[float]
    cpu_s: list[float]
    frames: list[int]
    first_frame_s: float


def play_blocks(
    engine: Engine, picture: np.ndarray, num_blocks: int, tell: Callable[[str], None], *, ahead: bool = False
) -> Played:
    """A new session, `num_blocks` blocks long.

    ahead: on a GPU the next block is begun before the frames of this one are waited for, as where actions are known:
    a cost is then the time from one block's frames to the next one's.
    """
    start = time.perf_counter()
    session = engine.open(picture)
    played = Played(session, [], [], [], 0.0)
    space = session.action_space
    script = [[space.restrict(a) for a in block] for block in parse(WALK).blocks(session.block_frames)]

    def submit(block: int) -> FrameFuture:
        return session.submit(script[block % len(script)][: session.next_frames])

    coming: FrameFuture | None = None
    for block in range(num_blocks):
        began, cpu = time.perf_counter(), time.process_time()
        now = coming or submit(block)
        coming = submit(block + 1) if ahead and block + 1 < num_blocks else None
        frames = now.frames()
        played.costs_ms.append((time.perf_counter() - began) * 1000)
        played.cpu_s.append(time.process_time() - cpu)
        played.frames.append(len(frames))
        if block == 0:
            played.first_frame_s = time.perf_counter() - start
        tell(f"block {block + 1} of {num_blocks}: {played.costs_ms[-1] / 1000:.2f} s")
    return played


def stages_of(engine: Engine, watch: Stopwatch, num_blocks: int, rates: Rates) -> list[Stage]:
    """Medians of what was timed, beside the floors of the last block's work.

    Only blocks that saw as much as the last one count: the first ones of a session are cheaper.
    """
    per_block, window = engine.bundle.config.world.block, engine.bundle.config.world.window
    filling = min(num_blocks, -(-window // per_block)) - 1
    works, stages = works_of(engine, num_blocks), []
    for name, all_ms in watch.times_ms.items():
        ms = all_ms if name.endswith("encode") or name == "condition" else all_ms[filling:]
        needed = works.get(name)
        floor_ms = needed.floor_ms(rates.gflops, rates.gbytes_per_s) if needed else None
        median = float(np.median(ms))
        stages.append(
            Stage(
                name=name,
                times=len(ms),
                ms=round(median, 3),
                gigaoperations=round(needed.operations / 1e9, 6) if needed else None,
                gigabytes=round(needed.num_bytes / 1e9, 6) if needed else None,
                floor_ms=round(floor_ms, 6) if floor_ms is not None else None,
                times_floor=round(median / floor_ms, 2) if floor_ms else None,
            )
        )
    return stages


def works_of(engine: Engine, num_blocks: int) -> dict[str, Work]:
    """The work of each stage in the last of `num_blocks` blocks, as far as it can be computed beforehand."""
    config, itemsize = engine.bundle.config, torch.empty(0, dtype=engine.dtype).element_size()
    world, (height, width) = config.world, config.resolution
    seen = min(num_blocks * world.block, world.window)
    one = flops.dit_pass(world, world.block, seen, itemsize)
    works = {f"dit pass {i + 1}": one for i in range(len(config.schedule.sigmas))} | {"commit pass": one}
    if isinstance(config.image_encoder, ClipVisionConfig):
        works["image encode"] = flops.clip(config.image_encoder, itemsize)
    if isinstance(config.tokenizer, WanVAEConfig):
        size = (height, width, itemsize)
        works["picture encode"] = flops.wan_encode(config.tokenizer, *size, is_first=True)
        if num_blocks == 1:  # later, what has come to rest is run no more
            works["condition"] = flops.wan_encode(config.tokenizer, *size, is_first=False)
        if isinstance(engine.decoder, TinyDecoder):
            works["decode"] = flops.tiny_decode(engine.decoder.config, *size, steps=world.block)
        else:
            first = flops.wan_decode(config.tokenizer, *size, is_first=num_blocks == 1 and world.generates_start)
            other = flops.wan_decode(config.tokenizer, *size, is_first=False)
            steps = [first, *[other] * (world.block - 1)]
            works["decode"] = Work(sum(s.operations for s in steps), sum(s.num_bytes for s in steps))
    return works


def measure_rates(dtype: torch.dtype, device: torch.device) -> Rates:
    """Takes under a second."""
    gflops = max(measure_matmul_gflops(dtype, device, PROBE_SIZE[device.type]) for _ in range(3))
    return Rates(gflops, measure_copy_gbytes_per_s(device, PROBE_BYTES[device.type]))


def measure_copy_gbytes_per_s(device: torch.device, num_bytes: int, repeats: int = 5) -> float:
    """Memory's speed: a copy's bytes, read and written, over the best of `repeats` times."""
    source = torch.ones(num_bytes // 4, device=device)
    target, watch = torch.empty_like(source), Stopwatch(device)
    for _ in range(repeats):
        with watch.time("copy"):
            target.copy_(source)
    return 2 * num_bytes / min(watch.times_ms["copy"]) / 1e6
