"""Muon for matrices and kernels, AdamW for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.line_task import config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reverie.train import optimizers
from reverie.train.optimizers import as_matrix, build_optimizers


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


def test_a_kernel_as_a_matrix_is_a_view_in_channels_last() -> None:
    kernel = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    assert as_matrix(kernel).shape == (4, 27)
    assert as_matrix(kernel).data_ptr() == kernel.data_ptr()
