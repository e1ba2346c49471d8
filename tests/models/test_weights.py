from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reverie.errors import CheckpointError
from reverie.models import weights
from reverie.models.weights import TensorFile, files_of, fill, write_tensors

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


LAYERS = {f"layer.{i}": torch.full((10,), float(i)) for i in range(7)}  # 40 bytes each


def sharded(folder: Path, shard_bytes: int = 80) -> Path:
    write_tensors(folder / "x.safetensors", LAYERS, shard_bytes)
    return folder / "x.safetensors"


def test_shards_join_to_the_same_weights(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    names = [f"x-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert sorted(file.name for file in tmp_path.iterdir()) == [*names, "x.safetensors.index.json"]
    assert [file.name for file in files_of(path)] == ["x.safetensors.index.json", *names]
    index = json.loads((tmp_path / "x.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 280
    assert index["weight_map"]["layer.6"] == names[3]
    file = TensorFile(path)
    assert file.shapes == dict.fromkeys(LAYERS, (10,))
    assert {name: tensor.clone() for name, tensor in file}.keys() == LAYERS.keys()
    for name, tensor in LAYERS.items():
        assert torch.equal(file.read(name), tensor)


def test_shards_as_others_write_them(tmp_path: Path) -> None:
    """Without our mark of a save, as huggingface_hub writes an index."""
    save_file({"a": torch.ones(2)}, tmp_path / "x-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "x-00002-of-00002.safetensors")
    places = {"a": "x-00001-of-00002.safetensors", "b": "x-00002-of-00002.safetensors"}
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert dict(TensorFile(tmp_path / "x.safetensors").shapes) == {"a": (2,), "b": (3,)}


@pytest.mark.parametrize("sizes", [(80, 120), (80, None), (None, 80), (80, 80)])
def test_what_a_save_replaces_goes(tmp_path: Path, sizes: tuple[int | None, int | None]) -> None:
    for size in sizes:
        files = write_tensors(tmp_path / "x.safetensors", LAYERS, size)
    assert set(tmp_path.iterdir()) == set(files)
    assert len(TensorFile(tmp_path / "x.safetensors").shapes) == len(LAYERS)


def test_a_tensor_larger_than_a_shard_has_one_alone(tmp_path: Path) -> None:
    assert len(write_tensors(tmp_path / "x.safetensors", LAYERS, 1)) == 8
    with pytest.raises(CheckpointError, match="at least 1 byte, got 0"):
        write_tensors(tmp_path / "x.safetensors", LAYERS, 0)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def swap(folder: Path) -> None:
    """A shard of another save, of the same shapes."""
    other = folder / "other"
    other.mkdir()
    sharded(other)
    (other / "x-00002-of-00004.safetensors").replace(folder / "x-00002-of-00004.safetensors")


def edit(folder: Path, change) -> None:
    path = folder / "x.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda f: (f / "x-00002-of-00004.safetensors").unlink(), "x-00002-of-00004.safetensors is missing, one of 4"),
        (lambda f: cut(f / "x-00003-of-00004.safetensors"), "x-00003-of-00004.safetensors is not a readable"),
        (swap, "x-00002-of-00004.safetensors is of another save than x.safetensors.index.json"),
        (lambda f: edit(f, lambda i: i["weight_map"].pop("layer.3")), "is with layer.3, other than"),
        (lambda f: edit(f, lambda i: i["metadata"].update(total_size=1)), "hold 280 bytes of weights, it says 1;"),
        (lambda f: edit(f, lambda i: i["weight_map"].update(a="../../etc/x")), "names '../../etc/x', which is not"),
        (lambda f: edit(f, lambda i: i.clear()), "is not a readable index of shards"),
        (lambda f: (f / "x.safetensors.index.json").write_text("{"), "is not a readable index of shards"),
    ],
)
def test_damaged_shards(tmp_path: Path, damage, complaint: str) -> None:
    path = sharded(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=re.escape(complaint)) as error:
        TensorFile(path)
    assert "\n" not in str(error.value)
