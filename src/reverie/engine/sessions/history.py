"""Snapshots of one session over time, in a temporary file of bounded size.

Between two snapshots most of a state does not change (the keyframes of a spatial memory, above all).  So a state is
kept in chunks, and a chunk that equals the same chunk of the snapshot before is shared with it.  Only what changed is
copied, and another thread writes it.  Keys and values change with every block, 0.7 MB of nano's: five minutes of them
are too much for memory, and little for a disk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie.engine.sessions.chunks import CHUNK_BYTES, ChunkFile, Chunks
from reverie.engine.sessions.session import Snapshot

WITHOUT_DISK_BYTES = 64 * 2**20
"""Memory that a session's snapshots may take at least where the disk is full."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Tensors one after another in chunks.  firsts: number of each tensor's first chunk; num_chunks: of all."""

    shapes: dict[str, tuple[torch.dtype, torch.Size]]
    firsts: dict[str, int]
    num_chunks: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> _Layout:
        edges = [0, *accumulate(-(-tensor.nbytes // CHUNK_BYTES) for tensor in tensors.values())]
        shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        return cls(shapes, dict(zip(tensors, edges[:-1], strict=True)), edges[-1])


@dataclass(frozen=True, slots=True)
class _Packed:
    """A snapshot in chunks.  rest: it without tensors."""

    rest: Snapshot
    layout: _Layout
    chunks: Chunks


class SnapshotHistory:
    """Snapshots of one session, ascending by `num_frames`.

    Beyond `max_bytes` snapshots are dropped where their neighbours are closest, the oldest of those first: what remains
    is spread evenly over the time that it covers.  The newest one always stays.  Where the disk is full, what has been
    kept by then is the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._file = ChunkFile()
        self._packed: list[_Packed] = []
        self._layout: _Layout | None = None
        self._last: npt.NDArray[np.uint8] | None = None
        """The newest snapshot's chunks, (n, CHUNK_BYTES); None after it was dropped."""

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def frames(self) -> list[int]:
        """`num_frames` of each snapshot."""
        return [packed.rest.num_frames for packed in self._packed]

    def add(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot that is newer than all others.  Its tensors are copied as far as they changed."""
        if self._file.is_full:
            self.max_bytes = min(self.max_bytes, max(self.num_bytes, WITHOUT_DISK_BYTES))
        layout = _Layout.of(snapshot.tensors)
        if self._last is None or layout != self._layout:
            self._layout, self._last = layout, np.zeros((layout.num_chunks, CHUNK_BYTES), np.uint8)
            changed = np.ones(layout.num_chunks, bool)
            for name, first in layout.firsts.items():
                data = _bytes_of(snapshot.tensors[name])
                _bytes_at(self._last, first, data.size)[:] = data
        else:
            changed = np.zeros(layout.num_chunks, bool)
            for name, first in layout.firsts.items():
                _update(self._last, changed, first, _bytes_of(snapshot.tensors[name]))
        before = self._packed[-1].chunks if self._packed else None
        chunks = self._file.add(self._last[changed], ~changed, before)
        picture = self._packed[-1].rest.picture if self._packed else snapshot.picture.copy()
        rest = replace(snapshot, tensors={}, picture=picture)
        self._packed.append(_Packed(rest, layout, chunks))
        self.num_bytes += self._own_bytes(len(self._packed) - 1)
        while self.num_bytes > self.max_bytes and len(self._packed) > 1:
            self._drop(self._most_crowded())

    def before(self, num_frames: int) -> Snapshot | None:
        """The newest snapshot with fewer frames than `num_frames`; None where there is none."""
        index = bisect_left(self.frames, num_frames) - 1
        return None if index < 0 else _unpack(self._packed[index])

    def frames_before(self, num_frames: int) -> int | None:
        """`num_frames` of what `before` returns, without unpacking it."""
        frames = self.frames
        index = bisect_left(frames, num_frames) - 1
        return None if index < 0 else frames[index]

    def drop_after(self, num_frames: int) -> None:
        """Drops the snapshots with more frames than `num_frames`."""
        while self._packed and self._packed[-1].rest.num_frames > num_frames:
            self._drop(len(self._packed) - 1)
            self._last = None

    def drop_before(self, num_frames: int) -> None:
        """Drops old snapshots, so that one at most has fewer frames than `num_frames`."""
        while len(self._packed) > 1 and self._packed[1].rest.num_frames <= num_frames:
            self._drop(0)

    def copy(self) -> SnapshotHistory:
        """A second history of the same snapshots; what never changes is shared."""
        twin = SnapshotHistory(self.max_bytes)
        twin._file, twin.num_bytes, twin._packed = self._file, self.num_bytes, self._packed.copy()
        return twin

    def clear(self) -> None:
        self._packed.clear()
        self._last = None
        self.num_bytes = 0

    def _most_crowded(self) -> int:
        frames = self.frames
        if len(frames) == 2:
            return 0
        return 1 + int(np.argmin([after - before for before, after in zip(frames, frames[2:], strict=False)]))

    def _drop(self, index: int) -> None:
        self.num_bytes -= self._own_bytes(index)
        del self._packed[index]

    def _own_bytes(self, index: int) -> int:
        """Bytes that would be free without a snapshot: its chunks that no neighbour shares."""
        own = self._packed[index].chunks.places
        is_own = np.ones(own.size, bool)
        for other in (self._packed[i].chunks.places for i in (index - 1, index + 1) if 0 <= i < len(self._packed)):
            if other.size == own.size:
                is_own &= other != own
        return int(is_own.sum()) * CHUNK_BYTES


def _bytes_of(tensor: Tensor) -> npt.NDArray[np.uint8]:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _bytes_at(chunks: npt.NDArray[np.uint8], first: int, num_bytes: int) -> npt.NDArray[np.uint8]:
    """The bytes of one tensor, from chunk `first` on: a view."""
    return chunks.reshape(-1)[first * CHUNK_BYTES :][:num_bytes]


def _update(
    chunks: npt.NDArray[np.uint8], changed: npt.NDArray[np.bool_], first: int, data: npt.NDArray[np.uint8]
) -> None:
    """Brings one tensor's chunks up to `data`; `changed` notes those that differed."""
    whole = data.size // CHUNK_BYTES
    if whole:
        now, before = data[: whole * CHUNK_BYTES].reshape(-1, CHUNK_BYTES), chunks[first : first + whole]
        differs = changed[first : first + whole]
        np.any(now.view(np.uint64) != before.view(np.uint64), axis=1, out=differs)
        before[differs] = now[differs]
    if rest := data[whole * CHUNK_BYTES :].size:
        tail = data[whole * CHUNK_BYTES :]
        if not np.array_equal(tail, chunks[first + whole, :rest]):
            changed[first + whole] = True
            chunks[first + whole, :rest] = tail


def _unpack(packed: _Packed) -> Snapshot:
    chunks = packed.chunks.read()
    tensors: dict[str, Tensor] = {}
    for name, (dtype, shape) in packed.layout.shapes.items():
        data = _bytes_at(chunks, packed.layout.firsts[name], shape.numel() * dtype.itemsize)
        tensors[name] = torch.from_numpy(data).view(dtype).reshape(shape)
    return replace(packed.rest, tensors=tensors)
