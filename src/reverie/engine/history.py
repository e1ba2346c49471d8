"""Snapshots of one session over time, in bounded memory.

Between two seconds most of a state does not change (the keyframes of a spatial memory, above all).  So tensors are kept
in chunks, and a chunk that equals the same chunk of the snapshot before is shared with it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie.engine.session import Snapshot

CHUNK_BYTES = 8192


@dataclass(frozen=True, slots=True)
class _Packed:
    """A snapshot in chunks.  rest: it without tensors; shapes: of each tensor, with its type and number of chunks."""

    rest: Snapshot
    shapes: dict[str, tuple[torch.dtype, torch.Size, int]]
    chunks: list[bytes]


class SnapshotHistory:
    """Snapshots of one session, ascending by `num_frames`.

    Beyond `max_bytes` snapshots are dropped where their neighbours are closest, the oldest of those first: what remains
    is spread evenly over the time that it covers.  The newest one always stays.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
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
        chunks: list[bytes] = []
        for name, data in now.items():
            is_new = _changed_chunks(data, self._last.get(name))
            for chunk, changed in enumerate(is_new):
                at = len(chunks)
                old = before[at] if not changed and at < len(before) else None
                chunks.append(data[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES].tobytes() if old is None else old)
            tensor = snapshot.tensors[name]
            shapes[name] = (tensor.dtype, tensor.shape, len(is_new))
        picture = self._packed[-1].rest.picture if self._packed else snapshot.picture
        self._packed.append(_Packed(replace(snapshot, tensors={}, picture=picture), shapes, chunks))
        self._last = now
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
        twin.num_bytes, twin._packed, twin._last = self.num_bytes, self._packed.copy(), {}
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
        """Memory that would be free without a snapshot: its chunks that no neighbour shares."""
        neighbours = [self._packed[i].chunks for i in (index - 1, index + 1) if 0 <= i < len(self._packed)]
        return sum(
            len(chunk)
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
        data = bytearray().join(packed.chunks[at : at + num_chunks])
        at += num_chunks
        tensors[name] = (torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)).reshape(shape)
    return replace(packed.rest, tensors=tensors)
