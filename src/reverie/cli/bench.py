"""`reverie bench` and `reverie bench train`: the speed of a model, and of a training, on this machine.

`reverie.bench.latency` defines the figures; with `--blocks` `reverie.bench.blocks`, with `--players`
`reverie.bench.players`, of a training `reverie.bench.train_step`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from reverie.cli.loading import load_options
from reverie.engine.loading.load_options import LoadOptions
from reverie.types import FPS

if TYPE_CHECKING:
    from reverie.bench.blocks import StageReport
    from reverie.bench.latency import BenchReport
    from reverie.bench.players import PlayersReport
    from reverie.bench.train_step import BenchTrainConfig, StepReport


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig(LoadOptions):
    """Measure speed, latency and memory of a model on this machine.

    Matrix-Game 2.0 is measured block by block, each stage beside its floor (`--blocks`), without any download if asked.

    Examples: reverie bench --model nano --device cpu --seconds 60 --json;
    reverie bench --model matrix-game-2 --random-weights;  reverie bench --players 1 2 4 8
    """

    model: str = "nano"
    random_weights: bool = False
    """With --model matrix-game-2: make up the weights of the published sizes; nothing is downloaded.  With --players
    also of our own sizes: --model nano or small."""
    players: tuple[int, ...] = ()
    """Measure that many players at once, who share their passes, beside the same players taking turns."""
    blocks: int | None = None
    """Number of blocks to play with Matrix-Game 2.0 (default, with random weights: 40 on a GPU, 1 on a CPU)."""
    seconds: float = 60.0
    """Seconds to play; frame 3,000 is reached where that is long enough."""
    json: bool = False
    """Print one line of JSON instead of the table."""


def bench(config: BenchConfig) -> None:
    """Measures the model and prints the figures."""
    options = load_options(config)
    if config.players:
        from reverie.bench.players import bench_players

        players = bench_players(
            options, config.players, config.seconds, random_weights=config.random_weights, tell=_tell
        )
        (_print_json if config.json else print_players)(players)
    elif config.random_weights or config.blocks is not None:
        from reverie.bench.blocks import bench_stages

        stages = bench_stages(options, config.blocks, random_weights=config.random_weights, tell=_tell)
        (_print_json if config.json else print_stages)(stages)
    else:
        from reverie.bench.latency import bench

        report = bench(options, config.seconds, _tell)
        (_print_json if config.json else print_report)(report)


def bench_train(config: BenchTrainConfig) -> None:
    """Measures a training step and prints the figures."""
    from reverie.bench.train_step import bench_step

    report = bench_step(config)
    if config.json:
        _print_json(report)
    else:
        print("\n".join(train_lines(report)))


def _tell(text: str) -> None:
    print(f"{text} ...", file=sys.stderr)


def _print_json(report: BenchReport | PlayersReport | StageReport | StepReport) -> None:
    print(json.dumps(asdict(report)))


def graphs_text(graphs: dict[str, int]) -> str:
    """For people."""
    return ", ".join(f"{name} {count}" for name, count in graphs.items()) or "none"


def print_report(report: BenchReport) -> None:
    """The figures as a table."""
    from rich.console import Console
    from rich.table import Table

    r = report
    table = Table("figure", "value", "", title=f"{r.model}\n{r.machine}", title_justify="left")
    rows = [
        ("frames per second", f"{r.frames_per_s:.1f}", f"{r.times_real_time:.2f} x real time ({FPS})"),
        ("", "", f"{r.times_baseline:.2f} x {r.baseline} ({r.baseline_frames_per_s:.1f})"),
        ("input-to-frame latency, p50 / p95", f"{r.latency_p50_ms:.0f} / {r.latency_p95_ms:.0f} ms", "played at 25"),
        ("block, p50 / p95", f"{r.block_p50_ms:.1f} / {r.block_p95_ms:.1f} ms", f"{r.frames:,} frames played"),
        ("transformer pass", f"{r.dit_pass_ms:.1f} ms", ""),
        ("decoding a block", f"{r.decode_block_ms:.1f} ms", ""),
        (f"block at frame {r.early_frame:,}", f"{r.early_block_ms:.1f} ms", ""),
        (f"block at frame {r.late_frame:,}", f"{r.late_block_ms:.1f} ms", f"{r.late_over_early:.3f} x the early one"),
        ("peak memory", f"{r.peak_memory_mib:,.0f} MiB", f"{r.session_mib:.1f} MiB of it is the session's"),
        ("memory growth in play", f"{r.growth_mib:+.1f} MiB", ""),
        ("loading and warm-up", f"{r.load_s:.1f} s", ""),
    ]
    if r.mode == "compiled":
        graphs = ", ".join(f"{name} {count}" for name, count in r.graphs.items()) or "none"
        rows += [
            ("CUDA graphs recorded", graphs, r.graphs_refused or ""),
            ("functions compiled", f"{r.compiled_graphs}", f"{r.compiled_in_play} of them in play"),
        ]
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_players(report: PlayersReport) -> None:
    """The figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report.model}\n{report.machine}", title_justify="left")
    for name in ("players", "frames/s", "in turn", "factor", "p95 ms", "in turn", "CPU ms", "in turn", "MiB"):
        table.add_column(name, justify="right")
    for r in report.results:
        table.add_row(
            str(r.players),
            f"{r.frames_per_s:.1f}",
            f"{r.turns_frames_per_s:.1f}",
            f"{r.times_turns:.2f}",
            f"{r.latency_p95_ms:.0f}",
            f"{r.turns_latency_p95_ms:.0f}",
            f"{r.cpu_ms:.0f}",
            f"{r.turns_cpu_ms:.0f}",
            f"{r.session_mib:.1f}",
        )
    table.caption = (
        "frames a second for each player, input-to-frame latency, processor time of a block of all players, memory a "
        "player; beside each the same players one after another"
    )
    Console().print(table)


def print_stages(report: StageReport) -> None:
    """The figures as tables."""
    from rich.console import Console
    from rich.table import Table

    r, console = report, Console()
    weights = ", random weights" if r.random_weights else ""
    how = f"{r.mode}, {r.weights} weights, {r.decoder} decoder"
    title = f"{r.model}{weights}, {r.resolution[0]}x{r.resolution[1]}, {how}\n{r.machine}"
    table = Table("figure", "value", "", title=title, title_justify="left")
    blocks = f"{r.blocks_counted} of {r.blocks} blocks, {r.denoising_steps} steps + commit"
    for row in (
        ("frames per second", f"{r.frames_per_s:g}", f"{r.times_real_time:g} x real time ({FPS}); {blocks}"),
        *(
            [("  the baseline", f"{r.baseline_frames_per_s:g}", f"eager; this is {r.times_baseline:g} x it")]
            if r.baseline_frames_per_s
            else []
        ),
        ("  without decoding", f"{r.frames_per_s_without_decode:g}", ""),
        ("  the floor allows", f"{r.floor_frames_per_s:g}", f"the block took {r.times_floor:g} x its floor"),
        ("input-to-frame latency, p50 / p95", f"{r.latency_p50_ms:.0f} / {r.latency_p95_ms:.0f} ms", "played at 25"),
        ("block, p50 / p95", f"{r.block_p50_ms:.1f} / {r.block_p95_ms:.1f} ms", f"{r.frames:,} frames played"),
        ("  processor time of a block", f"{r.block_cpu_s:.2f} s", "all threads"),
        ("time to the first frame", f"{r.first_frame_s:.2f} s", ""),
        ("peak memory", f"{r.peak_memory_mib:,.0f} MiB", f"{r.session_mib:,.1f} MiB of it is the session's"),
        ("loading and warm-up", f"{r.load_s:.1f} s", f"{r.load_peak_mib:,.0f} MiB at most"),
        ("CUDA graphs recorded", graphs_text(r.graphs), r.graphs_refused or ""),
        ("functions compiled", f"{r.compiled_graphs}", f"{r.compiled_in_play} of them in play"),
        ("matrix products", f"{r.matrix_gflops:g} GFLOP/s", "measured"),
        ("memory", f"{r.copy_gbytes_per_s:g} GB/s", "measured, a copy"),
    ):
        table.add_row(*row)
    console.print(table)
    parts = Table("stage", "times", "ms", "10^9 operations", "GB", "floor, ms", "x floor")
    for s in r.stages:
        figures = (s.gigaoperations, s.gigabytes, s.floor_ms, s.times_floor)
        parts.add_row(s.name, str(s.times), f"{s.ms:,.1f}", *("" if f is None else f"{f:,.3g}" for f in figures))
    console.print(parts)


def compact(report: StageReport) -> list[str]:
    """The figures as a few lines, for logs."""
    r, stages = report, " | ".join(f"{s.name} {s.ms:g}/{s.floor_ms or 0:.2g}" for s in report.stages)
    return [
        f"{r.model} {r.decoder} decoder, {r.weights} weights, {r.mode}, {r.blocks_counted} of {r.blocks} blocks",
        r.machine,
        f"frames/s {r.frames_per_s:g} (eager {r.baseline_frames_per_s or 0:g}, floor {r.floor_frames_per_s:g}); "
        f"block p50/p95 {r.block_p50_ms:g}/{r.block_p95_ms:g} ms; latency p50/p95 {r.latency_p50_ms:g}/"
        f"{r.latency_p95_ms:g} ms; first frame {r.first_frame_s:g} s; load {r.load_s:g} s; "
        f"peak {r.peak_memory_mib:g} MiB",
        f"graphs: {graphs_text(r.graphs)}; refused: {r.graphs_refused or 'no'}; compiled {r.compiled_graphs}, "
        f"in play {r.compiled_in_play}; {r.matrix_gflops:g} GFLOP/s, {r.copy_gbytes_per_s:g} GB/s",
        f"stages, ms/floor: {stages}",
    ]


def train_lines(report: StepReport) -> list[str]:
    """The figures as a table."""
    columns = [report.now, *([report.baseline] if report.baseline else [])]
    rows = [
        ("", [c.name for c in columns]),
        ("number type", [f"{c.dtype}{', compiled' if c.compiled else ''}" for c in columns]),
        ("trained latent steps a second", [f"{c.steps_per_s:.2f}" for c in columns]),
        ("a step, s", [f"{c.wall_s:.3f}" for c in columns]),
        ("  processor time, s", [f"{c.cpu_s:.3f}" for c in columns]),
        ("  arithmetic, GFLOP", [f"{c.gflops:.0f}" for c in columns]),
        ("matrix products, GFLOP/s", [f"{c.matrix_gflops:.0f}" for c in columns]),
        ("mfu", [f"{c.mfu:.1%}" for c in columns]),
        ("warm-up, s", [f"{c.warm_up_s:.1f}" for c in columns]),
    ]
    kinds = dict.fromkeys(kind for c in columns for kind in c.kinds)
    rows += [(f"  {kind}", [f"{c.kinds.get(kind, 0):.1%}" for c in columns]) for kind in kinds]
    title = (
        f"{report.size}: batch {report.batch}, clips of {report.clip_steps} steps, {report.copies} copies; "
        f"{report.threads} threads, torch {report.torch}"
    )
    table = [title, *(f"{name:<32}" + "".join(f"{value:>22}" for value in values) for name, values in rows)]
    if report.times is not None:
        table.append(f"{report.times:g} times the baseline's steps a second; by processor time {report.cpu_times:g}")
    return table
