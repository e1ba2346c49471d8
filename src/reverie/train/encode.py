"""Encoding of recordings: they are put through a tokenizer once, and the latents kept for trainings.

reverie encode data/vizdoom data/city --tokenizer runs/tokenizer -o data/latents
reverie train world --data data/vizdoom data/city --tokenizer runs/tokenizer --latents data/latents -o runs/world
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from reverie.data.dataset import Dataset, check_rate
from reverie.errors import DataError
from reverie.hardware import num_cores
from reverie.models.tokenizer import VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.models.weights import fingerprint
from reverie.train.device import fast_autocast
from reverie.train.display import SILENT, Display
from reverie.train.kept_arrays import Arrays, kept_arrays
from reverie.train.warm_start import StartEncoder
from reverie.types import STEP_FRAMES, ActionSpace, Clip
from reverie.vision.pixels import to_bytes, to_pixels

VERSION = 2
CHUNK_STEPS = 16
STILL_EVERY = 3
"""Every third step can open a clip: it is also encoded alone."""


@dataclass(frozen=True, slots=True)
class LatentClips:
    """The latents of a dataset.  N steps in all; an episode is a run of them.

    Every third step's last frame is also encoded alone, as a start image is, because every session opens on such a
    step: training clips start there.

    z: (N, c, h, w) float16; rows: (N, 4, a) float32, the actions that lead to the step's frames; episode: (N,) which
    episode a step is of; opens: (M,) the steps at which a clip can start, in order; still: (M, c, h, w) float16, their
    last frames encoded alone; picture: (M, 3, H/2, W/2) uint8, the same frames.
    For a model that generates its start also: tokens (M, n, d) float16, of the image encoder; grey: (M, g, c, h, w)
    float16, the steps after `still` as `StartEncoder` has them.
    """

    z: npt.NDArray[np.float16]
    still: npt.NDArray[np.float16]
    rows: npt.NDArray[np.float32]
    picture: npt.NDArray[np.uint8]
    episode: npt.NDArray[np.int32]
    opens: npt.NDArray[np.int64]
    action_space: ActionSpace
    fov_deg: float | None = None
    """Horizontal field of view of the frames, if the recording states it."""
    tokens: npt.NDArray[np.float16] | None = None
    grey: npt.NDArray[np.float16] | None = None

    START_FIELDS = ("tokens", "grey")
    FIELDS = ("z", "still", "rows", "picture", "episode", "opens")

    def __len__(self) -> int:
        return len(self.z)

    def starts(self, num_steps: int) -> npt.NDArray[np.int64]:
        """Finds the rows at which a clip of `num_steps` steps can start.  Raises DataError if no episode is long
        enough."""
        starts = self.opens[self.opens + num_steps <= len(self)]
        starts = starts[self.episode[starts + num_steps - 1] == self.episode[starts]]
        if not len(starts):
            raise DataError(
                f"no episode holds {num_steps} latent steps ({STEP_FRAMES * num_steps - 3} frames); record longer ones"
            )
        return starts

    def opening(self, start: int) -> int:
        """The row of `still`, `picture`, `tokens` and `grey` of a step that a clip can start at."""
        return int(np.searchsorted(self.opens, start))


def dataset_names(folders: Sequence[Path]) -> list[str]:
    """Names below which the latents of datasets are kept.  Raises DataError where two are the same."""
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two recordings are called {name}; give one of them another name")
    return names


def load_latents(
    data: Path,
    tokenizer: VideoTokenizer | WanVAE,
    cache: Path,
    device: torch.device,
    max_hours: float | None = None,
    start: StartEncoder | None = None,
    threads: int | None = None,
    display: Display = SILENT,
) -> LatentClips:
    """The latents of the dataset at `data`, from `cache` if it holds them for this tokenizer and dataset.

    max_hours: take no more than this of the dataset; start: of a model that generates its start; threads: that decode
    ahead (default: `decoding_threads`).  Latents that are damaged are made again.  Raises DataError as `Dataset` does,
    and where the disk refuses.
    """
    dataset = Dataset(data)
    check_rate(dataset)
    wanted = {
        "version": VERSION,
        # As model folders keep it: a trained tokenizer and a model with it share what was encoded.
        "tokenizer": fingerprint({name: x.bfloat16() for name, x in tokenizer.state_dict().items()}),
        "frames": dataset.num_frames,
        "dataset": dataset.fingerprint,
        "max_hours": max_hours,
        **({} if start is None else {"start": start.fingerprint}),
    }
    fields = LatentClips.FIELDS + (() if start is None else LatentClips.START_FIELDS)
    budget = dataset.num_frames if max_hours is None else int(max_hours * 3600 * dataset.fps)

    def make() -> Arrays:
        budget_frames = min(budget, dataset.num_frames)
        return _encode(dataset, tokenizer, device, budget_frames, start, threads or decoding_threads(), display)

    arrays = kept_arrays(cache / "latents.json", wanted, fields, make)
    return LatentClips(**arrays, action_space=dataset.action_space, fov_deg=dataset.fov_deg)


def decoding_threads() -> int:
    """Threads that decode videos ahead of the network: a thread gives a GPU about 2,700 frames a second."""
    return max(2, min(16, num_cores() - 2))


@dataclass(frozen=True, slots=True)
class _Part:
    """Latent steps `first` .. `last` - 1 of an episode, with `num_steps` in all."""

    episode: int
    first: int
    last: int
    num_steps: int

    def read(self, dataset: Dataset) -> Clip:
        start = 0 if self.first == 0 else STEP_FRAMES * self.first - 3
        return dataset.clip(self.episode, start, STEP_FRAMES * (self.last - 1) + 1 - start, depth=False)


def _parts(dataset: Dataset, budget_frames: int) -> Iterator[_Part]:
    """Parts of `CHUNK_STEPS` of episodes in random order, until there are so many frames."""
    done = 0
    for index in np.random.default_rng(0).permutation(dataset.num_episodes):
        length = dataset.episodes[index].length
        num_steps = 1 + (length - 1) // STEP_FRAMES
        if done >= budget_frames:
            return
        if num_steps < 2:
            continue
        for first in range(0, num_steps, CHUNK_STEPS):
            yield _Part(int(index), first, min(first + CHUNK_STEPS, num_steps), num_steps)
        done += length


def _read_ahead(dataset: Dataset, parts: Iterator[_Part], threads: int) -> Iterator[tuple[_Part, Clip]]:
    """Parts in order with their frames and actions, decoded ahead by threads."""
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[_Part, Future[Clip]]] = deque()
        try:
            for part in parts:
                waiting.append((part, pool.submit(part.read, dataset)))
                if len(waiting) > 2 * threads:
                    ready, clip = waiting.popleft()
                    yield ready, clip.result()
            while waiting:
                ready, clip = waiting.popleft()
                yield ready, clip.result()
        finally:
            for _, clip in waiting:
                clip.cancel()


def _encode(
    dataset: Dataset,
    tokenizer: VideoTokenizer | WanVAE,
    device: torch.device,
    budget_frames: int,
    start_encoder: StartEncoder | None = None,
    threads: int = 2,
    display: Display = SILENT,
) -> Arrays:
    done, rows = 0, _EncodedRows(tokenizer, start_encoder)
    with display.bar("encoding", budget_frames) as show, torch.inference_mode(), fast_autocast(device):
        for part, clip in _read_ahead(dataset, _parts(dataset, budget_frames), threads):
            rows.add(part, clip, device)
            if part.last == part.num_steps:
                done += dataset.episodes[part.episode].length
                show(min(done, budget_frames))
    return rows.join()


class _EncodedRows:
    """Rows of a recording's latents, added part by part in the order of `_parts`."""

    def __init__(self, tokenizer: VideoTokenizer | WanVAE, start_encoder: StartEncoder | None) -> None:
        self._tokenizer, self._start_encoder = tokenizer, start_encoder
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in LatentClips.FIELDS + LatentClips.START_FIELDS}
        self._state: Any = None
        self._actions: list[npt.NDArray[np.float32]] = []
        self._steps_done = 0

    def add(self, part: _Part, clip: Clip, device: torch.device) -> None:
        video = to_pixels(rearrange(torch.from_numpy(clip.frames).to(device), "f h w c -> 1 f c h w"))
        if part.first == 0:
            self._state = self._tokenizer.new_encoder_state(1, *video.shape[-2:], device=device)
        self._rows["z"].append(self._tokenizer.encode(video, self._state)[0].half().cpu().numpy())
        self._rows["episode"].append(np.full(part.last - part.first, part.episode, np.int32))
        self._add_openings(part, video[0])
        self._actions.append(clip.actions)
        if part.last == part.num_steps:
            self._end_episode(part.num_steps)

    def _add_openings(self, part: _Part, video: Tensor) -> None:
        """Encodes the last frames of steps that can open a clip, alone."""
        steps = np.arange(part.first, part.last)
        opens = steps[steps % (STILL_EVERY if self._start_encoder is None else self._start_encoder.every) == 0]
        if not len(opens):
            return
        ends = video[::STEP_FRAMES] if part.first == 0 else video[STEP_FRAMES - 1 :: STEP_FRAMES]
        alone = ends[torch.from_numpy(opens - part.first)]
        self._rows["opens"].append(self._steps_done + opens)
        for name, values in _openings(alone, self._tokenizer, self._start_encoder).items():
            self._rows[name].append(values.half().cpu().numpy())
        self._rows["picture"].append(to_bytes(F.avg_pool2d(alone, 2)).cpu().numpy())

    def _end_episode(self, num_steps: int) -> None:
        """Cuts an episode's actions into those that lead to the frames of each step: none to the first."""
        led = np.concatenate(self._actions)[: STEP_FRAMES * (num_steps - 1)]
        led = np.concatenate([np.zeros((STEP_FRAMES, led.shape[1]), np.float32), led])
        self._rows["rows"].append(led.reshape(num_steps, STEP_FRAMES, -1))
        self._steps_done += num_steps
        self._actions.clear()

    def join(self) -> Arrays:
        joined = {name: np.concatenate(arrays) for name, arrays in self._rows.items() if arrays}
        if len(joined.get("z", ())) < 2:
            raise DataError("the dataset holds no episode of 5 frames or more; record longer ones")
        return joined


def _openings(
    alone: Tensor, tokenizer: VideoTokenizer | WanVAE, start_encoder: StartEncoder | None
) -> dict[str, Tensor]:
    """still, and for a model that generates its start grey and tokens, of frames (m, 3, H, W) encoded alone."""
    if start_encoder is None:
        return {"still": tokenizer.encode(alone[:, None])[:, 0]}
    still, grey = start_encoder.latents(alone).split([1, start_encoder.grey_steps], 1)
    return {"still": still[:, 0], "grey": grey, "tokens": start_encoder.tokens(alone)}
