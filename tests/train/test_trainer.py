"""The training loop: schedule, resuming, refusals, averaging."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.line_task import Line, config, same, weights
from torch import Tensor, nn

from reverie.errors import TrainError
from reverie.models import presets
from reverie.models.dit import WorldModel
from reverie.train.checkpoints import Checkpoints
from reverie.train.trainer import Trainer, lr_scale


@pytest.mark.parametrize("muon", [False, True])
def test_it_learns_and_reports(tmp_path: Path, muon: bool) -> None:
    task = Line()
    metrics = Trainer(task, config(tmp_path, steps=150, lr=1e-2, muon=muon)).run()
    assert np.mean(task.seen[-10:]) < 0.5 * np.mean(task.seen[:10])
    assert metrics == {"weight": pytest.approx(metrics["weight"])}
    assert task.exported["steps"] == 150
    assert task.exported["metrics"]["weight"] == pytest.approx(metrics["weight"], abs=1e-4)
    assert task.validated == [False, False]
    assert (tmp_path / "samples/150.txt").exists()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, *range(5, 151, 5), 150]
    assert {"loss", "half", "constant", "lr", "grad_norm", "steps_per_s", "elapsed_s", "tflops", "mfu"} <= rows[
        1
    ].keys()
    assert 0 < rows[1]["mfu"] < 1


def test_what_is_finished_stays_finished(tmp_path: Path) -> None:
    first, again = Line(), Line()
    Trainer(first, config(tmp_path)).run()
    Trainer(again, config(tmp_path)).run()
    assert again.seen == []
    assert same(weights(first), weights(again))


@pytest.mark.parametrize("muon", [False, True])
def test_a_longer_budget_goes_on_as_if_never_stopped(tmp_path: Path, muon: bool) -> None:
    whole, first, second = Line(), Line(), Line()
    flat = {"decay": 0.0, "muon": muon, "accumulate": 2, "workers": 2}
    Trainer(whole, config(tmp_path / "whole", steps=24, **flat)).run()
    Trainer(first, config(tmp_path / "parts", steps=11, **flat)).run()
    trainer = Trainer(second, config(tmp_path / "parts", steps=24, **flat))
    trainer.run()
    assert first.seen + second.seen == whole.seen
    assert same(weights(second), weights(whole))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    Trainer(Line(), config(tmp_path, steps=10, decay=0.0)).run()
    task = Line(broken=frozenset({5}))
    with pytest.raises(TrainError, match=r"became nan at step 15; the last good checkpoint is .*step-000000010"):
        Trainer(task, config(tmp_path, decay=0.0)).run()
    latest = Checkpoints(tmp_path).latest()
    assert latest is not None
    assert latest.name == "step-000000010"


def test_a_huge_gradient_is_left_out(tmp_path: Path) -> None:
    task = Line(huge=frozenset({25}))
    trainer = Trainer(task, config(tmp_path, decay=0.0))
    trainer.run()
    assert trainer.progress.skipped == 1


def test_endless_infinite_gradients_stop(tmp_path: Path) -> None:
    class Infinite(Line):
        def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
            loss, scalars = super().loss(batch, generator)
            return loss + 0 * (self.model[3].bias * 0).sum().sqrt(), scalars  # the root's slope at 0 is infinite

    with pytest.raises(TrainError, match="26 steps in a row"):
        Trainer(Infinite(), config(tmp_path)).run()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("CUDA error: unspecified launch failure\nmore"),
            r"launch failure\); checkpoints are kept in .*: run",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "kept in .*: end what else uses its memory, or take less",
        ),
    ],
)
def test_a_gpu_that_fails_is_one_line_and_the_run_goes_on(tmp_path: Path, error: RuntimeError, said: str) -> None:
    class Failing(Line):
        def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
            if self.calls == 7:
                raise error
            return super().loss(batch, generator)

    whole, first, second = Line(), Failing(), Line()
    Trainer(whole, config(tmp_path / "whole")).run()
    with pytest.raises(TrainError, match=r"the GPU failed in training \(CUDA .*" + said) as told:
        Trainer(first, config(tmp_path / "parts", checkpoint_minutes=0.0)).run()
    assert "\n" not in str(told.value)
    Trainer(second, config(tmp_path / "parts")).run()
    assert same(weights(second), weights(whole))
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Trainer(Failing(), config(tmp_path / "ours")).run()


def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    class Interrupted(Line):
        def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
            if self.calls == 7:
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss(batch, generator)

    whole, first, second = Line(), Interrupted(), Line()
    Trainer(whole, config(tmp_path / "whole")).run()
    with pytest.raises(TrainError, match="stopped at step 8; run the same command"):
        Trainer(first, config(tmp_path / "parts")).run()
    Trainer(second, config(tmp_path / "parts")).run()
    assert same(weights(second), weights(whole))


def test_a_budget_of_minutes_ends_and_time_is_kept_over_resumes(tmp_path: Path) -> None:
    task = Line(pause_s=0.005)
    trainer = Trainer(task, config(tmp_path, steps=None, minutes=0.005))
    trainer.run()
    assert task.progress >= 1
    again = Line()
    Trainer(again, config(tmp_path, steps=None, minutes=0.005)).run()
    assert again.seen == []


def test_averaged_weights_follow_and_are_put_back(tmp_path: Path) -> None:
    task = Line()
    trainer = Trainer(task, config(tmp_path, ema=0.9))
    trainer.run()
    trained = weights(task)
    assert not same(trained, trainer.average.tensors)
    with trainer.averaged_weights():
        averaged = weights(task)
    assert same(weights(task), trained)
    assert same(averaged, trainer.average.tensors)


def test_the_schedule_is_a_trapezoid(tmp_path: Path) -> None:
    settings = config(tmp_path, steps=100, warmup_steps=10, decay=0.4)
    assert lr_scale(0, 0.0, settings) == pytest.approx(0.1)
    assert lr_scale(9, 0.09, settings) == lr_scale(60, 0.6, settings) == 1
    assert lr_scale(80, 0.8, settings) == pytest.approx(0.5)
    assert lr_scale(100, 1.0, settings) == 0


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match="cannot write to"):
        Trainer(Line(), config(tmp_path / "file/run")).run()


def test_a_task_turns_recomputing_on_where_its_model_can(tmp_path: Path) -> None:
    task = Line()
    task.model = nn.ModuleDict({"world": WorldModel(presets.tiny().world)})
    Trainer(task, config(tmp_path, remat=True))
    assert task.model["world"].remat
    with pytest.raises(TrainError, match="leave --remat out"):
        Trainer(Line(), config(tmp_path, remat=True))


class Exported(Line):
    """Notes what is exported after each checkpoint.  full: the disk is."""

    full = False

    def __init__(self) -> None:
        super().__init__()
        self.so_far: list[tuple[int, bool, list[Tensor]]] = []

    def export_so_far(self, folder: Path, summary: dict[str, Any]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.so_far.append((summary["steps"], self.model.training, weights(self)))


def test_the_model_so_far_is_exported_with_each_checkpoint(tmp_path: Path) -> None:
    task, told = Exported(), []
    trainer = Trainer(
        task, config(tmp_path, steps=3, checkpoint_minutes=0.0), lambda progress: told.append(progress.step)
    )
    trainer.run()
    assert [step for step, *_ in task.so_far] == told == [1, 2, 3]
    assert not any(training for _, training, _ in task.so_far)
    assert same(task.so_far[-1][2], trainer.average.tensors)
    assert not same(task.so_far[-1][2], weights(task))
    task = Exported()
    task.full = True
    with pytest.raises(TrainError, match=r"cannot write the model to .*No space left .*its checkpoint is kept: free"):
        Trainer(task, config(tmp_path / "full", steps=3, checkpoint_minutes=0.0)).run()
    assert Checkpoints(tmp_path / "full").latest() is not None
