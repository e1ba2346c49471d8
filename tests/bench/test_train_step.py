"""The bench of a training step, at toy size."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from reverie import cli
from reverie.bench import train_step
from reverie.bench.train_step import BenchTrainConfig, bench_step
from reverie.cli.bench import train_lines
from reverie.errors import TrainError

TINY = ["bench", "train", "--size", "tiny", "--batch", "2", "--clip-steps", "4", "--steps", "2", "--device", "cpu"]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A clone whose only commit is the source of now; returns its name."""
    source = Path(train_step.__file__).parents[2]
    clone = tmp_path / "clone"
    shutil.copytree(source / "reverie", clone / "src/reverie", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=clone, check=True, capture_output=True)
    real = train_step._extract
    monkeypatch.setattr(train_step, "_extract", lambda commit, _, folder: real(commit, clone / "src", folder))
    return "HEAD"


def test_both_in_turn_with_a_table_and_one_line(history: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TINY, "--dtype", "float32", "--baseline", "--commit", history, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    now, before = report["now"], report["baseline"]
    for figures in (now, before):
        assert figures["dtype"] == "float32"
        assert figures["steps_per_s"] == pytest.approx(2 * 3 / figures["wall_s"], rel=0.02)
        assert 0 < figures["mfu"] < 1.5
        assert sum(figures["kinds"].values()) == pytest.approx(1, abs=0.02)
        assert figures["kinds"]["matrix products"] > 0
    assert now["gflops"] == before["gflops"] > 0  # the same model
    assert report["times"] == pytest.approx(now["steps_per_s"] / before["steps_per_s"], abs=0.02)
    report = train_step.StepReport(
        **report | {"now": train_step.StepFigures(**now), "baseline": train_step.StepFigures(**before)}
    )
    table = "\n".join(train_lines(report))
    assert "times the baseline's steps a second" in table
    assert "matrix products" in table


def test_without_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TINY[:-2], "--dtype", "bfloat16", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "bfloat16" in out
    assert "times the baseline" not in out


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch": 0}, "at least 1"),
        ({"clip_steps": 1}, "clip_steps at least 2"),
        ({"baseline": True, "commit": "0123456"}, "the source of 0123456 is not there"),
    ],
)
def test_what_cannot_be_measured(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(TrainError, match=complaint):
        bench_step(BenchTrainConfig(**{"size": "tiny", "device": "cpu"} | changes))  # type: ignore[arg-type]


def test_a_process_that_ends_says_why(tmp_path: Path) -> None:
    (tmp_path / "reverie").mkdir()
    (tmp_path / "reverie/__init__.py").write_text("raise ValueError('too old')")
    options = {"size": "tiny"}
    with train_step._Worker("0123456", tmp_path, options) as worker:
        with pytest.raises(TrainError, match="the training of 0123456 ended: ValueError: too old"):
            worker.heard()
        with pytest.raises(TrainError, match="ended"):
            worker.ask("step")
