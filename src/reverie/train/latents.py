"""Recordings as latents: a dataset is put through the tokenizer once, and kept beside the training run.

For every latent step of every episode: the step as the stream has it, the actions of its four frames, and a small
picture for the image encoder.  Every third step's last frame is also encoded alone, as a start picture is, because
every session opens on such a step: training clips start there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import rearrange
from rich.progress import Progress
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.models.actions import STEP_FRAMES
from reverie.models.checkpoint import write_json_atomic
from reverie.models.pixels import to_bytes, to_pixels
from reverie.models.tokenizer import VideoTokenizer
from reverie.types import ActionSpace

CHUNK_STEPS = 16
STILL_EVERY = 3
"""Every third step can open a clip: it is also encoded alone."""
FIT_STEPS = 384
"""Steps whose pixels are kept at half size, to fit `TurnedStep` on."""


@dataclass(frozen=True, slots=True)
class LatentClips:
    """The latents of a dataset.  N steps in all; an episode is a run of them.

    z: (N, c, h, w) float16; still: the same, steps that open a clip alone, zeros elsewhere; rows: (N, 4, a) float32,
    the actions that lead to the step's frames; picture: (N, 3, H/2, W/2) uint8, the step's last frame; episode: (N,)
    which episode a step is of; opens: (N,) whether a clip can start there; fit_index: (n,) steps whose frames (n, 4,
    3, H/2, W/2) uint8 were kept.
    """

    z: npt.NDArray[np.float16]
    still: npt.NDArray[np.float16]
    rows: npt.NDArray[np.float32]
    picture: npt.NDArray[np.uint8]
    episode: npt.NDArray[np.int32]
    opens: npt.NDArray[np.bool_]
    fit_index: npt.NDArray[np.int64]
    fit_frames: npt.NDArray[np.uint8]
    action_space: ActionSpace

    FIELDS = ("z", "still", "rows", "picture", "episode", "opens", "fit_index", "fit_frames")

    def __len__(self) -> int:
        return len(self.z)

    def starts(self, num_steps: int) -> npt.NDArray[np.int64]:
        """Where a clip of `num_steps` steps can start.  Raises DataError if no episode is long enough."""
        last = np.arange(len(self)) + num_steps - 1
        inside = last < len(self)
        inside[inside] = self.episode[last[inside]] == self.episode[np.flatnonzero(inside)]
        starts = np.flatnonzero(inside & self.opens)
        if not len(starts):
            raise DataError(
                f"no episode holds {num_steps} latent steps ({STEP_FRAMES * num_steps - 3} frames); record longer ones"
            )
        return starts

    def turned_step_data(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `TurnedStep.fit` takes."""
        frames = to_pixels(torch.from_numpy(self.fit_frames))
        return torch.from_numpy(self.z[self.fit_index]).float(), frames[:, -1], frames


def load_latents(
    data: Path, tokenizer: VideoTokenizer, cache: Path, device: torch.device, max_hours: float | None = None
) -> LatentClips:
    """The latents of the dataset at `data`, from `cache` if it holds them for this tokenizer and dataset.

    max_hours: take no more than this of the dataset.  Raises DataError as `Dataset` does.
    """
    dataset = Dataset(data)
    wanted = {"tokenizer": _fingerprint(tokenizer), "frames": dataset.num_frames, "max_hours": max_hours}
    stamp = cache / "latents.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        return _read(cache, dataset.action_space)
    cache.mkdir(parents=True, exist_ok=True)
    budget = dataset.num_frames if max_hours is None else int(max_hours * 3600 * dataset.fps)
    clips = _encode(dataset, tokenizer, device, min(budget, dataset.num_frames))
    for field in LatentClips.FIELDS:
        np.save(cache / f"{field}.npy", getattr(clips, field))
    write_json_atomic(stamp, wanted)
    return _read(cache, dataset.action_space)


def _read(cache: Path, action_space: ActionSpace) -> LatentClips:
    return LatentClips(**{f: np.load(cache / f"{f}.npy") for f in LatentClips.FIELDS}, action_space=action_space)


def _fingerprint(tokenizer: VideoTokenizer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _encode(dataset: Dataset, tokenizer: VideoTokenizer, device: torch.device, budget_frames: int) -> LatentClips:
    parts: dict[str, list[np.ndarray]] = {field: [] for field in LatentClips.FIELDS}
    total, done, steps_done = budget_frames, 0, 0
    keep_every = max(1, total // STEP_FRAMES // FIT_STEPS)
    order = np.random.default_rng(0).permutation(dataset.num_episodes)
    with Progress() as progress, torch.inference_mode():
        bar = progress.add_task("encoding", total=total)
        for index in order:
            length = dataset.episodes[index].length
            num_steps = 1 + (length - 1) // STEP_FRAMES
            if done >= budget_frames:
                break
            if num_steps < 2:
                continue
            state, actions = None, []
            for first in range(0, num_steps, CHUNK_STEPS):
                last = min(first + CHUNK_STEPS, num_steps)
                start = 0 if first == 0 else STEP_FRAMES * first - 3
                stop = STEP_FRAMES * (last - 1) + 1
                clip = dataset.clip(int(index), start, stop - start)
                video = to_pixels(rearrange(torch.from_numpy(clip.frames).to(device), "f h w c -> 1 f c h w"))
                if state is None:
                    state = tokenizer.new_encoder_state(1, *video.shape[-2:], device=device)
                z = tokenizer.encode(video, state)[0]
                ends = video[0, ::STEP_FRAMES] if first == 0 else video[0, STEP_FRAMES - 1 :: STEP_FRAMES]
                actions.append(clip.actions)
                parts["z"].append(z.half().cpu().numpy())
                opens = np.arange(first, last) % STILL_EVERY == 0
                still = torch.zeros_like(z)
                still[torch.from_numpy(opens)] = tokenizer.encode(ends[torch.from_numpy(opens), None])[:, 0]
                parts["opens"].append(opens)
                parts["still"].append(still.half().cpu().numpy())
                parts["picture"].append(to_bytes(F.avg_pool2d(ends, 2)).cpu().numpy())
                parts["episode"].append(np.full(last - first, index, np.int32))
                for step in range(first, last):
                    if (steps_done + step) % keep_every == 0 and step > 0:
                        offset = STEP_FRAMES * step - 3 - start
                        parts["fit_index"].append(np.asarray([steps_done + step]))
                        parts["fit_frames"].append(
                            to_bytes(F.avg_pool2d(video[0, offset : offset + STEP_FRAMES], 2)).cpu().numpy()[None]
                        )
            led = np.concatenate(actions)[: STEP_FRAMES * (num_steps - 1)]
            led = np.concatenate([np.zeros((STEP_FRAMES, led.shape[1]), np.float32), led])
            parts["rows"].append(led.reshape(num_steps, STEP_FRAMES, -1))
            steps_done += num_steps
            done += length
            progress.update(bar, completed=min(done, total))
    joined = {field: np.concatenate(arrays) for field, arrays in parts.items() if arrays}
    if "fit_index" not in joined:
        raise DataError("the dataset holds no episode of 5 frames or more; record longer ones")
    return LatentClips(**joined, action_space=dataset.action_space)
