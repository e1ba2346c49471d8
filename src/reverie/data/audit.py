"""A dataset on disk, gone through: every file read, every episode judged again.  `reverie data check DIR` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.data import signals
from reverie.data.checks import SAME, bad_actions, judge
from reverie.data.dataset import Dataset, Episode
from reverie.data.poses import recorded_world
from reverie.errors import DataError, ReverieError
from reverie.types import Clip


@dataclass(frozen=True, slots=True)
class Examined:
    """One episode: what is damaged (files, rows), what the checks find wrong with the play, and some figures.

    still: share of frames like the one before; idle: share of frames without keys and turns.
    """

    episode: Episode
    damage: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    still: float = 0.0
    idle: float = 0.0


def open_dataset(path: str | Path) -> Dataset:
    """The dataset at `path`, its head read and understood.  Raises DataError, naming the file, for any other folder."""
    try:
        dataset = Dataset(path)
        _ = dataset.resolution, dataset.action_space
    except ReverieError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{Path(path) / 'meta'}: a malformed description ({error!r}); record it again") from error
    return dataset


def world_of(dataset: Dataset) -> str:
    """The game that was recorded, from `meta/reverie.json`; `imported` for what an importer brought, else empty."""
    return "imported" if "importer" in dataset.notes else recorded_world(dataset.notes)


def examine(dataset: Dataset, limit: int | None = None) -> Iterator[Examined]:
    """Read and judge every episode, or `limit` of them spread evenly."""
    world = world_of(dataset)
    chosen = range(dataset.num_episodes)
    if limit is not None and limit < len(chosen):
        chosen = np.linspace(0, len(chosen) - 1, limit).round().astype(int).tolist()
    for index in chosen:
        yield examine_episode(dataset, index, world)


def examine_episode(dataset: Dataset, index: int, world: str) -> Examined:
    """Read and judge one episode."""
    episode = dataset.episodes[index]
    try:
        clip = dataset.clip(index)
    except DataError as error:
        return Examined(episode, damage=(str(error),))
    verdict = judge(clip.frames, clip.actions, clip.poses, None, dataset.action_space, world)
    damage: list[str] = []
    if fault := bad_actions(clip.actions, dataset.action_space):
        damage.append(fault.reason)
    if clip.poses is not None and not np.isfinite(clip.poses).all():
        damage.append("has poses that are not numbers")
    reasons = () if damage else verdict.reasons
    changed = signals.change(signals.thumbnails(clip.frames))
    still = float((changed < SAME).mean()) if len(changed) else 0.0
    return Examined(episode, tuple(damage), reasons, still, _idle(clip))


def head_problems(dataset: Dataset) -> list[str]:
    """Lists disagreements between the totals in `meta/info.json` and the episode table; one line each."""
    path = dataset.path / "meta/info.json"
    counts = {"total_episodes": dataset.num_episodes, "total_frames": dataset.num_frames}
    found = [
        f"{path}: {name} is {dataset.info.get(name)}, the episode table has {value}"
        for name, value in counts.items()
        if dataset.info.get(name) != value
    ]
    indices = [episode.index for episode in dataset.episodes]
    if indices != list(range(len(indices))):
        found.append(f"{dataset.path / 'meta/episodes'}: episodes are not numbered 0 to {len(indices) - 1}")
    return found


def problems(dataset: Dataset) -> list[str]:
    """Everything damaged in a dataset, one line each that names the file and the episode; no opinion on the play."""
    return [
        *head_problems(dataset),
        *(line for seen in examine(dataset) for line in damage_lines(seen)),
    ]


def damage_lines(seen: Examined) -> list[str]:
    """The damage of one episode, each line with its file."""
    name = f"{seen.episode.data_file}: episode {seen.episode.index}"
    return [line if "/" in line else f"{name} {line}" for line in seen.damage]


def _idle(clip: Clip) -> float:
    return float((np.abs(clip.actions) < 1e-6).all(axis=1).mean())
