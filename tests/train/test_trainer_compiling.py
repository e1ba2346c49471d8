"""Training compiles its pieces once, and nothing besides."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.training_tasks import TASKS

from reverie.bench.train_step_worker import StepTask
from reverie.models import compiled_blocks, tokenizer
from reverie.models.compiled_blocks import TRAINING_PIECES, compile_pieces, num_compiled, restore_pieces
from reverie.models.tokenizer import VideoTokenizer
from reverie.nn import attention
from reverie.train import trainer as trainer_module
from reverie.train.config import TrainerConfig
from reverie.train.distill_decoder import DistillDecoderConfig
from reverie.train.distill_dmd import DistillDmdConfig
from reverie.train.distill_init import DistillInitConfig
from reverie.train.idm import TrainIdmConfig
from reverie.train.tokenizer import TrainTokenizerConfig
from reverie.train.trainer import Trainer
from reverie.train.world_options import TrainWorldConfig

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's doing


class Watched(StepTask):
    """Notes how many graphs there are before each step, and whether validation and samples make any."""

    def __init__(self) -> None:
        super().__init__("tiny", 2, 4, 1)
        self.graphs: list[int] = []
        self.flex: list[bool] = []
        self.made_outside = 0

    def loss(self, batch: Any, generator: torch.Generator) -> Any:
        self.graphs.append(num_compiled())
        self.flex.append(attention._is_flex_on)
        return super().loss(batch, generator)

    def validate(self) -> dict[str, float]:
        before = num_compiled()
        assert not attention._is_flex_on
        for clips in (1, 3):  # shapes of its own
            batch = StepTask("tiny", clips, 3, 1).batch(np.random.default_rng(0))
            loss, _ = StepTask.loss(self, batch, torch.Generator())
        self.made_outside += num_compiled() - before
        return {"loss": loss.item()}

    def sample(self, folder: Path, step: int) -> None:
        self.validate()


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(trainer_module, "check_compiler", lambda device: None)
    monkeypatch.setattr(trainer_module, "flex_works", lambda device: True)  # as on a GPU
    monkeypatch.setattr(trainer_module, "compile_pieces", partial(compile_pieces, backend="eager"))


def settings(folder: Path, **changes: Any) -> TrainerConfig:
    return TrainerConfig(
        folder=folder, steps=4, warmup_steps=1, device="cpu", track="none", validate_minutes=0.0, **changes
    )


@pytest.mark.usefixtures("cheap")
def test_training_compiles_once_and_validation_never(tmp_path: Path) -> None:
    task, plain = Watched(), Watched()
    compiled = Trainer(task, settings(tmp_path / "a", compile=True)).run()
    assert task.made_outside == 0
    assert task.graphs[:2] == [0, 0]  # the first step is counted, uncompiled
    assert task.graphs[2] > 5
    assert len(set(task.graphs[2:])) == 1  # and then nothing is compiled anew
    assert not torch._dynamo.utils.counters["frames"].get("recompile_limit", 0)
    assert task.flex == [False, True, True, True]
    eager = Trainer(plain, settings(tmp_path / "b")).run()
    assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-3)
    assert not attention._is_flex_on


def test_the_tokenizers_blocks_are_pieces_of_training_only() -> None:
    torch._dynamo.reset()
    network = VideoTokenizer(tokenizer.nano())
    z = torch.randn(1, 1, 16, 4, 4)
    expected = network.decode(z)
    assert compile_pieces(network, backend="eager") == 0
    assert compile_pieces(network, backend="eager", pieces=TRAINING_PIECES) > 5
    torch.testing.assert_close(network.decode(z), expected)
    restore_pieces(network)
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_a_task_without_pieces_compiles_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "check_compiler", lambda device: None)
    task = Watched()
    task.model = torch.nn.ModuleDict({"only": torch.nn.Linear(2, 2)})
    asked = []
    task.compile = lambda: asked.append(True)  # type: ignore[method-assign]
    Trainer(task, settings(tmp_path, compile=True))._compile()
    assert asked == [True]


def test_many_shapes_are_allowed() -> None:
    compile_pieces(torch.nn.Linear(2, 2), backend="eager")
    assert torch._dynamo.config.recompile_limit >= compiled_blocks.RECOMPILE_LIMIT >= 17


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("idm", "reward")])
def test_every_task_has_its_networks_compiled_once(name: str, tmp_path: Path) -> None:
    """Teachers and critics among them; the numbers stay."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    made = TASKS[name](tmp_path)
    batch = made.batch(np.random.default_rng(0))

    def gradients() -> list[torch.Tensor]:
        made.model.zero_grad()
        loss, _ = made.loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in made.model.parameters() if p.grad is not None)]

    expected = gradients()
    assert num_compiled() == 0
    assert compile_pieces(*made.networks(), backend="eager", pieces=TRAINING_PIECES) > 0
    torch.testing.assert_close(gradients(), expected, rtol=1e-4, atol=1e-5)
    compiled = num_compiled()
    assert compiled > 0
    gradients()
    assert num_compiled() == compiled
    assert not torch._dynamo.utils.counters["frames"].get("recompile_limit", 0)


def test_who_offers_compilation() -> None:
    kinds = (
        TrainTokenizerConfig,
        TrainWorldConfig,
        TrainIdmConfig,
        DistillInitConfig,
        DistillDmdConfig,
        DistillDecoderConfig,
    )
    for kind in kinds:
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        assert defaults["compile"] is False, kind
        assert defaults["dtype"] == "auto", kind
