"""Tables of rows that batches are drawn from, near the network.

A GPU with room for a table holds it in its own number type: a batch names rows (`Rows`), and they are gathered there.
A table without room stays in its files: the threads that make batches read the rows in their own number type, and they
go through pinned memory, a batch ahead of the network (`reverie.train.batches`).  On a CPU rows are read at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GPU_SHARE = 0.25
"""Largest share of a GPU's free memory for the tables of a training."""

CHUNK_BYTES = 2**26
"""Copied to a GPU at once: of a table in files, the host's memory holds no more."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table on their way to a GPU.

    values: the rows (..., *row) as the table keeps them, or, of a table on the GPU, their numbers (...).
    """

    values: Tensor
    table: Tensor | None = None

    def on(self, device: torch.device) -> Tensor:
        """The rows there; float16 as float32."""
        values = self.values.to(device, non_blocking=True)
        rows = values if self.table is None else self.table[values]
        return rows.float() if rows.is_floating_point() else rows


class Table:
    """Rows of several arrays one after another: row `first[i] + j` is row j of array i.

    arrays: (n_i, *row) of one row shape and number type; they may be memory-mapped.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self._arrays = tuple(arrays)
        self.first: npt.NDArray[np.int64] = np.cumsum([0, *map(len, arrays)])
        self.dtype = arrays[0].dtype
        self.nbytes = sum(array.nbytes for array in arrays)
        self._device = torch.device("cpu")
        self._there: Tensor | None = None

    @property
    def is_on_gpu(self) -> bool:
        return self._there is not None

    def serve(self, device: torch.device, most_bytes: float) -> int:
        """Have `take` give rows for a network on `device`, from there if the table has at most `most_bytes`.

        Returns the memory that it takes there, in bytes.
        """
        self._device = device
        if device.type != "cuda" or self.nbytes > most_bytes:
            return 0
        like = torch.from_numpy(np.empty(0, self.dtype))
        there = torch.empty((int(self.first[-1]), *self._arrays[0].shape[1:]), dtype=like.dtype, device=device)
        chunk = max(1, CHUNK_BYTES * len(there) // max(1, self.nbytes))
        for first, array in zip(self.first, self._arrays, strict=False):
            for start in range(0, len(array), chunk):
                part = torch.from_numpy(np.array(array[start : start + chunk]))
                there[first + start : first + start + len(part)] = part.to(device)
        self._there = there
        return self.nbytes

    def take(self, index: npt.NDArray[np.int64]) -> Tensor | Rows:
        """Rows `index` (...) for a batch: a tensor (..., *row) on a CPU, float16 as float32; else what becomes one when
        the batch is moved."""
        if self._there is not None:
            return Rows(torch.from_numpy(index), self._there)
        return (
            self.read(index) if self._device.type == "cpu" else Rows(torch.from_numpy(self._gather(index, self.dtype)))
        )

    def read(self, index: npt.NDArray[np.int64]) -> Tensor:
        """Rows `index` (...) on the CPU, float16 as float32."""
        return torch.from_numpy(self._gather(index, np.dtype(np.float32) if self.dtype.kind == "f" else self.dtype))

    def _gather(self, index: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        out = np.empty((*index.shape, *self._arrays[0].shape[1:]), dtype)
        holder = np.searchsorted(self.first, index, side="right") - 1
        for i in np.unique(holder):
            mine = holder == i
            out[mine] = self._arrays[i][index[mine] - self.first[i]]
        return out
