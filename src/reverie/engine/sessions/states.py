"""Typed states (dataclasses of tensors, numbers, lists and other states) <-> flat tables by name.

world.caches.0.k, world.caches.0.step, world.turn, decoder.carries.3, ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from reverie.errors import CheckpointError


def flatten(state: Any) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors (views of `state`) and the whole numbers of a state, by name."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, int] = {}
    for name, _, value in _leaves(state, ""):
        if isinstance(value, Tensor):
            tensors[name] = value
        else:
            numbers[name] = value
    return tensors, numbers


def fill(state: Any, tensors: Mapping[str, Tensor], numbers: Mapping[str, int]) -> None:
    """Put flat tables back into a state of the same shape, in place, allocating nothing.

    Extra names are ignored.  Raises CheckpointError, with nothing changed, where one is missing or has another shape.
    """
    leaves = list(_leaves(state, ""))
    for name, _, value in leaves:
        known = tensors.get(name) if isinstance(value, Tensor) else numbers.get(name)
        if known is None:
            raise CheckpointError(f"the saved state has no {name}; it was made by another model or version")
        if isinstance(value, Tensor) and isinstance(known, Tensor) and value.shape != known.shape:
            raise CheckpointError(f"the saved state's {name} has shape {tuple(known.shape)}, not {tuple(value.shape)}")
        if isinstance(value, Tensor) and isinstance(known, Tensor) and value.dtype != known.dtype:
            raise CheckpointError(f"the saved state's {name} is of {known.dtype}, not {value.dtype}")
    for name, owner, value in leaves:
        if isinstance(value, Tensor):
            value.copy_(tensors[name])
        else:
            setattr(owner, name.rpartition(".")[2], numbers[name])


def num_bytes(state: Any) -> int:
    """Memory that a state's tensors take."""
    return sum(tensor.nbytes for tensor in flatten(state)[0].values())


def _leaves(value: Any, name: str, owner: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """(name, owner, value) of every tensor and number below `value`; numbers only as fields of a dataclass."""
    if isinstance(value, Tensor):
        yield name, owner, value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), _join(name, field.name), value)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, _join(name, str(index)), None)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, _join(name, key), None)
    elif isinstance(value, int) and owner is not None:
        yield name, owner, value
    elif value is not None:  # a part that this model's state does not have
        raise TypeError(f"a state is made of tensors, whole numbers, lists and dataclasses; {name} is {type(value)}")


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
