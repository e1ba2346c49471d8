"""Snapshots of one session over time, in a temporary file of bounded size.

Between two seconds most of a state does not change (the keyframes of a spatial memory, above all).  So tensors are kept
in chunks, and a chunk that equals the same chunk of the snapshot before is shared with it.  Keys and values change with
every block, 0.7 MB of nano's: five minutes of them are too much for memory, and little for a disk.
"""

from __future__ import annotations

import os
import tempfile
import threading
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie.engine.sessions.session import Snapshot

CHUNK_BYTES = 4096
WITHOUT_DISK_BYTES = 64 * 2**20
"""Memory that a session's snapshots may take at least where the disk is full."""


class Chunk:
    """Bytes in a `ChunkFile`, or in memory; when nobody holds the chunk any more, its place is free."""

    __slots__ = ("_data", "_file", "_place", "size")

    def __init__(self, file: ChunkFile, place: int | None, data: bytes) -> None:
        self._file, self._place, self.size = file, place, len(data)
        self._data = data if place is None else None

    def __del__(self) -> None:
        if self._place is not None:
            self._file.free.append(self._place)

    def read(self) -> bytes:
        return self._file.read(self._place, self.size) if self._data is None else self._data


class ChunkFile:
    """A temporary file of chunks that no other process can open, and that ends with its chunks.  For any thread.

    It lies in TMPDIR, else in /var/tmp: /tmp is in memory on many systems.
    free: places that are free again.  is_full: the disk has been full once; what it does not take stays in memory.
    """

    def __init__(self) -> None:
        self.free: list[int] = []
        self.is_full = False
        self._file: IO[bytes] | None = None
        self._num_places = 0
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, data: bytes) -> Chunk:
        """Keeps at most CHUNK_BYTES."""
        with self._lock:
            place = self.free.pop() if self.free else self._num_places
            try:
                self._write(place, data)
            except OSError:
                self.is_full = True
                if place < self._num_places:
                    self.free.append(place)
                return Chunk(self, None, data)
            self._num_places = max(self._num_places, place + 1)
            return Chunk(self, place, data)

    def _write(self, place: int, data: bytes) -> None:
        if self._file is None:
            on_disk = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # open as long as its chunks are there
                prefix="reverie-rewind-", dir=os.environ.get("TMPDIR") or on_disk, buffering=0
            )
        self._file.seek(place * CHUNK_BYTES)
        if self._file.write(data) != len(data):
            raise OSError("the disk took a part of a chunk only")

    def read(self, place: int | None, size: int) -> bytes:
        with self._lock:
            assert self._file is not None
            assert place is not None
            self._file.seek(place * CHUNK_BYTES)
            return self._file.read(size)


@dataclass(frozen=True, slots=True)
class _Packed:
    """A snapshot in chunks.  rest: it without tensors; shapes: of each tensor, with its type and number of chunks."""

    rest: Snapshot
    shapes: dict[str, tuple[torch.dtype, torch.Size, int]]
    chunks: list[Chunk]


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
        self._last: dict[str, npt.NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def frames(self) -> list[int]:
        """`num_frames` of each snapshot."""
        return [packed.rest.num_frames for packed in self._packed]

    def add(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot that is newer than all others.  Its tensors then belong to the history."""
        before = self._packed[-1].chunks if self._packed else []
        now = {name: _bytes_of(tensor) for name, tensor in snapshot.tensors.items()}
        shapes: dict[str, tuple[torch.dtype, torch.Size, int]] = {}
        chunks: list[Chunk] = []
        for name, data in now.items():
            is_new = _changed_chunks(data, self._last.get(name))
            for chunk, changed in enumerate(is_new):
                at = len(chunks)
                old = before[at] if not changed and at < len(before) else None
                part = slice(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES)
                chunks.append(self._file.add(data[part].tobytes()) if old is None else old)
            tensor = snapshot.tensors[name]
            shapes[name] = (tensor.dtype, tensor.shape, len(is_new))
        picture = self._packed[-1].rest.picture if self._packed else snapshot.picture
        self._packed.append(_Packed(replace(snapshot, tensors={}, picture=picture), shapes, chunks))
        self._last = now
        if self._file.is_full:
            self.max_bytes = min(self.max_bytes, max(self.num_bytes, WITHOUT_DISK_BYTES))
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
        self._last = {}

    def drop_before(self, num_frames: int) -> None:
        """Drops old snapshots, so that one at most has fewer frames than `num_frames`."""
        while len(self._packed) > 1 and self._packed[1].rest.num_frames <= num_frames:
            self._drop(0)

    def copy(self) -> SnapshotHistory:
        """A second history of the same snapshots; what never changes is shared."""
        twin = SnapshotHistory(self.max_bytes)
        twin._file, twin.num_bytes, twin._packed, twin._last = self._file, self.num_bytes, self._packed.copy(), {}
        return twin

    def clear(self) -> None:
        self._packed.clear()
        self._last = {}
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
        neighbours = [self._packed[i].chunks for i in (index - 1, index + 1) if 0 <= i < len(self._packed)]
        return sum(
            chunk.size
            for at, chunk in enumerate(self._packed[index].chunks)
            if not any(at < len(other) and other[at] is chunk for other in neighbours)
        )


def _bytes_of(tensor: Tensor) -> npt.NDArray[np.uint8]:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _changed_chunks(now: npt.NDArray[np.uint8], before: npt.NDArray[np.uint8] | None) -> list[bool]:
    """For each chunk of `now`, whether it differs from that of `before`."""
    num_chunks = -(-now.size // CHUNK_BYTES)
    if before is None or before.size != now.size:
        return [True] * num_chunks
    whole = now.size // CHUNK_BYTES * CHUNK_BYTES
    differs = now[:whole].view(np.uint64) != before[:whole].view(np.uint64)
    changed = differs.reshape(-1, CHUNK_BYTES // 8).any(1).tolist() if whole else []
    return changed if whole == now.size else [*changed, not np.array_equal(now[whole:], before[whole:])]


def _unpack(packed: _Packed) -> Snapshot:
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, (dtype, shape, num_chunks) in packed.shapes.items():
        data = bytearray().join(chunk.read() for chunk in packed.chunks[at : at + num_chunks])
        at += num_chunks
        tensors[name] = (torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)).reshape(shape)
    return replace(packed.rest, tensors=tensors)
