"""What `--minutes` leaves out is said before it begins, and measured when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reverie import cli
from reverie.cli.display import TrainingDisplay, tell
from reverie.train import budget
from reverie.train.config import TrainerConfig
from reverie.train.idm import TrainIdmConfig
from reverie.train.reward import TrainRewardConfig
from reverie.train.task import Task
from reverie.train.trainer import Trainer


class Still(Task):
    """Nothing to learn."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1)

    def batch(self, rng: np.random.Generator) -> torch.Tensor:
        return torch.zeros(1, 1)

    def loss(self, batch: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        return self.model(batch).square().mean(), {}


@dataclass(frozen=True)
class Options:
    minutes: float | None
    data: tuple[Path, ...] = ()


@pytest.fixture(autouse=True)
def recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder holds two hours of play."""
    monkeypatch.setattr("reverie.data.dataset.Dataset", lambda folder: SimpleNamespace(num_frames=2 * 90_000, fps=25))


def test_what_comes_on_top_is_said_first(capsys: pytest.CaptureFixture[str]) -> None:
    budget.announce(Options(0.3, (Path("a"), Path("b"))), tell)
    said = capsys.readouterr().err
    assert "--minutes 0.3 counts training steps" in said
    assert "4 h of recordings" in said
    less = SimpleNamespace(minutes=1, data=[Path("a")], max_hours=0.5, held_out=[Path("b")], held_out_hours=0.1)
    budget.announce(less, tell)
    assert "0.6 h of recordings" in capsys.readouterr().err
    budget.announce(Options(None), tell)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "hours"),
    [
        (TrainIdmConfig(data=Path("a"), output=Path("o"), minutes=1), 2),
        (TrainIdmConfig(data=Path("a"), output=Path("o"), held_out=Path("b"), minutes=1), 4),
        (TrainRewardConfig(data=Path("a"), output=Path("o"), tokenizer=Path("t"), minutes=1), 2),
    ],
)
def test_a_training_of_one_recording_says_it_too(
    options: TrainIdmConfig | TrainRewardConfig, hours: int, capsys: pytest.CaptureFixture[str]
) -> None:
    budget.announce(options, tell)
    assert f"preparing {hours} h of recordings" in capsys.readouterr().err


def test_how_long_it_took_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 1780.0])
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    budget.announce(Options(None), tell)
    for number in range(2):
        config = TrainerConfig(folder=tmp_path / str(number), steps=1, track="none", device="cpu")
        Trainer(Still(), config, display=TrainingDisplay()).run()
        said = " ".join(capsys.readouterr().err.split())
        assert ("prepared in 28.0 min; 1 steps begin now" in said) == (number == 0)


@pytest.mark.parametrize("command", ["train tokenizer", "train world", "train idm", "distill init", "distill decoder"])
def test_the_help_of_minutes_says_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    assert "come on top" in " ".join(capsys.readouterr().out.replace("│", " ").split())
