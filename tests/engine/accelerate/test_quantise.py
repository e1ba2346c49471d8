from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from reverie import cli
from reverie.engine.accelerate import quantise
from reverie.engine.engine import Engine, load
from reverie.engine.loading.memory_estimate import needed
from reverie.engine.loading.presets import PRESETS
from reverie.engine.loading.random_weights import matrix_game_2
from reverie.errors import DeviceError
from reverie.types import Action

CPU = torch.device("cpu")


@pytest.fixture
def fresh(monkeypatch, model_folder) -> Engine:
    monkeypatch.setattr(quantise, "MIN_WIDTH", 16)  # the tests' model is narrow
    return load(model_folder, device="cpu", dtype="float32")


def test_int8_is_near_and_small(fresh, picture) -> None:
    session = fresh.open(picture)
    expected = [session.step(Action()) for _ in range(3)]
    name = fresh.fingerprint
    quality = fresh.quantise("int8")
    assert 0 < quality.error < 0.03
    assert quality.bytes_after < 0.7 * quality.bytes_before
    assert quality.layers > 5
    assert f"{quality.error:.2%}" in str(quality)
    assert fresh.fingerprint != name
    assert "int8" in fresh.fingerprint
    session = fresh.open(picture)
    for frames in expected:
        assert np.abs(session.step(Action()).astype(int) - frames).mean() < 8


def test_what_tells_of_time_and_actions_keeps_its_weights(fresh) -> None:
    kept = {name: tensor.clone() for name, tensor in fresh.bundle.model.state_dict().items() if "blocks." not in name}
    fresh.quantise("int8")
    for name, tensor in kept.items():
        assert torch.equal(fresh.bundle.model.state_dict()[name], tensor), name


def test_the_gate(fresh, monkeypatch) -> None:
    strict = dataclasses.replace(quantise.KINDS["int8"], limit=1e-6)
    monkeypatch.setitem(quantise.KINDS, "int8", strict)
    with pytest.raises(DeviceError, match=r"refused: int8 weights: .*the velocity changes by .*load the model without"):
        fresh.quantise("int8")


def test_the_gate_is_blind_to_nothing() -> None:
    one = torch.ones(4, 5)
    assert quantise.relative_error(one, one) == 0
    assert quantise.relative_error(2 * one, one) == pytest.approx(1)
    assert not quantise.relative_error(torch.full_like(one, torch.nan), one) <= 1


def test_other_floats_take_the_same_road(fresh, monkeypatch, picture) -> None:
    """fp8 activations need a GPU; weights alone show that any of torchao's tensors plays."""
    weights_only = quantise.Kind(lambda ao: ao.Float8WeightOnlyConfig(), 8, 0.2)
    monkeypatch.setitem(quantise.KINDS, "fp8w", weights_only)
    quality = fresh.quantise("fp8w")
    assert 0.001 < quality.error < 0.2
    assert fresh.open(picture).step(Action()).shape == (4, 32, 64, 3)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("int2", "there are no int2 weights; expected full, int8, int4, fp8"),
        ("fp8", "fp8 needs an NVIDIA GPU of compute capability 8.9 or later"),
        ("int4", "int4 needs an NVIDIA GPU; use int8"),
    ],
)
def test_what_cannot_be_done(kind: str, complaint: str, model_folder, capsys) -> None:
    with pytest.raises(DeviceError, match=complaint):
        quantise.check(kind, CPU)
    assert cli.main(["bench", "--model", str(model_folder), "--weights", kind, "--seconds", "1"]) == 2
    assert complaint in capsys.readouterr().err


def test_torchao_is_asked_for(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    with pytest.raises(DeviceError, match=r'pip install "reverie-world\[quantise\]"'):
        quantise.check("int8", CPU)


def test_the_budget_knows() -> None:
    config = matrix_game_2("universal")
    small = PRESETS["8gb"]
    full = dataclasses.replace(small, weights="full")
    less, more = (needed(config, s, torch.bfloat16, "cuda") for s in (small, full))
    assert less.weights + less.loading == more.weights
    assert 0.4 < less.loading / more.weights < 0.5
    assert less.total < more.total
    assert less.total < 8e9
