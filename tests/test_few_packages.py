"""What must work on a machine that has torch and little else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from reverie.argument_markers import alias
from reverie.cli import plain

BLOCKED = (
    "av",
    "tyro",
    "docstring_parser",
    "typeguard",
    "gymnasium",
    "fastapi",
    "uvicorn",
    "torchao",
    "mslk",
    "cv2",
    "rich",
)
BENCH = ("reverie.cli", "reverie.cli.bench", "reverie.cli.bench_log", "reverie.bench.latency")
TRAINING = (
    "reverie.train.trainer",
    "reverie.train.optimizers",
    "reverie.train.checkpoints",
    "reverie.train.parallel",
    "reverie.train.throughput",
    "reverie.models.checkpoint",
)
EVERYTHING = """
from pkgutil import walk_packages
import reverie
parts = ("bench", "cli", "data", "engine", "evaluate", "models", "nn", "scenes", "train", "vision")
modules = [m.name for m in walk_packages(reverie.__path__, "reverie.") if m.name.split(".")[1] in parts]
assert len(modules) > 200, len(modules)
"""
SCRIPT = """
import sys
from importlib import import_module
blocked, modules = sys.argv[1].split(","), sys.argv[2].split(",")
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
#
for name in modules:
    import_module(name)
"""


def test_bench_and_training_import_without_the_rest() -> None:
    words = [sys.executable, "-c", SCRIPT, ",".join(BLOCKED), ",".join(BENCH + TRAINING)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_module_that_trains_measures_or_plays_imports_without_videos_games_or_a_server() -> None:
    """On a GPU machine that has torch, and what reads a recording's tables."""
    blocked = "av,gymnasium,fastapi,uvicorn,torchao,mslk,tyro,docstring_parser,typeguard"
    words = [sys.executable, "-c", SCRIPT.replace("#\n", EVERYTHING), blocked, ""]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_recipes_run_where_nothing_can_be_recorded() -> None:
    blocked = [
        "av",
        "rich",
        "tyro",
        "pyarrow",
        "gymnasium",
        "fastapi",
        "uvicorn",
        "pydantic",
        "torchao",
        "reverie_worlds",
    ]
    words = [sys.executable, "-c", SCRIPT, ",".join(blocked), "reverie.train.recipes,reverie.cli.train"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "reverie", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "reverie")


@dataclass(frozen=True)
class Options:
    """All kinds of options."""

    data: tuple[Path, ...]
    output: Annotated[Path, alias("-o")]
    size: tuple[int, int] | None = None
    minutes: float | None = None
    kind: Literal["one", "two"] = "one"
    muon: bool = True
    batch_size: int = 4


def test_plain_options(capsys) -> None:
    words = ["--data", "a", "b", "-o", "c", "--size", "3", "4", "--minutes", "1.5", "--no-muon", "--kind", "two"]
    assert plain.parse(Options, words, "x") == Options((Path("a"), Path("b")), Path("c"), (3, 4), 1.5, "two", False)
    assert plain.parse(Options, ["--data", "a", "--output", "c", "--batch-size", "8"], "x").batch_size == 8
    for wrong in (["--data", "a"], [*words, "--kind", "three"], [*words, "--bath", "3"]):
        with pytest.raises(SystemExit) as stop:
            plain.parse(Options, wrong, "x")
        assert stop.value.code == 2
    assert "invalid choice: 'three'" in capsys.readouterr().err


def test_both_parsers_agree(monkeypatch) -> None:
    import tyro

    from reverie.cli.bench import BenchConfig

    words = ["--model", "matrix-game-2", "--random-weights", "--blocks", "24", "--weights", "int8", "--json"]
    assert plain.parse(BenchConfig, words, "x") == tyro.cli(BenchConfig, args=words)
