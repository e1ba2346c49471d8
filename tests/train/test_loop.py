"""The training loop: schedule, resuming, refusals, averaging."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reverie.cli import use_malloc_hints
from reverie.errors import DeviceError, TrainError
from reverie.models import presets
from reverie.models.dit import WorldModel
from reverie.nn.attention import Visibility, attend_steps
from reverie.train import checkpoints, optimizers
from reverie.train.batches import move, pinned, tensors_of
from reverie.train.checkpoints import Checkpoints, FolderLock
from reverie.train.config import TrainerConfig
from reverie.train.device import matrix_precision, pick_device, pick_dtype
from reverie.train.forcing import Past, clean_estimates
from reverie.train.optimizers import as_matrix, build_optimizers
from reverie.train.task import Task
from reverie.train.throughput import FlopCount, Work, peak_flops
from reverie.train.trainer import Trainer, lr_scale


class Line(Task):
    """Learns y = 2x with a network that has matrices, kernels, biases and dropout.  `broken` steps give NaN."""

    def __init__(self, broken: frozenset[int] = frozenset(), huge: frozenset[int] = frozenset(), pause_s: float = 0.0):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(0.1), nn.Flatten(), nn.Linear(32, 4))
        self.model.to(memory_format=torch.channels_last)
        self.broken, self.huge, self.pause_s, self.calls = broken, huge, pause_s, 0
        self.seen: list[float] = []
        self.validated: list[bool] = []
        self.exported: dict[str, Any] = {}

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"x": torch.from_numpy(rng.normal(size=(4, 1, 2, 2)).astype(np.float32))}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        x = batch["x"] + 0.01 * torch.randn(4, 1, 2, 2, generator=generator)
        loss = (self.model(x) - 2 * x.flatten(1)).square().mean()
        self.seen.append(loss.item())
        time.sleep(self.pause_s)
        self.calls += 1
        if self.calls - 1 in self.broken:
            loss = loss * float("nan")
        if self.calls - 1 in self.huge:
            loss = loss * 1e6
        return loss, {"half": loss / 2, "constant": 1.0}

    def validate(self) -> dict[str, float]:
        self.validated.append(self.model.training or torch.is_grad_enabled())
        return {"weight": self.model[3].weight.abs().mean().item()}

    def sample(self, folder: Path, step: int) -> None:
        (folder / f"{step}.txt").write_text("picture")

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        self.exported = summary


def config(folder: Path, **changes: Any) -> TrainerConfig:
    base = TrainerConfig(folder=folder, steps=30, lr=3e-3, warmup_steps=3, device="cpu", log_steps=5, track="none")
    return replace(base, **changes)


def weights(task: Task) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in task.model.parameters()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


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


CHILD = """
import sys
from pathlib import Path
from test_loop import Line, config
from reverie.train.trainer import Trainer
Trainer(Line(pause_s=0.02), config(Path(sys.argv[1]), steps=60, muon=True, checkpoint_minutes=0.002)).run()
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
    settings = {"steps": 60, "muon": True}
    whole = Line()
    unbroken = Trainer(whole, config(tmp_path / "whole", **settings))
    unbroken.run()
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
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


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        FolderLock(tmp_path),
        pytest.raises(TrainError, match=f"is being trained already by process {os.getpid()}"),
    ):
        Trainer(Line(), config(tmp_path)).run()
    Trainer(Line(), config(tmp_path, steps=1)).run()


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


def test_muon_gets_matrices_and_updates_kernels_of_any_layout(tmp_path: Path) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)).to(memory_format=layout)
        adamw, muon = build_optimizers(model, config(tmp_path, muon=True))
        assert [p.ndim for group in adamw.param_groups for p in group["params"]] == [1, 1]
        before = [p.detach().clone() for p in model.parameters()]
        model(torch.ones(2, 3, 3, 3)).square().sum().backward()
        muon.step()
        changed = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
        assert changed == [True, False, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_muon_by_shape_is_muon_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(optimizers, "iteration_dtype", lambda device: dtype)
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self.to(dtype))  # torch's own iterates in that alone
    torch.manual_seed(0)
    shapes = [(8, 16), (16, 8), (8, 16), (5, 3, 3, 3), (4,)]
    ours = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)
    ours[3].data = ours[3].data.to(memory_format=torch.channels_last)
    theirs = [nn.Parameter(as_matrix(p.detach()).clone()) for p in ours if p.ndim > 1]
    _, muon = build_optimizers(ours, config(tmp_path, muon=True, lr=0.01, weight_decay=0.1))
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for mine, other in zip(ours, theirs, strict=False):
            mine.grad = torch.randn_like(mine)
            other.grad = as_matrix(mine.grad).clone()
        ours[0].grad = None if step == 2 else ours[0].grad
        theirs[0].grad = None if step == 2 else theirs[0].grad
        muon.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=False):
        torch.testing.assert_close(as_matrix(mine.detach()), other.detach())
    other = build_optimizers(ours, config(tmp_path, muon=True, lr=0.5))[1]
    other.load_state_dict(reference.state_dict())  # a checkpoint of before
    assert torch.equal(other.state[ours[1]]["momentum_buffer"], muon.state[ours[1]]["momentum_buffer"])
    assert other.param_groups[0]["lr"] == 0.5
    with pytest.raises(ValueError, match="the saved Muon has 4 matrices, this one 1"):
        build_optimizers(nn.Linear(2, 2), config(tmp_path, muon=True))[1].load_state_dict(muon.state_dict())


def test_muon_iterates_in_what_the_device_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_bf16, expected in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has_bf16: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        optimizers.iteration_dtype.cache_clear()
        assert optimizers.iteration_dtype(torch.device("cpu")) == expected
        assert optimizers.orthogonal(torch.randn(1, 4, 6)).dtype == expected
    assert optimizers.iteration_dtype(torch.device("cuda")) == torch.bfloat16
    optimizers.iteration_dtype.cache_clear()


def test_muon_takes_few_launches(tmp_path: Path) -> None:
    """A number of them for each shape, not for each matrix."""

    def calls(num: int) -> int:
        model = nn.ParameterList(nn.Parameter(torch.randn(8, 16)) for _ in range(num))
        (muon,) = build_optimizers(model, config(tmp_path, muon=True))
        for p in model:
            p.grad = torch.randn_like(p)
        muon.step()
        with Calls() as count:
            muon.step()
        return count.num

    assert calls(40) - calls(4) < 36 * 5  # views of each; one by one it would be 20 products and more for each
    assert calls(40) < 40 * 5 + 60


class Calls(TorchDispatchMode):
    """Counts operations."""

    num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += 1
        return func(*args, **(kwargs or {}))


def test_the_number_type_is_the_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert pick_dtype("auto", cuda) == torch.bfloat16
    assert pick_dtype("auto", cpu) == torch.float32
    assert (pick_dtype("float32", cuda), pick_dtype("bfloat16", cpu)) == (torch.float32, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert pick_dtype("auto", cuda) == torch.float32
    with pytest.raises(DeviceError, match="cannot train in 'float16'; expected auto, float32 or bfloat16"):
        pick_dtype("float16", cpu)
    assert Trainer(Line(), config(tmp_path, dtype="bfloat16")).dtype == torch.bfloat16


def test_matrix_precision_is_the_devices_and_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    with matrix_precision(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with matrix_precision(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before


def test_a_kernel_as_a_matrix_is_a_view_in_channels_last() -> None:
    kernel = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    assert as_matrix(kernel).shape == (4, 27)
    assert as_matrix(kernel).data_ptr() == kernel.data_ptr()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "above zero"),
        ({"accumulate": 0}, "at least 1"),
        ({"ema": 1.0}, "0 <= ema < 1"),
        ({"lr": 0.0}, "lr > 0"),
    ],
)
def test_odd_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        config(tmp_path, **changes)


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="unknown device 'abacus'"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no usable NVIDIA GPU"):
            pick_device("cuda")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match="cannot write to"):
        Trainer(Line(), config(tmp_path / "file/run")).run()


def test_batches_move_in_any_nesting() -> None:
    moved = move({"a": [torch.ones(1), "text"], "b": (torch.ones(2),)}, torch.device("meta"))
    assert moved["a"][0].is_meta
    assert moved["a"][1] == "text"
    assert moved["b"][0].is_meta


@dataclass(frozen=True)
class Parts:
    x: Tensor
    name: str = "a"


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


def test_batches_of_dataclasses_and_named_tuples_move(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [Parts(torch.ones(1)), Pair(torch.ones(2), torch.ones(3))]
    moved = move(batch, torch.device("meta"))
    assert moved[0].x.is_meta
    assert moved[0].name == "a"
    assert isinstance(moved[1], Pair)
    assert [tensor.shape[0] for tensor in tensors_of(batch)] == [1, 2, 3]
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self + 1)
    assert [tensor[0].item() for tensor in tensors_of(pinned(batch))] == [2, 2, 2]


def test_malloc_hints_start_the_command_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, argv, environment: started.append(environment))
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    use_malloc_hints("cpu")
    assert started[0]["MALLOC_TOP_PAD_"] == "268435456"
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    use_malloc_hints("cpu")
    assert len(started) == 1


def tiny_world(remat: bool = False) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A world with weights that all matter, and a teacher-forced loss of it, the same every time."""
    config = presets.tiny().world
    torch.manual_seed(0)
    world = WorldModel(config)
    for parameter in world.parameters():
        nn.init.normal_(parameter, std=0.1)
    world.remat = remat
    z, noisy = torch.randn(2, 4, *config.latent), torch.randn(2, 3, *config.latent)
    image = torch.randn(2, config.image.tokens, config.image.dim)
    rows = torch.ones(2, 12, config.action_space.size)
    given = (Past(z, z, torch.zeros(2, 4)), noisy, torch.full((2, 3), 0.7), rows, image)
    return world, lambda: clean_estimates(world, *given).square().mean()


def test_activations_worked_out_again_give_the_same_gradients_from_less_memory() -> None:
    losses, gradients, kept = [], [], []
    for remat in (False, True):
        world, loss_of = tiny_world(remat)
        saved: list[int] = []

        def pack(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_of()
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad for p in world.parameters() if p.grad is not None])
        kept.append(sum(saved))
    assert losses[0] == losses[1]
    for once, again in zip(*gradients, strict=True):
        torch.testing.assert_close(once, again)
    assert kept[1] < 0.3 * kept[0]


def test_a_task_turns_recomputing_on_where_its_model_can(tmp_path: Path) -> None:
    task = Line()
    task.model = nn.ModuleDict({"world": WorldModel(presets.tiny().world)})
    Trainer(task, config(tmp_path, remat=True))
    assert task.model["world"].remat
    with pytest.raises(TrainError, match="leave --remat out"):
        Trainer(Line(), config(tmp_path, remat=True))


def test_arithmetic_is_counted_forward_and_backward() -> None:
    """Also that of our own attention, whose backward is written by hand."""
    x = torch.randn(2, 3, requires_grad=True)
    with FlopCount() as count:
        nn.Linear(3, 4)(x).sum().backward()
    assert count.flops == 3 * 2 * (2 * 3 * 4)

    steps, tokens, d = 3, 16, 8
    q, k, v = (torch.randn(1, 2, steps * tokens, d, requires_grad=True) for _ in range(3))
    pairs = tokens**2 * (1 + 2 + 2)  # of a window of two steps
    with FlopCount() as own:
        attend_steps(q, k, v, Visibility.windowed(steps, 2, 1)).sum().backward()
    assert own.flops == 6 * 2 * (2 * pairs * d)  # two products forward, four backward
    with FlopCount() as fused:
        torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    assert fused.flops == 7 * 2 * (2 * (steps * tokens) ** 2 * d)  # one is made again


def test_masked_attention_counts_as_what_is_seen() -> None:
    """However it is done: one token a step goes under a mask, sixteen go step by step."""
    visibility, d = Visibility.teacher_forced(6, 3, copies=2), 8
    seen = sum(stop - start for ranges in visibility.ranges for start, stop in ranges)
    for tokens, products in ((1, 7), (16, 6)):
        q, k, v = (torch.randn(1, 2, len(visibility) * tokens, d, requires_grad=True) for _ in range(3))
        with FlopCount() as count:
            attend_steps(q, k, v, visibility).sum().backward()
        assert count.flops == pytest.approx(products * 2 * 2 * seen * tokens**2 * d)


def test_a_world_costs_what_its_layers_say() -> None:
    world, loss_of = tiny_world()
    with FlopCount() as count:
        loss_of().backward()
    config = presets.tiny().world
    matrices = sum(p.numel() for p in world.blocks.parameters() if p.ndim == 2)  # type: ignore[union-attr]
    tokens = 2 * 6 * config.tokens_per_step
    assert 0.5 < count.flops / (6 * tokens * matrices) < 2


def test_rates_are_of_what_is_known() -> None:
    done = Work(tokens=100, flops=2e12, seconds=1) + Work(tokens=100, flops=2e12, seconds=1)
    assert done.rates(peak=4e12) == {"tokens_per_s": 100, "tflops": 2, "mfu": 0.5}
    assert Work(flops=float("nan"), seconds=1).rates(peak=float("nan")) == {}
    assert peak_flops(torch.device("cpu"), torch.float32) > 1e8
