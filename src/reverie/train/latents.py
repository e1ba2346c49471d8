"""Clips of recordings that `reverie.train.encode` has made latents of: one source of several, with one action space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie.errors import DataError
from reverie.models.checkpoint import ModelBundle
from reverie.models.tokenizer import VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.train.config import WorldLoopOptions
from reverie.train.display import SILENT, Display
from reverie.train.encode import LatentClips, dataset_names, load_latents
from reverie.train.tables import GPU_SHARE, Rows, Table
from reverie.train.warm_start import StartEncoder
from reverie.types import ActionSpace
from reverie.vision.projection import turn_scale


class Batch(NamedTuple):
    """Clips.  For a GPU tensors of tables are `Rows` until the batch is moved.

    z: latents (b, t, c, h, w), whose first step is a start image's; rows: actions (b, 4 (t - 1), a); image: start
    images (b, 3, H/2, W/2) uint8, or, for a model that generates its start, their tokens (b, n, d); start: for such a
    model, latents (b, t, c, h, w) of the start image and of the grey after it.
    """

    z: Tensor
    rows: Tensor
    image: Tensor
    start: Tensor | None = None

    def split(self, count: int) -> Iterator[Batch]:
        """Batches of `count` of the clips."""
        for i in range(0, len(self.z), count):
            yield self.map(lambda x, i=i: x[i : i + count])

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with each of its tensors changed."""
        start = None if self.start is None else change(self.start)
        return Batch(change(self.z), change(self.rows), change(self.image), start)


class Clips:
    """Clips of one recording or several.

    A key that a game does not have is never held there.  Every game is drawn equally often, however much of it was
    recorded.  fov_deg: turns are scaled to this field of view, so that the same turn moves all frames alike.
    action_space: the joint space of rows; without one all keys of the games, in order of appearance, and a mouse if one
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
        self._tables = self._make_tables()
        self._known_starts: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        self._known_holds: dict[tuple[int, int], list[npt.NDArray[np.int64]]] = {}

    @property
    def has_starts(self) -> bool:
        """Returns whether the latents are those of a model that generates its start."""
        return all(part.tokens is not None and part.grey is not None for part in self.parts)

    @property
    def num_steps(self) -> int:
        return sum(map(len, self.parts))

    def _make_tables(self) -> dict[str, Table]:
        """latents: for each part its steps, its stills and, where the start is generated, the grey after these."""
        latents, fields = [], ["picture"]
        for part in self.parts:
            latents += [part.z, part.still]
            latents += [] if part.grey is None else [part.grey.reshape(-1, *part.grey.shape[2:])]
        if self.has_starts:
            fields.append("tokens")
        tables = {"latents": Table(latents)}
        return tables | {field: Table([getattr(part, field) for part in self.parts]) for field in fields}

    def serve(self, device: torch.device) -> None:
        """Have clips drawn for a network on `device`: what fits in a share of a GPU's free memory lies there."""
        free = GPU_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0.0
        for table in self._tables.values():
            free -= table.serve(device, free)

    def draw(
        self, rng: np.random.Generator, count: int, num_steps: int, by_key: float = 0.0, still: float = 0.0
    ) -> Batch:
        """Random clips; of them the share `by_key` is chosen by a key, each of a game's as often, that is held in them,
        and the share `still` made to stand still.

        Raises DataError if a recording has no episode of `num_steps` steps.
        """
        picks = self._random(rng, count, num_steps, by_key)
        steps, rows = self._steps(picks, num_steps), self._rows(picks, num_steps)
        if still:
            stands = rng.random(len(picks)) < still
            steps[stands], rows[stands] = steps[stands, :1], 0.0
        return self._batch(picks, steps, rows, num_steps, self._take)

    def spread(self, count: int, num_steps: int) -> Batch:
        """About `count` clips on the CPU, the same at every call: as many of each game, evenly over its recording."""
        picks = self._even(count, num_steps)
        steps, rows = self._steps(picks, num_steps), self._rows(picks, num_steps)
        return self._batch(picks, steps, rows, num_steps, self._read)

    def openings(self, each: int, num_steps: int = 1) -> Batch:
        """Clips of one step on the CPU, `each` of every game; `num_steps`: of `start`."""
        picks = self._spaced_openings(each)
        return self._batch(picks, self._steps(picks, 1), self._rows(picks, 1), num_steps, self._read)

    def _batch(
        self,
        picks: Sequence[tuple[int, int]],
        steps: npt.NDArray[np.int64],
        rows: npt.NDArray[np.float32],
        start_steps: int,
        read: Callable[[str, npt.NDArray[np.int64]], Any],
    ) -> Batch:
        z, opening = read("latents", steps), self._openings(picks)
        if not self.has_starts:
            return Batch(z, torch.from_numpy(rows), read("picture", opening))
        start = read("latents", self._start_steps(picks, start_steps))
        return Batch(z, torch.from_numpy(rows), read("tokens", opening), start)

    def play(self, rng: np.random.Generator, count: int, blocks: int) -> Batch:
        """Random openings (count, 1, c, h, w), and `blocks` steps of play of the same game, from other moments.

        A run of actions that meets its episode's end goes on with another.
        """
        picks, rows = [], []
        for i in rng.integers(len(self.parts), size=count).tolist():
            part = self.parts[i]
            picks.append((i, rng.choice(part.opens)))
            step, steps = int(rng.integers(len(part))), []
            for _ in range(blocks):
                steps.append(step)
                ends = step + 1 == len(part) or part.episode[step + 1] != part.episode[step]
                step = int(rng.integers(len(part))) if ends else step + 1
            rows.append(self._said(i, part.rows[steps]))
        return self._batch(picks, self._steps(picks, 1), np.stack(rows), 1, self._take)

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
        """Draws (recording, start) pairs of clips."""
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

    def _spaced_openings(self, each: int) -> list[tuple[int, int]]:
        return [(i, start) for i, part in enumerate(self.parts) for start in _spaced(part.opens, each)]

    def _openings(self, picks: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
        """Rows of the tables of first images (b,)."""
        return np.array([self._tables["picture"].first[i] + self.parts[i].opening(start) for i, start in picks])

    def _steps(self, picks: Sequence[tuple[int, int]], num_steps: int) -> npt.NDArray[np.int64]:
        """Rows of the table of latents (b, t): a clip's first step is encoded alone, as a start image is."""
        found = []
        for i, start in picks:
            z, still, *_ = self._latents_of(i)
            found.append(z + start + np.arange(num_steps))
            found[-1][0] = still + self.parts[i].opening(start)
        return np.stack(found)

    def _start_steps(self, picks: Sequence[tuple[int, int]], num_steps: int) -> npt.NDArray[np.int64]:
        """Rows of the table of latents (b, t): a start image, and the grey after it, the last of which holds for
        ever."""
        found = []
        for i, start in picks:
            (_, still, *grey), row, made = self._latents_of(i), self.parts[i].opening(start), self.parts[i].grey
            assert made is not None
            length = made.shape[1]
            after = grey[0] + row * length + np.minimum(np.arange(num_steps - 1), length - 1)
            found.append(np.concatenate([[still + row], after]))
        return np.stack(found)

    def _latents_of(self, i: int) -> npt.NDArray[np.int64]:
        """First rows, in the table of latents, of what it has of recording i."""
        arrays = [2 if part.grey is None else 3 for part in self.parts]
        begin = sum(arrays[:i])
        return self._tables["latents"].first[begin : begin + arrays[i]]

    def _rows(self, picks: Sequence[tuple[int, int]], num_steps: int) -> npt.NDArray[np.float32]:
        return np.stack([self._said(i, self.parts[i].rows[start + 1 : start + num_steps]) for i, start in picks])

    def _take(self, table: str, index: npt.NDArray[np.int64]) -> Tensor | Rows:
        """Rows for a batch."""
        return self._tables[table].take(index)

    def _read(self, table: str, index: npt.NDArray[np.int64]) -> Tensor:
        """Rows on the CPU."""
        return self._tables[table].read(index)

    def _said(self, i: int, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Rows (t, 4, a) of recording i, in the joint action space: (4 t, a)."""
        out = np.zeros((rows.shape[0] * rows.shape[1], self.action_space.size), np.float32)
        out[:, self._columns[i]] = rows.reshape(len(out), rows.shape[-1])
        if self.parts[i].action_space.mouse:
            out[:, len(self.action_space.keys) :] *= self._scale[i]
        return with_idle_key(out, self.action_space, self.idle_key)


def with_idle_key(rows: npt.NDArray[np.float32], space: ActionSpace, idle_key: str | None) -> npt.NDArray[np.float32]:
    """Rows (f, a), in place, with the key that is down whenever no other is, as a session encodes them."""
    if idle_key is not None:
        place = space.keys.index(idle_key)
        rows[:, place] = 0
        rows[:, place] = rows[:, : len(space.keys)].sum(1) == 0
    return rows


def _spaced(opens: npt.NDArray[np.int64], count: int) -> list[int]:
    return [int(opens[len(opens) * (k + 1) // (count + 1)]) for k in range(count)]


def load_both(
    config: WorldLoopOptions, tokenizer: VideoTokenizer | WanVAE, device: torch.device, **options: Any
) -> tuple[Clips, Clips]:
    """The clips to train on, served to `device`, and those to measure on: the same where none are held out.

    options: of `load_clips`.
    """
    folder = config.latents or config.output / "latents"
    train = load_clips(config.data, tokenizer, folder, device, config.max_hours, **options)
    train.serve(device)
    if not config.held_out:
        return train, train
    folder = config.latents or config.output / "latents-held-out"
    options = options | {"action_space": train.action_space}
    return train, load_clips(config.held_out, tokenizer, folder, device, config.held_out_hours, **options)


def load_for(
    model: ModelBundle, config: WorldLoopOptions, device: torch.device, display: Display = SILENT
) -> tuple[Clips, Clips]:
    """Runs `load_both` with the latents, the actions and the field of view of a finished model of our own."""
    given = {"fov_deg": model.config.mouse_fov_deg, "action_space": model.config.action_space}
    return load_both(config, model.tokenizer, device, **given, display=display)


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
    display: Display = SILENT,
) -> Clips:
    """The latents of these recordings, each kept in `cache`/its name.  max_hours: of each; start: of a model that
    generates its start; the rest as `Clips` takes it.  Raises DataError."""
    pairs = zip(folders, dataset_names(folders), strict=True)
    parts = [
        load_latents(folder, tokenizer, cache / name, device, max_hours, start, display=display)
        for folder, name in pairs
    ]
    return Clips(parts, fov_deg, action_space, idle_key)
