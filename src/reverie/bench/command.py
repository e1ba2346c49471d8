"""`reverie bench`: the speed of a model on this machine.

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

With `--players`: as in `reverie.bench.players`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from reverie.types import FPS


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig:
    """Measure speed, latency and memory of a model on this machine.

    Matrix-Game 2.0 is measured block by block, each stage beside its floor (`--blocks`), without any download if asked.

    Examples: reverie bench --model nano --device cpu --seconds 60 --json;
    reverie bench --model matrix-game-2 --random-weights;  reverie bench --players 1 2 4 8
    """

    model: str = "nano"
    """A bundled model's name, a model folder, published Matrix-Game 2.0 weights, or a hub id of either."""
    random_weights: bool = False
    """With --model matrix-game-2: make up the weights of the published sizes; nothing is downloaded.  With --players
    also of our own sizes: --model nano or small."""
    players: tuple[int, ...] = ()
    """Measure that many players at once, who share their passes, beside the same players taking turns."""
    blocks: int | None = None
    """Number of blocks to play with Matrix-Game 2.0 (default, with random weights: 40 on a GPU, 1 on a CPU)."""
    variant: str | None = None
    """Variant of Matrix-Game 2.0: universal, gta or templerun."""
    decoder: str = "auto"
    """full, or tiny where the model has one; auto takes the preset's, else full."""
    preset: str | None = None
    """Memory preset of Matrix-Game 2.0: 24gb, 12gb, 8gb or fast."""
    weights: str = "auto"
    """Weights of the transformer: full, int8, int4 or fp8; auto takes the preset's, else full."""
    mode: str = "auto"
    """eager, or compiled (on a GPU with CUDA graphs); auto compiles on a GPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""
    seconds: float = 60.0
    """Seconds to play; frame 3,000 is reached where that is long enough."""
    json: bool = False
    """Print one line of JSON instead of the table."""

    def run(self) -> None:
        def tell(text: str) -> None:
            print(f"{text} ...", file=sys.stderr)

        if self.players:
            from reverie.bench.players import bench_players, print_players

            report = bench_players(self, tell)
            if self.json:
                print(json.dumps(asdict(report)))
            else:
                print_players(report)
            return
        if self.random_weights or self.blocks is not None:
            from reverie.bench.blocks import bench_stages, print_stages

            stages = bench_stages(self, tell)
            if self.json:
                print(json.dumps(asdict(stages)))
            else:
                print_stages(stages)
            return
        from reverie.bench.latency import bench

        report = bench(self, tell)
        if self.json:
            print(json.dumps(asdict(report)))
        else:
            print_report(report)


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
