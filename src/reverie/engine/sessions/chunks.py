"""Chunks of bytes in a temporary file, written by a thread of their own."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import IO

import numpy as np
import numpy.typing as npt

CHUNK_BYTES = 4096

Places = npt.NDArray[np.int64]
"""Numbers of chunks in a file."""


class Chunks:
    """Chunks of a `ChunkFile`, some shared with others; the places of those that nobody holds any more are free."""

    __slots__ = ("_file", "places")

    def __init__(self, file: ChunkFile, places: Places) -> None:
        self._file, self.places = file, places

    def __del__(self) -> None:
        self._file.dropped.append(self.places)  # in any thread, at any time: freed when the next chunks are added

    def read(self) -> npt.NDArray[np.uint8]:
        """All their bytes, (n, CHUNK_BYTES)."""
        return self._file.read(self.places)


class ChunkFile:
    """A temporary file of chunks that no other process can open, and that ends with its chunks.

    It lies in TMPDIR, else in /var/tmp: /tmp is in memory on many systems.  What the disk does not take stays in
    memory.  Chunks are written in the order in which they were added, in the background; `read` waits for that.  For
    any thread.  dropped: places of chunks that somebody has let go of.
    """

    def __init__(self) -> None:
        self.dropped: list[Places] = []
        self._free: Places = np.empty(0, np.int64)
        self._num_holders = np.empty(0, np.int32)
        self._file: IO[bytes] | None = None
        self._in_memory: dict[int, npt.NDArray[np.uint8]] = {}
        self._has_been_full = False
        self._places_lock, self._lock = threading.Lock(), threading.Lock()
        self._writing: Future[None] | None = None

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def num_places(self) -> int:
        """Places that have been taken at once."""
        return self._num_holders.size

    @property
    def is_full(self) -> bool:
        """True once the disk has been full."""
        self._settle()
        return self._has_been_full

    def free_places(self) -> Places:
        """Places that are free again, ascending."""
        with self._places_lock:
            return self._collect().copy()

    def add(self, chunks: npt.NDArray[np.uint8], shared: npt.NDArray[np.bool_], before: Chunks | None) -> Chunks:
        """Keeps new chunks, (n, CHUNK_BYTES), which then belong to the file, between those shared with `before`.

        shared: for each of all chunks, whether it is that of `before`; as many are not as `chunks` are given.
        Waits for what was added before to be written: no more than one snapshot's chunks wait in memory.
        """
        self._settle()
        places = np.empty(shared.size, np.int64)
        if before is not None and shared.any():
            places[shared] = before.places[shared]
        with self._places_lock:
            free, start = self._collect(), self.num_places
            num_more = max(0, len(chunks) - free.size)
            new = np.concatenate([free[: len(chunks)], np.arange(start, start + num_more)])
            self._free = free[len(chunks) :]
            self._num_holders = np.concatenate([self._num_holders, np.zeros(num_more, np.int32)])
            places[~shared] = new
            self._num_holders[places] += 1
            self._writing = _writer().submit(self._keep, new, chunks)
        return Chunks(self, places)

    def read(self, places: Places) -> npt.NDArray[np.uint8]:
        """The bytes of chunks, (n, CHUNK_BYTES)."""
        self._settle()
        chunks = np.empty((places.size, CHUNK_BYTES), np.uint8)
        with self._lock:
            for run in _runs(places):
                self._read(int(places[run.start]), chunks[run])
            for i in np.flatnonzero(np.isin(places, list(self._in_memory))) if self._in_memory else ():
                chunks[i] = self._in_memory[int(places[i])]
        return chunks

    def _collect(self) -> Places:
        while self.dropped:
            places = self.dropped.pop()
            self._num_holders[places] -= 1
            self._free = np.concatenate([self._free, places[self._num_holders[places] == 0]])
        self._free.sort()
        return self._free

    def _settle(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _keep(self, places: Places, chunks: npt.NDArray[np.uint8]) -> None:
        with self._lock:
            for run in _runs(places):
                first = int(places[run.start])
                kept = range(first, first + run.stop - run.start)
                if self._in_memory:
                    for place in kept:
                        self._in_memory.pop(place, None)
                try:
                    self._write(first, chunks[run])
                except OSError:
                    self._has_been_full = True
                    self._in_memory |= dict(zip(kept, chunks[run].copy(), strict=True))

    def _write(self, place: int, chunks: npt.NDArray[np.uint8]) -> None:
        if self._file is None:
            on_disk = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # open as long as its chunks are there
                prefix="reverie-rewind-", dir=os.environ.get("TMPDIR") or on_disk, buffering=0
            )
        self._file.seek(place * CHUNK_BYTES)
        if self._file.write(chunks.data) != chunks.nbytes:
            raise OSError("the disk took a part of the chunks only")

    def _read(self, place: int, chunks: npt.NDArray[np.uint8]) -> None:
        """Reads chunks that lie side by side; of those that are in memory it may read anything."""
        if self._file is not None:
            self._file.seek(place * CHUNK_BYTES)
            self._file.readinto(chunks.data)  # type: ignore[attr-defined]  # a raw file has it


def _runs(places: Places) -> Iterator[slice]:
    """Stretches of `places` that lie side by side in the file."""
    edges = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), places.size]
    yield from (slice(a, b) for a, b in pairwise(edges) if b > a)


@cache
def _writer() -> ThreadPoolExecutor:
    """The one thread that writes: a slow disk keeps no session waiting before its next snapshot but one."""
    return ThreadPoolExecutor(1, thread_name_prefix="reverie-rewind")
