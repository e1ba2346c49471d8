"""Recordings as latents: a dataset is put through the tokenizer once, and kept beside the training run.

For every latent step of every episode: the step as the stream has it, the actions of its four frames, and a small
picture for the image encoder.  Every third step's last frame is also encoded alone, as a start picture is, because
every session opens on such a step: training clips start there.

For a model that generates its start (`StartEncoder`), an opening also has the image encoder's tokens of the full
picture and the latents of the grey that follows it in a session.

`LatentClips` is one recording; `Clips` makes one source of clips of several, with one action space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import rearrange
from rich.progress import Progress
from torch import Tensor

from reverie.data.dataset import Dataset, check_rate
from reverie.errors import DataError
from reverie.models.actions import STEP_FRAMES
from reverie.models.checkpoint import ModelBundle, write_json_atomic
from reverie.models.pixels import to_bytes, to_pixels
from reverie.models.tokenizer import VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.train.start import StartEncoder, fingerprint
from reverie.types import ActionSpace
from reverie.vision.projection import turn_scale

VERSION = 2
CHUNK_STEPS = 16
STILL_EVERY = 3
"""Every third step can open a clip: it is also encoded alone."""


@dataclass(frozen=True, slots=True)
class LatentClips:
    """The latents of a dataset.  N steps in all; an episode is a run of them.

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
    """Horizontal field of view of the pictures, where the recording knows it."""
    tokens: npt.NDArray[np.float16] | None = None
    grey: npt.NDArray[np.float16] | None = None

    START_FIELDS = ("tokens", "grey")
    FIELDS = ("z", "still", "rows", "picture", "episode", "opens")

    def __len__(self) -> int:
        return len(self.z)

    def starts(self, num_steps: int) -> npt.NDArray[np.int64]:
        """Where a clip of `num_steps` steps can start.  Raises DataError if no episode is long enough."""
        starts = self.opens[self.opens + num_steps <= len(self)]
        starts = starts[self.episode[starts + num_steps - 1] == self.episode[starts]]
        if not len(starts):
            raise DataError(
                f"no episode holds {num_steps} latent steps ({STEP_FRAMES * num_steps - 3} frames); record longer ones"
            )
        return starts

    def opening(self, start: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """The start picture of a step that a clip can start at: its latent (c, h, w), and the picture."""
        row = int(np.searchsorted(self.opens, start))
        return self.still[row].astype(np.float32), np.array(self.picture[row])

    def told(self, start: int, num_steps: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What a model that generates its start is told of a clip's first picture: tokens (n, d), and latents
        (num_steps, c, h, w) of the picture and of the grey after it, the last of which holds for ever."""
        if self.tokens is None or self.grey is None:
            raise DataError("these latents were made for a model that starts from a picture; encode them anew")
        row = int(np.searchsorted(self.opens, start))
        grey = self.grey[row][np.minimum(np.arange(num_steps - 1), self.grey.shape[1] - 1)]
        latents = np.concatenate([self.still[row][None], grey])
        return self.tokens[row].astype(np.float32), latents.astype(np.float32)


Batch = tuple[Tensor, Tensor, Tensor]
"""Clips: latents (b, t, c, h, w) whose first step is a start picture's, action rows (b, 4 (t - 1), a), and first
pictures (b, 3, H/2, W/2) uint8."""

ToldBatch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Clips for a model that generates its start: latents and rows as in `Batch`, image tokens (b, n, d), and latents (b,
t, c, h, w) of the first picture and of the grey after it."""


class Clips:
    """Clips of one recording or several.

    A key that a game does not have is never held there.  Every game is drawn equally often, however much of it was
    recorded.  fov_deg: turns are scaled to this field of view, so that the same turn moves all pictures alike.
    action_space: what rows are said in; without one all keys of the games, in order of appearance, and a mouse if one
    has it.  idle_key: is down whenever no other key is.  Raises DataError for games of several shapes, or with actions
    that `action_space` has not.
    """

    def __init__(
        self,
        parts: Sequence[LatentClips],
        fov_deg: float | None = None,
        action_space: ActionSpace | None = None,
        idle_key: str | None = None,
    ) -> None:
        shapes = {part.z.shape[1:] for part in parts}
        if len(shapes) != 1:
            raise DataError(f"the recordings have latents of several shapes, {shapes}; record them at one resolution")
        self.parts = tuple(parts)
        self.action_space = action_space or joint_space([part.action_space for part in parts])
        self.latent: tuple[int, int, int] = parts[0].z.shape[1:]  # type: ignore[assignment]
        self.idle_key = idle_key
        names = self.action_space.names
        for part in parts:
            if unknown := [name for name in part.action_space.names if name not in names]:
                raise DataError(f"a recording has the action {unknown[0]}, expected some of {', '.join(names)}")
        self._columns = [[names.index(name) for name in part.action_space.names] for part in parts]
        self._scale = [turn_scale(part.fov_deg, fov_deg) for part in parts]
        self._known_starts: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        self._known_holds: dict[tuple[int, int], list[npt.NDArray[np.int64]]] = {}

    @property
    def num_steps(self) -> int:
        return sum(map(len, self.parts))

    def draw(
        self, rng: np.random.Generator, count: int, num_steps: int, by_key: float = 0.0, still: float = 0.0
    ) -> Batch:
        """Random clips; of them the share `by_key` is chosen by a key, each of a game's as often, that is held in them,
        and the share `still` made to stand still.

        Raises DataError if a recording has no episode of `num_steps` steps.
        """
        z, rows, picture = self._take(self._random(rng, count, num_steps, by_key), num_steps)
        if still:
            stands = torch.from_numpy(rng.random(len(z)) < still)
            z[stands], rows[stands] = z[stands, :1], 0.0
        return z, rows, picture

    def spread(self, count: int, num_steps: int) -> Batch:
        """About `count` clips, the same at every call: as many of each game, evenly over its recording."""
        return self._take(self._even(count, num_steps), num_steps)

    def draw_told(self, rng: np.random.Generator, count: int, num_steps: int, by_key: float = 0.0) -> ToldBatch:
        """As `draw`, for a model that generates its start."""
        return self._take_told(self._random(rng, count, num_steps, by_key), num_steps)

    def spread_told(self, count: int, num_steps: int) -> ToldBatch:
        """As `spread`, for a model that generates its start."""
        return self._take_told(self._even(count, num_steps), num_steps)

    def openings(self, each: int) -> tuple[Tensor, Tensor]:
        """Start pictures, `each` of every game: latents (n, c, h, w), and the pictures."""
        return _stacked(part.opening(start) for part in self.parts for start in _spaced(part.opens, each))

    def openings_told(self, each: int, num_steps: int) -> tuple[Tensor, Tensor]:
        """As `openings`, for a model that generates its start: tokens, and `num_steps` latents of each."""
        return _stacked(part.told(start, num_steps) for part in self.parts for start in _spaced(part.opens, each))

    def play(self, rng: np.random.Generator, count: int, blocks: int) -> Batch:
        """Random openings (count, 1, c, h, w), and `blocks` steps of play of the same game, from other moments.

        A run of actions that meets its episode's end goes on with another.  Returned in the order of `Batch`.
        """
        z, rows, picture = [], [], []
        for i in rng.integers(len(self.parts), size=count).tolist():
            part = self.parts[i]
            latent, seen = part.opening(rng.choice(part.opens))
            step, steps = int(rng.integers(len(part))), []
            for _ in range(blocks):
                steps.append(step)
                ends = step + 1 == len(part) or part.episode[step + 1] != part.episode[step]
                step = int(rng.integers(len(part))) if ends else step + 1
            z.append(latent[None])
            rows.append(self._said(i, part.rows[steps]))
            picture.append(seen)
        return tuple(torch.from_numpy(np.stack(x)) for x in (z, rows, picture))  # type: ignore[return-value]

    def _starts(self, i: int, num_steps: int) -> npt.NDArray[np.int64]:
        if (i, num_steps) not in self._known_starts:
            self._known_starts[i, num_steps] = self.parts[i].starts(num_steps)
        return self._known_starts[i, num_steps]

    def _holds(self, i: int, num_steps: int) -> list[npt.NDArray[np.int64]]:
        """For each key of recording i that is ever held: the starts of clips in a quarter of which, or more, it is."""
        if (i, num_steps) not in self._known_holds:
            part, starts = self.parts[i], self._starts(i, num_steps)
            held = part.rows[:, :, : len(part.action_space.keys)].mean(1)
            so_far = np.concatenate([np.zeros((1, held.shape[1])), held.cumsum(0)])
            share = (so_far[starts + num_steps] - so_far[starts + 1]) / (num_steps - 1)
            self._known_holds[i, num_steps] = [starts[key >= 0.25] for key in share.T if (key >= 0.25).any()]
        return self._known_holds[i, num_steps]

    def _random(
        self, rng: np.random.Generator, count: int, num_steps: int, by_key: float = 0.0
    ) -> list[tuple[int, int]]:
        """Which recording, and where in it."""
        picks = []
        for i in rng.integers(len(self.parts), size=count).tolist():
            starts = self._starts(i, num_steps)
            if by_key and rng.random() < by_key and (holds := self._holds(i, num_steps)):
                starts = holds[rng.integers(len(holds))]
            picks.append((i, rng.choice(starts)))
        return picks

    def _even(self, count: int, num_steps: int) -> list[tuple[int, int]]:
        each = -(-count // len(self.parts))
        picks = []
        for i in range(len(self.parts)):
            starts = self._starts(i, num_steps)
            chosen = starts[np.linspace(0, len(starts) - 1, min(each, len(starts))).astype(int)]
            picks += [(i, start) for start in chosen]
        return picks

    def _take_told(self, picks: Sequence[tuple[int, int]], num_steps: int) -> ToldBatch:
        z, rows, _ = self._take(picks, num_steps)
        tokens, latents = _stacked(self.parts[i].told(start, num_steps) for i, start in picks)
        return z, rows, tokens, latents

    def _take(self, picks: Sequence[tuple[int, int]], num_steps: int) -> Batch:
        z, rows, picture = [], [], []
        for i, start in picks:
            part, index = self.parts[i], start + np.arange(num_steps)
            clip = part.z[index].astype(np.float32)
            clip[0], seen = part.opening(start)
            z.append(clip)
            rows.append(self._said(i, part.rows[index[1:]]))
            picture.append(seen)
        return tuple(torch.from_numpy(np.stack(x)) for x in (z, rows, picture))  # type: ignore[return-value]

    def _said(self, i: int, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Rows (t, 4, a) of recording i, in the joint action space: (4 t, a)."""
        out = np.zeros((rows.shape[0] * rows.shape[1], self.action_space.size), np.float32)
        out[:, self._columns[i]] = rows.reshape(len(out), -1)
        if self.parts[i].action_space.mouse:
            out[:, len(self.action_space.keys) :] *= self._scale[i]
        return with_idle_key(out, self.action_space, self.idle_key)


def with_idle_key(rows: npt.NDArray[np.float32], space: ActionSpace, idle_key: str | None) -> npt.NDArray[np.float32]:
    """Rows (f, a), in place, with the key that is down whenever no other is, as a session says them."""
    if idle_key is not None:
        place = space.keys.index(idle_key)
        rows[:, place] = 0
        rows[:, place] = rows[:, : len(space.keys)].sum(1) == 0
    return rows


def _spaced(opens: npt.NDArray[np.int64], count: int) -> list[int]:
    return [int(opens[len(opens) * (k + 1) // (count + 1)]) for k in range(count)]


def _stacked(pairs: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> tuple[Tensor, Tensor]:
    first, second = zip(*pairs, strict=True)
    return torch.from_numpy(np.stack(first)), torch.from_numpy(np.stack(second))


class Recordings(Protocol):
    """What the configuration of a stage says of recordings.

    data, held_out: datasets; latents: where they are kept encoded, None: in `output`; hours: of each dataset, at most.
    """

    @property
    def data(self) -> tuple[Path, ...]: ...
    @property
    def held_out(self) -> tuple[Path, ...]: ...
    @property
    def latents(self) -> Path | None: ...
    @property
    def output(self) -> Path: ...
    @property
    def max_hours(self) -> float | None: ...
    @property
    def held_out_hours(self) -> float: ...


def load_both(
    config: Recordings, tokenizer: VideoTokenizer | WanVAE, device: torch.device, **options: Any
) -> tuple[Clips, Clips]:
    """The clips to train on, and those to measure on: the same where none are held out.  options: of `load_clips`."""
    folder = config.latents or config.output / "latents"
    train = load_clips(config.data, tokenizer, folder, device, config.max_hours, **options)
    if not config.held_out:
        return train, train
    folder = config.latents or config.output / "latents-held-out"
    options = options | {"action_space": train.action_space}
    return train, load_clips(config.held_out, tokenizer, folder, device, config.held_out_hours, **options)


def load_for(model: ModelBundle, config: Recordings, device: torch.device) -> tuple[Clips, Clips]:
    """As `load_both`, in the latents, the actions and the field of view of a finished model of our own."""
    given = {"fov_deg": model.config.mouse_fov_deg, "action_space": model.config.action_space}
    return load_both(config, model.tokenizer, device, **given)


def joint_space(spaces: Iterable[ActionSpace]) -> ActionSpace:
    """All keys of the spaces, in order of appearance, and a mouse if one has it."""
    keys: dict[str, None] = {}
    mouse = False
    for space in spaces:
        keys |= dict.fromkeys(space.keys)
        mouse |= space.mouse
    return ActionSpace(tuple(keys), mouse=mouse)


def load_clips(
    folders: Sequence[Path],
    tokenizer: VideoTokenizer | WanVAE,
    cache: Path,
    device: torch.device,
    max_hours: float | None = None,
    fov_deg: float | None = None,
    action_space: ActionSpace | None = None,
    idle_key: str | None = None,
    start: StartEncoder | None = None,
) -> Clips:
    """The latents of these recordings, each kept in `cache`/its name.  max_hours: of each; start: of a model that
    generates its start; the rest as `Clips` takes it.  Raises DataError."""
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two recordings are called {name}; give one of them another name")
    pairs = zip(folders, names, strict=True)
    parts = [load_latents(folder, tokenizer, cache / name, device, max_hours, start) for folder, name in pairs]
    return Clips(parts, fov_deg, action_space, idle_key)


def load_latents(
    data: Path,
    tokenizer: VideoTokenizer | WanVAE,
    cache: Path,
    device: torch.device,
    max_hours: float | None = None,
    start: StartEncoder | None = None,
) -> LatentClips:
    """The latents of the dataset at `data`, from `cache` if it holds them for this tokenizer and dataset.

    max_hours: take no more than this of the dataset; start: of a model that generates its start.  Raises DataError as
    `Dataset` does.
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
    stamp = cache / "latents.json"
    if stamp.is_file() and _is_of(stamp, wanted, dataset):
        return _read(cache, dataset, fields)
    cache.mkdir(parents=True, exist_ok=True)
    budget = dataset.num_frames if max_hours is None else int(max_hours * 3600 * dataset.fps)
    clips = _encode(dataset, tokenizer, device, min(budget, dataset.num_frames), start)
    for field in fields:
        np.save(cache / f"{field}.npy", getattr(clips, field))
    write_json_atomic(stamp, wanted)
    return _read(cache, dataset, fields)


def _is_of(stamp: Path, wanted: dict[str, Any], dataset: Dataset) -> bool:
    """True where the latents beside `stamp` were made of this dataset, as it is now.

    Stamps of older versions have no fingerprint: there the dataset must not have changed since.
    """
    try:
        made = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return False
    if "dataset" in made:
        return bool(made == wanted)
    tables = (dataset.path / "meta/episodes").glob("*/*.parquet")
    is_older = all(table.stat().st_mtime < stamp.stat().st_mtime for table in tables)
    return is_older and {**made, "dataset": wanted["dataset"]} == wanted


def _read(cache: Path, dataset: Dataset, fields: Sequence[str]) -> LatentClips:
    arrays = {field: np.load(cache / f"{field}.npy", mmap_mode="r") for field in fields}
    return LatentClips(**arrays, action_space=dataset.action_space, fov_deg=dataset.fov_deg)


def _encode(
    dataset: Dataset,
    tokenizer: VideoTokenizer | WanVAE,
    device: torch.device,
    budget_frames: int,
    start_encoder: StartEncoder | None = None,
) -> LatentClips:
    parts: dict[str, list[np.ndarray]] = {field: [] for field in LatentClips.FIELDS + LatentClips.START_FIELDS}
    open_every = STILL_EVERY if start_encoder is None else start_encoder.every
    total, done, steps_done = budget_frames, 0, 0
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
                clip = dataset.clip(int(index), start, stop - start, depth=False)
                video = to_pixels(rearrange(torch.from_numpy(clip.frames).to(device), "f h w c -> 1 f c h w"))
                if state is None:
                    state = tokenizer.new_encoder_state(1, *video.shape[-2:], device=device)
                z = tokenizer.encode(video, state)[0]
                ends = video[0, ::STEP_FRAMES] if first == 0 else video[0, STEP_FRAMES - 1 :: STEP_FRAMES]
                actions.append(clip.actions)
                parts["z"].append(z.half().cpu().numpy())
                steps = np.arange(first, last)
                opens = steps[steps % open_every == 0]
                if len(opens):
                    alone = ends[torch.from_numpy(opens - first)]
                    parts["opens"].append(steps_done + opens)
                    if start_encoder is None:
                        still = tokenizer.encode(alone[:, None])[:, 0]
                    else:
                        still, grey = start_encoder.latents(alone).split([1, start_encoder.grey_steps], 1)
                        still = still[:, 0]
                        parts["grey"].append(grey.half().cpu().numpy())
                        parts["tokens"].append(start_encoder.tokens(alone).half().cpu().numpy())
                    parts["still"].append(still.half().cpu().numpy())
                    parts["picture"].append(to_bytes(F.avg_pool2d(alone, 2)).cpu().numpy())
                parts["episode"].append(np.full(last - first, index, np.int32))
            led = np.concatenate(actions)[: STEP_FRAMES * (num_steps - 1)]
            led = np.concatenate([np.zeros((STEP_FRAMES, led.shape[1]), np.float32), led])
            parts["rows"].append(led.reshape(num_steps, STEP_FRAMES, -1))
            steps_done += num_steps
            done += length
            progress.update(bar, completed=min(done, total))
    joined = {field: np.concatenate(arrays) for field, arrays in parts.items() if arrays}
    if len(joined.get("z", ())) < 2:
        raise DataError("the dataset holds no episode of 5 frames or more; record longer ones")
    return LatentClips(**joined, action_space=dataset.action_space, fov_deg=dataset.fov_deg)
