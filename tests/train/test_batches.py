"""Batches of any nesting move to a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from reverie.train.batches import move, pinned, tensors_of


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
