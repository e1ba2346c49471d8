from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reverie.errors import CheckpointError
from reverie.models import weights
from reverie.models.weights import TensorFile, fill

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(4, dtype=torch.bfloat16)}


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def write(path: Path) -> Path:
    torch.save(TENSORS, path) if path.suffix == ".pth" else save_file(TENSORS, path)
    return path


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_file_is_read_piece_by_piece(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "PIECE_BYTES", 1)
    file = TensorFile(write(tmp_path / name))
    assert file.shapes == {"b": (2, 3), "a": (4,)}
    for stored, tensor in file:
        assert torch.equal(tensor, TENSORS[stored])
    assert torch.equal(file.read("b"), TENSORS["b"])


def test_the_old_format_of_torch(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(TensorFile(tmp_path / "x.pth").read("b"), TENSORS["b"])


@pytest.mark.parametrize(
    "content", [Evil(), {"a": Evil()}, {"a": 3}, [torch.zeros(1)], {"state": TENSORS}, {3: TENSORS["a"]}]
)
def test_a_pth_with_more_than_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="more than tensors") as caught:
        TensorFile(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 100, -3])
def test_a_file_that_was_cut_off(name: str, keep: int, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cut off") as caught:
        TensorFile(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing; try harder"):
        TensorFile(tmp_path / "x.pth", "try harder")


def test_stacked_tensors_and_types(tmp_path: Path) -> None:
    stored = {"q": torch.full((2, 3), 1.0), "k": torch.full((2, 3), 2.0), "m": torch.zeros(1, 4, 1), "n": torch.ones(5)}
    save_file(stored, tmp_path / "x.safetensors")
    with torch.device("meta"):
        module = nn.Linear(3, 4)
    names = {"weight": ("q", "k"), "bias": ("m",)}
    fill(module, TensorFile(tmp_path / "x.safetensors"), names=names.__getitem__, ignore="^n$", dtype=torch.bfloat16)
    assert torch.equal(module.weight, torch.tensor([[1.0] * 3] * 2 + [[2.0] * 3] * 2).bfloat16())
    assert module.bias.shape == (4,)
    real = nn.Linear(3, 4)
    weight = real.weight
    fill(real, TensorFile(tmp_path / "x.safetensors"), names=names.__getitem__, ignore="^n$")
    assert real.weight is weight
    assert weight[3, 0] == 2


def test_every_misfit_is_named_at_once(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3, 4), "wings": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError) as caught:
        fill(nn.Linear(3, 4), TensorFile(tmp_path / "x.safetensors"))
    for said in ("1 missing (bias)", "1 unknown (wings)", "1 misshaped (weight [3, 4], not [4, 3])"):
        assert said in str(caught.value)
