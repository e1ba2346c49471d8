"""Trackers of trainings get figures, sheets and videos."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reverie.errors import TrainError
from reverie.train.config import TrainerConfig
from reverie.train.task import Task
from reverie.train.tracking import open_tracker
from reverie.train.trainer import Trainer


class Double(Task):
    """Learns to double a number, and draws a picture of it."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1)

    def batch(self, rng: np.random.Generator) -> Any:
        x = torch.from_numpy(rng.normal(size=(8, 1)).astype(np.float32))
        return x, 2 * x

    def loss(self, batch: Any, generator: torch.Generator) -> Any:
        x, y = batch
        return (self.model(x) - y).square().mean(), {}

    def validate(self) -> dict[str, float]:
        return {"weight": float(self.model.weight)}

    def sample(self, folder: Path, step: int) -> None:
        Image.new("RGB", (8, 4), (step, 0, 0)).save(folder / f"{step:07d}.png")
        (folder / f"walk-{step:07d}.mp4").write_bytes(b"a video")
        (folder / "notes.txt").write_text("left out")


class FakeTracker(ModuleType):
    """The interface that Trackio and Weights & Biases share.  calls: in order, with their arguments."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def init(self, **options: Any) -> None:
        self.calls.append(("init", options))

    def log(self, values: dict[str, Any], step: int) -> None:
        self.calls.append(("log", (step, values)))

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def Image(self, path: str) -> tuple[str, str]:
        return ("image", Path(path).name)

    def Video(self, path: str) -> tuple[str, str]:
        return ("video", Path(path).name)


def train(folder: Path, steps: int, track: Any) -> None:
    config = TrainerConfig(folder=folder, steps=steps, track=track, device="cpu", log_steps=5, warmup_steps=1)
    Trainer(Double(), config).run()


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_a_run_gets_figures_sheets_and_videos(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = FakeTracker(kind)
    monkeypatch.setitem(sys.modules, kind, module)
    train(tmp_path / "double", 10, kind)
    (_, options), *logged, (last, _) = module.calls
    assert last == "finish"
    assert (options["project"], options["resume"]) == ("reverie", "allow")
    assert options["name"].startswith("double-")
    assert options["config"]["steps"] == 10
    told = [values for _, values in logged]
    assert [step for step, values in told if "loss" in values] == [5, 10]
    assert [step for step, values in told if "val/weight" in values] == [0, 10]
    samples = {step: values for step, values in told if "samples/sample" in values}
    assert {step: values["samples/sample"] for step, values in samples.items()} == {
        0: ("image", "0000000.png"),
        10: ("image", "0000010.png"),
    }
    assert samples[10]["samples/walk"] == ("video", "walk-0000010.mp4")
    assert all(set(values) == {"samples/sample", "samples/walk"} for values in samples.values())


def test_a_resumed_training_goes_on_in_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for steps in (5, 10):
        module = FakeTracker("trackio")
        monkeypatch.setitem(sys.modules, "trackio", module)
        train(tmp_path / "double", steps, "trackio")
        names.append(module.calls[0][1]["name"])
    assert names[0] == names[1]
    assert [step for kind, told in module.calls if kind == "log" and "loss" in told[1] for step in [told[0]]] == [10]


def test_tensorboard_gets_figures_and_sheets(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason='TensorBoard is not installed: pip install "reverie-world[train]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "double", 10, "tensorboard")
    events = EventAccumulator(str(tmp_path / "double/tensorboard"))
    events.Reload()
    assert [one.step for one in events.Scalars("loss")] == [5, 10]
    assert [one.step for one in events.Images("sample")] == [0, 10]


@pytest.mark.parametrize("kind", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if kind == "tensorboard" else kind, None)
    with pytest.raises(TrainError, match=rf'--track {kind} needs .*; pip install "reverie-world\[track\]"'):
        train(tmp_path, 1, kind)
    assert not (tmp_path / "checkpoints").exists()
    if kind == "tensorboard":
        assert open_tracker("auto", tmp_path, 0, {}) is None


def test_a_tracker_that_does_not_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = FakeTracker("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(module, "init", lambda **options: (_ for _ in ()).throw(RuntimeError("no account\nmore")))
    with pytest.raises(TrainError, match="--track wandb does not start: no account; leave --track out"):
        train(tmp_path, 1, "wandb")
