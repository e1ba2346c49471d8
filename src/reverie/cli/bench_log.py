"""`python -m reverie.cli.bench_log`: `reverie bench` of Matrix-Game 2.0 for logs, on a machine without tyro."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from reverie.bench.blocks import bench_stages, profile_blocks
from reverie.bench.profiling import Profile, profile_lines
from reverie.cli import plain
from reverie.cli.bench import BenchConfig, compact
from reverie.cli.loading import load_options
from reverie.engine.engine import Engine
from reverie.errors import ReverieError


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m reverie.cli.bench_log`: what `reverie bench` does for Matrix-Game 2.0, for logs.

    Needs no tyro.  `--json FILE` writes the figures there; `--profile` adds where the time of a block goes.
    """
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("--json", type=Path)
    words.add_argument("--profile", action="store_true")
    own, rest = words.parse_known_args(argv)
    config = plain.parse(BenchConfig, rest, "python -m reverie.cli.bench_log", main.__doc__ or "")
    profiles: list[Profile] = []
    start = time.perf_counter()

    def tell(text: str) -> None:
        print(f"[{time.perf_counter() - start:.1f} s] {text}", file=sys.stderr, flush=True)

    def look(engine: Engine) -> None:
        tell("profiling")
        profiles.append(profile_blocks(engine))

    try:
        also = look if own.profile else lambda engine: None
        report = bench_stages(
            load_options(config), config.blocks, random_weights=config.random_weights, tell=tell, also=also
        )
    except ReverieError as error:
        print(f"reverie: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print("\n".join(compact(report)), flush=True)
    for found in profiles:
        print("\n".join(profile_lines(found)), flush=True)
    if own.json:
        figures = asdict(report) | {"profile": asdict(profiles[0]) if profiles else None}
        own.json.write_text(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
