"""Random clips of a dataset in batches, decoded in worker processes.

The batch of a step is a function of the seed, the step and the dataset alone, whatever the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import numpy.typing as npt

from reverie.data.dataset import Dataset, check_rate
from reverie.data.workers import worker_pool
from reverie.errors import DataError
from reverie.types import Frames

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""frames `(b, f, H, W, 3)` uint8 and actions `(b, f, size)` float32; action i shows first in frame i + 1."""

_Decoded = tuple[Frames, npt.NDArray[np.float32]]

PREFETCH_STEPS = 3


class ClipLoader:
    """An endless iterator of batches.  Every clip of the dataset is equally likely.

    workers: processes that decode; 0 decodes here.
    Raises DataError if no episode is as long as a clip, and while iterating for damaged files.
    """

    def __init__(self, dataset: Dataset, clip_frames: int, batch: int, seed: int = 0, workers: int = 1) -> None:
        if clip_frames < 1 or batch < 1 or workers < 0:
            raise DataError(f"a batch needs frames and clips, got clip_frames={clip_frames}, batch={batch}, {workers=}")
        check_rate(dataset)
        self.dataset = dataset
        self.clip_frames = clip_frames
        self.batch = batch
        self.seed = seed
        self.step = 0
        starts = np.array([max(0, episode.length - clip_frames + 1) for episode in dataset.episodes], np.int64)
        if not starts.sum():
            raise DataError(
                f"{dataset.path}: no episode has {clip_frames} frames; ask for shorter clips or record more"
            )
        self._ends = np.cumsum(starts)
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            self._pool = worker_pool(workers, _start_worker, (dataset, clip_frames))
        self._waiting: deque[list[Future[_Decoded]]] = deque()

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The batch of `self.step`, which then moves on."""
        if self._pool is None:
            batch = self.batch_at(self.step)
        else:
            while len(self._waiting) < PREFETCH_STEPS:
                picks = self.picks(self.step + len(self._waiting))
                self._waiting.append([self._pool.submit(_decode, *pick) for pick in picks])
            try:
                batch = _stack([future.result() for future in self._waiting.popleft()])
            except BrokenProcessPool as error:
                raise DataError(
                    f"{self.dataset.path}: a decoding process died; resume from the last checkpoint"
                ) from error
        self.step += 1
        return batch

    def batch_at(self, step: int) -> Batch:
        """The batch of any step, decoded here."""
        clips = [
            self.dataset.clip(episode, start, self.clip_frames, depth=False) for episode, start in self.picks(step)
        ]
        return _stack([(clip.frames, clip.actions) for clip in clips])

    def picks(self, step: int) -> list[tuple[int, int]]:
        """(episode, first frame) of each clip in the batch of a step."""
        rng = np.random.default_rng((self.seed, 0, step))
        chosen = rng.integers(self._ends[-1], size=self.batch)
        episodes = np.searchsorted(self._ends, chosen, side="right")
        before = np.concatenate(([0], self._ends))[episodes]
        return [(int(episode), int(start)) for episode, start in zip(episodes, chosen - before, strict=True)]

    def close(self) -> None:
        """End the workers; safe to call twice."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _stack(clips: list[_Decoded]) -> Batch:
    return np.stack([frames for frames, _ in clips]), np.stack([actions for _, actions in clips])


_worker: tuple[Dataset, int] | None = None


def _start_worker(dataset: Dataset, clip_frames: int) -> None:
    global _worker
    _worker = (dataset, clip_frames)


def _decode(episode: int, start: int) -> _Decoded:
    assert _worker is not None, "a worker decodes after _start_worker"
    dataset, clip_frames = _worker
    clip = dataset.clip(episode, start, clip_frames, depth=False)
    return clip.frames, clip.actions
