"""Checkpoints of a training: killed and resumed, damaged, of another model, on a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.line_task import Line, config, same, weights
from torch import nn

from reverie.errors import TrainError
from reverie.train import checkpoints
from reverie.train.checkpoints import Checkpoints, FolderLock
from reverie.train.trainer import Trainer

CHILD = """
import sys
from pathlib import Path
from tests.helpers.line_task import Line, config
from reverie.train.trainer import Trainer
options = {"steps": 60, "muon": True, "checkpoint_minutes": 0.002, "dtype": "float32"}
Trainer(Line(pause_s=0.02), config(Path(sys.argv[1]), **options)).run()
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bit for bit holds for one number of threads: sums are split among them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_killed_and_resumed_is_never_killed_bit_for_bit(tmp_path: Path) -> None:
    settings = {"steps": 60, "muon": True, "dtype": "float32"}
    whole = Line()
    unbroken = Trainer(whole, config(tmp_path / "whole", **settings))
    unbroken.run()
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "killed")], env=environment)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed/checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (tmp_path / "killed/checkpoints/.step-000000099.partial").mkdir()
    resumed = Line()
    trainer = Trainer(resumed, config(tmp_path / "killed", **settings))
    trainer.run()
    assert 0 < len(resumed.seen) < 60
    assert resumed.seen == whole.seen[-len(resumed.seen) :]
    assert same(weights(resumed), weights(whole))
    assert same(trainer.average.tensors, unbroken.average.tensors)
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed/log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        FolderLock(tmp_path),
        pytest.raises(TrainError, match=f"is being trained already by process {os.getpid()}"),
    ):
        Trainer(Line(), config(tmp_path)).run()
    Trainer(Line(), config(tmp_path, steps=1)).run()


def test_another_model_in_the_folder_is_refused(tmp_path: Path) -> None:
    Trainer(Line(), config(tmp_path, steps=1)).run()
    other = Line()
    other.model = nn.Linear(2, 2)
    with pytest.raises(TrainError, match="of another model or optimizer"):
        Trainer(other, config(tmp_path)).run()
    with pytest.raises(TrainError, match="holds a training"):
        Trainer(Line(), config(tmp_path, resume=False)).run()


def test_data_that_shrank_is_refused_and_more_is_welcome(tmp_path: Path) -> None:
    class Measured(Line):
        size = 100

        def data_size(self) -> int:
            return self.size

    Trainer(Measured(), config(tmp_path, steps=1)).run()
    less, more = Measured(), Measured()
    less.size, more.size = 99, 101
    with pytest.raises(
        TrainError, match=r"shrunk to 99 since step-000000001, which was trained on 100; bring the rest"
    ):
        Trainer(less, config(tmp_path, steps=2)).run()
    Trainer(more, config(tmp_path, steps=2)).run()


def test_a_disk_without_room_is_named_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    Trainer(Line(), config(tmp_path, steps=1)).run()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(TrainError, match=r"cannot write the checkpoint .*step-000000002: .*; free some space"):
            Trainer(Line(), config(tmp_path, steps=2, decay=0.0)).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    latest = Checkpoints(tmp_path).latest()
    assert latest is not None
    assert latest.name == "step-000000001"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizers.pt", "progress.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    Trainer(Line(), config(tmp_path, steps=1)).run()
    (tmp_path / "checkpoints/step-000000001" / name).write_bytes(b"\x00broken")
    with pytest.raises(TrainError, match=r"step-000000001 is damaged .* delete it"):
        Trainer(Line(), config(tmp_path)).run()


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    Trainer(Line(), config(tmp_path, steps=9, checkpoint_minutes=0.0)).run()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000000008", "step-000000009"]


@pytest.mark.parametrize("function", ["load_file", "save_file"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: gone")])
def test_a_gpu_that_fails_at_a_checkpoint_does_not_blame_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: RuntimeError
) -> None:
    """Nobody is told to delete a sound checkpoint, or that the disk is full."""
    Trainer(Line(), config(tmp_path, steps=2)).run()

    def failing(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, function, failing)
        with pytest.raises(TrainError, match=r"the GPU failed in training \(CUDA .*run the same command to go on"):
            Trainer(Line(), config(tmp_path, steps=4)).run()
    task = Line()
    Trainer(task, config(tmp_path, steps=4)).run()
    assert task.calls == 2
