"""Batches of a training: made ahead in threads, and moved to the device before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.train.config import TrainerConfig
from reverie.train.parallel import Ranks
from reverie.train.tables import Rows
from reverie.train.task import Task


class Batches:
    """Batches on the device, in order, made ahead in threads; each from its own random stream, so that order and
    resumes agree.  For a GPU they go through pinned memory, begun one batch ahead on a stream of their own: a step
    never waits for a copy."""

    def __init__(self, task: Task, config: TrainerConfig, step: int, ranks: Ranks, device: torch.device) -> None:
        self._task, self._config, self._ranks, self._device = task, config, ranks, device
        self._index = step * config.accumulate
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="batch")
        self._ahead: deque[Future[Any]] = deque()
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._moving: deque[tuple[Any, Any]] = deque()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> Any:
        if self._copies is None:
            return move(self._made(), self._device)
        while len(self._moving) < 2:
            self._moving.append(self._begin_move(self._made()))
        batch, done = self._moving.popleft()
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(done)
        for tensor in tensors_of(batch):
            tensor.record_stream(stream)
        return batch

    def _begin_move(self, batch: Any) -> tuple[Any, Any]:
        with torch.cuda.stream(self._copies):
            moved, done = move(batch, self._device), torch.cuda.Event()
            done.record(self._copies)
        return moved, done

    def _made(self) -> Any:
        while len(self._ahead) < 2 * self._config.workers:
            step, micro = divmod(self._index, self._config.accumulate)
            rng = np.random.default_rng((self._config.seed, step, self._ranks.index(micro), 0))
            self._ahead.append(self._pool.submit(self._make, rng))
            self._index += 1
        return self._ahead.popleft().result()

    def _make(self, rng: np.random.Generator) -> Any:
        batch = self._task.batch(rng)
        return batch if self._copies is None else pinned(batch)


def move(batch: Any, device: torch.device) -> Any:
    """The tensors of `batch`, in tuples, lists, dicts and dataclasses, on `device`, rows of tables as tensors; anything
    else as it is."""
    return _each(batch, lambda x: x.on(device) if isinstance(x, Rows) else x.to(device, non_blocking=True))


def pinned(batch: Any) -> Any:
    """The tensors of `batch` in memory that a GPU copies from by itself."""

    def pin(x: Tensor | Rows) -> Tensor | Rows:
        if isinstance(x, Rows):
            return replace(x, values=x.values.pin_memory())
        return x.pin_memory() if x.device.type == "cpu" else x

    return _each(batch, pin)


def tensors_of(batch: Any) -> list[Tensor]:
    """In order."""
    found: list[Tensor] = []
    _each(batch, lambda tensor: found.append(tensor) or tensor)
    return found


def _each(batch: Any, change: Callable[[Any], Any]) -> Any:
    """change: of tensors and rows."""
    if isinstance(batch, Tensor | Rows):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: _each(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_each(value, change) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_each(value, change) for value in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: _each(getattr(batch, f.name), change) for f in fields(batch) if f.init})
    return batch
