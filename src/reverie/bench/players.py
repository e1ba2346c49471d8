"""`reverie bench --players`: several players of one model, who share their passes, beside the same players in turn.

Rounds of both kinds alternate, so that other work on the machine slows both alike.  A round is one block of every
player, decoding and the copy to uint8 included, with every window full.

frames_per_s          frames a second for each player, together.
turns_frames_per_s    the same, one player after another.
times_turns           median round of turns over the median shared round.
cpu_ms, turns_cpu_ms  median processor time of a round, all threads: where others share the cores it says more than the
                      clock, but not how well the threads share the work.
latency_p95_ms        input-to-frame latency, as `reverie bench` defines it, of blocks that take a whole round.
session_mib           memory of a player's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from reverie.bench.latency import WALK, describe_machine, latency_ms, open_any
from reverie.engine.engine import Engine, load
from reverie.engine.loading.device import pick_device, pick_dtype, set_threads
from reverie.engine.loading.load_options import LoadOptions
from reverie.engine.loading.random_weights import RandomWeights
from reverie.engine.sessions.batch import make_blocks
from reverie.engine.sessions.script import parse
from reverie.engine.sessions.session import Session
from reverie.errors import CheckpointError, DeviceError
from reverie.hardware import synchronize
from reverie.models.checkpoint import ModelConfig
from reverie.models.presets import PRESETS
from reverie.models.schedule import Schedule
from reverie.types import Action

SCHEDULE = Schedule((1.0, 0.5), renoise=False, context_sigma=0.06)
"""Schedule of random weights: two denoising passes and the commit."""
MAX_PLAYERS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayersResult:
    """The figures for one number of players; the module's docstring defines each."""

    players: int
    rounds: int
    frames_per_s: float
    turns_frames_per_s: float
    times_turns: float
    cpu_ms: float
    turns_cpu_ms: float
    latency_p95_ms: float
    turns_latency_p95_ms: float
    session_mib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayersReport:
    """The figures for each number of players."""

    model: str
    machine: str
    results: tuple[PlayersResult, ...]


def bench_players(
    options: LoadOptions,
    players: Sequence[int],
    seconds: float,
    *,
    random_weights: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> PlayersReport:
    """Loads a model and measures each number of players for an equal share of `seconds`.

    Raises DeviceError for a number of players below 1, CheckpointError for made-up weights of an unknown size.
    """
    for count in players:
        if not 1 <= count <= MAX_PLAYERS:
            raise DeviceError(f"players are 1 to {MAX_PLAYERS}, got {count}; say for example --players 1 2 4 8")
    tell(f"loading {options.model}")
    if random_weights:
        engine = random_engine(options.model, options.device, options.dtype)
    else:
        engine = load(options.model, device=options.device, dtype=options.dtype, mode=options.mode, say=tell)
    results = []
    for count in players:
        tell(f"playing {count} at once")
        results.append(measure_players(engine, count, seconds / len(players)))
    name = f"{engine.name}, random weights" if random_weights else engine.fingerprint
    return PlayersReport(model=name, machine=describe_machine(engine), results=tuple(results))


def random_engine(size: str, device: str = "auto", dtype: str = "auto") -> Engine:
    """An engine with made-up weights of one of our sizes.  Raises CheckpointError for an unknown one."""
    if size not in PRESETS:
        raise CheckpointError(f"there is no size {size!r} to make up weights of; expected {', '.join(PRESETS)}")
    preset = PRESETS[size]()
    config = ModelConfig(
        name=size,
        resolution=preset.resolution,
        schedule=SCHEDULE,
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
        memory=preset.memory,
    )
    set_threads()
    picked = pick_device(device)
    number_type = pick_dtype(dtype, picked)
    bundle = RandomWeights(config).load(picked, number_type)
    return Engine(bundle, folder=Path(), device=picked, dtype=number_type, files=())


def _walk_blocks(session: Session) -> list[list[Action]]:
    """Actions of 64 blocks of a walk."""
    script = cycle(parse(WALK).blocks(session.block_frames))
    return [[session.action_space.restrict(action) for action in block] for block in islice(script, 64)]


def measure_players(engine: Engine, players: int, seconds: float) -> PlayersResult:
    """Plays for about `seconds`, at least two rounds of each kind."""
    first = open_any(engine)
    blocks = _walk_blocks(first)
    for _ in range(engine.bundle.config.world.window + 1):
        first.step(blocks[0][: first.next_frames])
    shared, turned = ([first.fork() for _ in range(players)] for _ in range(2))
    make_blocks(shared, [blocks[0]] * players)  # threads and memory are taken at the first block
    costs: dict[str, list[tuple[float, float]]] = {"shared": [], "turns": []}
    deadline, number = time.perf_counter() + seconds, 0
    while number < 2 or time.perf_counter() < deadline:
        actions = [blocks[(number + 7 * i) % len(blocks)] for i in range(players)]
        costs["shared"].append(_timed_round(engine, shared, actions, together=True))
        costs["turns"].append(_timed_round(engine, turned, actions, together=False))
        number += 1
    result = _result(costs, players, first)
    for session in (first, *shared, *turned):
        session.close()
    return result


def _timed_round(
    engine: Engine, sessions: list[Session], actions: list[list[Action]], *, together: bool
) -> tuple[float, float]:
    """Wall and processor time of a block of every session, ms."""
    wall, cpu = time.perf_counter(), time.process_time()
    if together:
        for made in make_blocks(sessions, actions):
            if isinstance(made, Exception):
                raise made
    else:
        for session, action in zip(sessions, actions, strict=True):
            session.step(action)
    synchronize(engine.device)
    return (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000


def _result(costs: dict[str, list[tuple[float, float]]], players: int, session: Session) -> PlayersResult:
    shared, turns = (np.array(costs[kind]) for kind in ("shared", "turns"))
    (wall, cpu), (turns_wall, turns_cpu) = np.median(shared, 0), np.median(turns, 0)
    frames = session.block_frames
    return PlayersResult(
        players=players,
        rounds=len(shared),
        frames_per_s=round(frames * 1000 / wall, 2),
        turns_frames_per_s=round(frames * 1000 / turns_wall, 2),
        times_turns=round(turns_wall / wall, 2),
        cpu_ms=round(cpu, 1),
        turns_cpu_ms=round(turns_cpu, 1),
        latency_p95_ms=round(latency_ms(shared[:, 0], frames)[1], 1),
        turns_latency_p95_ms=round(latency_ms(turns[:, 0], frames)[1], 1),
        session_mib=round(session.num_bytes / 2**20, 2),
    )
