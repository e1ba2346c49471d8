"""A pretended GPU: tensors that are computed on the CPU and say that they are elsewhere.

Torch's fake tensors need a build with CUDA; this needs none, and backward passes and values are real.  What a GPU
refuses is refused: operations on tensors of both places, and reading a tensor there as an array.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
MARK = "_is_on_pretended_gpu"
DEVICE, IS_CUDA = Tensor.device.__get__, Tensor.is_cuda.__get__  # type: ignore[attr-defined]
HERE = (Tensor.numpy, Tensor.__array__, Tensor.cpu, Tensor.to, Tensor.copy_, Tensor.item, Tensor.tolist)
"""Functions that move tensors, or read them."""
INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
"""A tensor there may be indexed by one here, not the other way round."""


def is_there(tensor: Tensor) -> bool:
    return getattr(tensor, MARK, False)


def mark(found: Any, there: bool = True) -> Any:
    """Marks the tensors of a result."""
    for tensor in tensors_in(found):
        setattr(tensor, MARK, there)
    return found


def tensors_in(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors_in(value)


class PretendedGpu(TorchFunctionMode):
    """While it is entered, tensors that are made on or moved to `GPU` are marked, and places are compared."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        if func == DEVICE:
            return GPU if is_there(args[0]) else torch.device("cpu")
        if func == IS_CUDA:
            return is_there(args[0])
        if getattr(func, "__name__", "") in ("__get__", "__set__", "__delete__") and len(args) == 1:
            return mark(func(*args, **kwargs), is_there(args[0]))
        asked, args, kwargs = asked_device(args, kwargs)
        if func in HERE:
            return self._moved(func, asked, args, kwargs)
        inputs = list(tensors_in((args, kwargs)))
        if func in INDEXING and is_there(args[0]):
            inputs = [args[0], *tensors_in(args[2:])]
        there = any(map(is_there, inputs))
        if there and any(not is_there(x) and x.ndim for x in inputs):
            raise RuntimeError(f"tensors on two devices in {getattr(func, '__name__', func)}")
        generator = kwargs.get("generator")
        if generator is not None and (generator.device == GPU) != (there or asked == GPU):
            raise RuntimeError(f"a generator of another device in {getattr(func, '__name__', func)}")
        return mark(func(*args, **kwargs), asked == GPU if asked is not None else there)

    def _moved(self, func: Any, asked: torch.device | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = args[0]
        if func in (Tensor.numpy, Tensor.__array__) and is_there(first):
            raise TypeError("can't convert a tensor on a GPU to numpy; use .cpu() first")
        if func is Tensor.cpu:
            return mark(first.clone(), there=False)
        if func is Tensor.to:
            like = next((x for x in args[1:] if isinstance(x, Tensor)), None)
            there = asked == GPU if asked is not None else is_there(first if like is None else like)
            out = func(first.clone() if there != is_there(first) else first, *args[1:], **kwargs)
            return mark(out, there)
        out = func(*args, **kwargs)
        return mark(out, is_there(first)) if isinstance(out, Tensor) else out


def asked_device(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.device | None, tuple[Any, ...], dict[str, Any]]:
    """The device that a call names, and the call with the CPU in its place."""
    asked = None

    def replaced(value: Any) -> Any:
        nonlocal asked
        if isinstance(value, torch.device):
            asked = value
            return torch.device("cpu")
        return value

    args = tuple(map(replaced, args))
    kwargs = {name: replaced(value) for name, value in kwargs.items()}
    return asked, args, kwargs


class PretendedGenerator(torch.Generator):
    """A generator of the CPU that says where it was asked to be."""

    def __new__(cls, device: Any = "cpu") -> PretendedGenerator:
        return super().__new__(cls)

    def __init__(self, device: Any = "cpu") -> None:
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._device

    def manual_seed(self, seed: int) -> PretendedGenerator:
        super().manual_seed(seed)
        return self


def move_module(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
    """`nn.Module.to`: marks its tensors."""
    mark([*module.parameters(), *module.buffers()])
    return module


@contextlib.contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU to compute on; its autocast is the CPU's."""
    autocast = torch.autocast

    def on_cpu(device_type: str, dtype: torch.dtype = torch.bfloat16, enabled: bool = True) -> torch.autocast:
        return autocast("cpu", dtype, enabled)

    with monkeypatch.context() as patch, PretendedGpu():
        patch.setattr(torch, "Generator", PretendedGenerator)
        patch.setattr(torch, "autocast", on_cpu)
        patch.setattr(nn.Module, "to", move_module)
        yield GPU
