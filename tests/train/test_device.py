"""Devices of a training, and the numbers that it computes in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.helpers.line_task import Line, config

from reverie.errors import DeviceError
from reverie.train.device import matrix_precision, pick_device, pick_dtype
from reverie.train.trainer import Trainer


def test_the_number_type_is_the_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert pick_dtype("auto", cuda) == torch.bfloat16
    for has_amx, expected in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_amx=has_amx: has_amx)
        assert pick_dtype("auto", cpu) == expected
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


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="unknown device 'abacus'"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda was asked for"):
            pick_device("cuda")
