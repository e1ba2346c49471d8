"""Forward passes on a device that is not the CPU: nothing is left behind or made elsewhere.

Where torch was built with CUDA, by tensors that say they are on a GPU (no GPU is needed), under a GPU's autocast; else
by tensors without memory (`meta`).  Nothing is computed, and backward passes cannot be had.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from reverie.bench.train_step_worker import StepTask
from reverie.models import tokenizer
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.batches import move

HAS_CUDA = torch.backends.cuda.is_built()
THERE = torch.device("cuda", 0) if HAS_CUDA else torch.device("meta")


@contextlib.contextmanager
def moved(*modules: nn.Module) -> Iterator[None]:
    """Modules moved there."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    mode = FakeTensorMode(allow_non_fake_inputs=True) if HAS_CUDA else contextlib.nullcontext()
    try:
        with mode, torch.no_grad():
            for module in modules:
                module.to(THERE)
            torch.set_autocast_enabled("cuda", HAS_CUDA)
            torch.set_autocast_dtype("cuda", torch.bfloat16)
            yield
    finally:
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", dtype)
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def is_there(tensor: Tensor) -> bool:
    return tensor.device == THERE


@pytest.mark.parametrize("size", ["tiny", "nano"])
@pytest.mark.parametrize("copies", [1, 2])
def test_teacher_forcing(size: str, copies: int) -> None:
    task = StepTask(size, 2, 4, copies)
    batch = task.batch(np.random.default_rng(0))
    with moved(task.model):
        loss, scalars = task.loss(move(batch, THERE), None)  # type: ignore[arg-type]
        assert is_there(loss)
        assert loss.dtype == torch.float32
        assert all(is_there(value) for value in scalars.values())


def test_what_is_left_behind_is_found() -> None:
    """The test can fail."""
    task = StepTask("tiny", 2, 4, 1)
    z, rows, picture = task.batch(np.random.default_rng(0))
    with moved(task.model), pytest.raises(RuntimeError, match=r"(same|Unhandled FakeTensor) device|meta"):
        task.loss((move(z, THERE), rows, move(picture, THERE)), None)  # type: ignore[arg-type]


def test_the_tokenizer_whole_and_as_a_stream() -> None:
    network = VideoTokenizer(tokenizer.nano())
    with moved(network):
        z = network.encode(torch.zeros(2, 9, 3, 64, 112, device=THERE))
        assert is_there(network.decode(z))
        states = network.new_encoder_state(1, 64, 112, THERE), network.new_decoder_state(1, 64, 112, THERE)
        for frames in (1, 4):
            z = network.encode(torch.zeros(1, frames, 3, 64, 112, device=THERE), states[0])
            assert is_there(network.decode(z, states[1]))
