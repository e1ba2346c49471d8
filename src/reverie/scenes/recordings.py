"""Scenes from recordings: LeRobot datasets with camera poses and depth are read, thinned and split.

A scene is one place.  Episodes of other places than the one with the most frames are left out, unless another is named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reverie.data.dataset import Dataset, Episode
from reverie.data.poses import recorded_world
from reverie.errors import DataError
from reverie.scenes.assemble import Report, Stack, make_keyframes
from reverie.scenes.keyframes import Keyframes
from reverie.scenes.recorded_body import BodyWalk
from reverie.scenes.recorded_ways import find_walked
from reverie.types import STEP_FRAMES, ActionSpace, ClipDepth
from reverie.vision.projection import VIEW_SIZE, focal_lengths
from reverie.vision.rendering import dilate

MAX_FRAMES = 1200
"""Frames that keyframes are chosen among; of longer recordings they are spread evenly."""
MAX_BODY_FRAMES = 12_000
"""Frames of walks that are looked through for the player's body: 1 GB at nano's size."""
HELD_OUT_EVERY = 8
"""One episode in so many is held out where none is marked; of a single episode, the last part of that size."""
PLACE_BY_SEED = ("temple", "minetest")
"""Games whose map names a kind of place; the place itself is decided by the seed."""


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames of one place with depth and pose, split into those to build from and those held out.

    game, place: names; action_space: of the recordings; map, seed, options: that the game was opened with there, where
    the recordings say so.
    """

    game: str
    place: str
    fov_deg: float
    pixel_aspect: float
    action_space: ActionSpace
    frames: Keyframes
    held_out: Keyframes
    map: str | None = None
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def focal(self) -> torch.Tensor:
        """Focal lengths of rendered views: (2,)."""
        return focal_lengths(torch.tensor([self.fov_deg]), self.pixel_aspect)[0]


def open_recordings(folders: Sequence[Path], fov_deg: float | None = None) -> tuple[list[Dataset], float]:
    """Opens recordings that may be used together, with their field of view.

    fov_deg: of recordings that do not hold theirs.  Raises DataError, naming what is missing, for recordings without
    camera poses, depth or field of view, and for recordings of different cameras, sizes or actions.
    """
    if not folders:
        raise DataError("expected at least one recording, got none; name the folder of a LeRobot dataset")
    datasets = [Dataset(folder) for folder in folders]
    seen: dict[str, tuple[object, Path]] = {}
    angle = fov_deg
    for dataset in datasets:
        dataset.require_poses()
        if not any(episode.depth_file for episode in dataset.episodes):
            raise DataError(
                f"{dataset.path}: has camera poses, but no depth; record the game again with `reverie record` "
                "(--depth-every 4), or write depth/ beside data/ (docs: reverie.data.depth)"
            )
        own = dataset.fov_deg or fov_deg
        if own is None:
            raise DataError(
                f'{dataset.path}: does not say its field of view ("fov_deg" in meta/reverie.json); give it with --fov'
            )
        angle = own
        facts = {
            "resolution": dataset.resolution,
            "field of view": round(own, 3),
            "pixel aspect": dataset.pixel_aspect,
            "actions": tuple(dataset.action_space.names),
            "frame rate": dataset.fps,
        }
        for name, value in facts.items():
            before, where = seen.setdefault(name, (value, dataset.path))
            if before != value:
                raise DataError(
                    f"{dataset.path}: {name} is {value}, but {before} in {where}; use recordings of one game"
                )
    assert angle is not None
    return datasets, float(angle)


def game_of(dataset: Dataset) -> str:
    """The recorded game; the folder's name where the recording has none."""
    return recorded_world(dataset.notes) or dataset.path.resolve().name


def place_of(dataset: Dataset, episode: Episode) -> str:
    """The place that an episode was played in: episodes with the same name share their coordinates."""
    name = str(episode.meta.get("map") or "")
    if episode.meta.get("place") is not None:
        return f"{name or game_of(dataset)}/place-{episode.meta['place']}"
    if game_of(dataset) in PLACE_BY_SEED:
        name = f"{name or game_of(dataset)}/seed-{episode.meta.get('seed')}"
    return name


def is_held_out(dataset: Dataset, number: int) -> bool:
    """Returns whether an episode is held out of training and of scenes: as it is marked, else every eighth."""
    if any(episode.is_heldout for episode in dataset.episodes):
        return dataset.episodes[number].is_heldout
    return number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def read_footage(
    folders: Sequence[Path],
    place: str | None = None,
    fov_deg: float | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Footage:
    """Reads the frames with depth of one place.

    place: its name (None: the place with the most frames); fov_deg: of recordings that do not hold theirs; seed:
    decides which episodes are held out, where `is_held_out` is true of none or of all.  Raises DataError for recordings
    that cannot be used.
    """
    datasets, angle = open_recordings(folders, fov_deg)
    games = {game_of(dataset) for dataset in datasets}
    if len(games) > 1:
        raise DataError(f"a scene is of one game, got recordings of {', '.join(sorted(games))}; build one of each")
    chosen, episodes = _episodes_of(datasets, place)
    train, held_out = _read_split(episodes, seed, report)
    focal = focal_lengths(torch.tensor([angle]), datasets[0].pixel_aspect)[0]
    return Footage(
        games.pop(),
        chosen,
        angle,
        datasets[0].pixel_aspect,
        datasets[0].action_space,
        make_keyframes(*train, focal),
        make_keyframes(*held_out, focal),
        *_opened_with(*episodes[0]),
    )


def read_poses(
    folders: Sequence[Path], place: str | None = None, fov_deg: float | None = None, seed: int = 0
) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
    """Poses (frames, 6) of the episodes of one place, to build from and held out, without their images; some may be no
    numbers.

    Arguments and what is held out are those of `read_footage`.
    """
    _, episodes = _episodes_of(open_recordings(folders, fov_deg)[0], place)
    parts: tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]] = ([], [])
    for (dataset, number), held_out in zip(episodes, mark_held_out(episodes, seed), strict=True):
        poses = dataset.poses(number)
        assert poses is not None
        parts[held_out].append(poses.astype(np.float32))
    if parts[False] and not parts[True]:
        last = parts[False].pop()
        cut = len(last) - len(last) // HELD_OUT_EVERY
        parts = ([*parts[False], last[:cut]], [last[cut:]])
    return parts


def read_body_walks(
    folders: Sequence[Path], place: str | None = None, fov_deg: float | None = None, seed: int = 0
) -> list[BodyWalk]:
    """Walks of one place, none of those held out, that have a body mask for every frame; of `MAX_BODY_FRAMES` at most.

    Arguments and what is held out are those of `read_footage`.
    """
    _, episodes = _episodes_of(open_recordings(folders, fov_deg)[0], place)
    walks: list[BodyWalk] = []
    for (dataset, number), held_out in zip(episodes, mark_held_out(episodes, seed), strict=True):
        length = dataset.episodes[number].length
        if held_out or sum(len(walk.frames) for walk in walks) + length > MAX_BODY_FRAMES:
            continue
        first = dataset.depth(number, 0, min(STEP_FRAMES, length))
        if first is None or len(first) < min(STEP_FRAMES, length):
            continue  # usually a mask for every fourth frame: nothing is decoded to find that out
        clip = dataset.clip(number)
        if clip.depth is None or clip.poses is None or len(clip.depth) < length or not np.isfinite(clip.poses).all():
            continue
        walks.append(BodyWalk(clip.frames, clip.depth.body, clip.actions, clip.poses.astype(np.float32)))
    return walks


def _episodes_of(datasets: Sequence[Dataset], place: str | None) -> tuple[str, list[tuple[Dataset, int]]]:
    """A place, by default the one with the most frames, and its episodes with depth.  Raises DataError for another."""
    found = [(d, i) for d in datasets for i, episode in enumerate(d.episodes) if episode.depth_file is not None]
    lengths: Counter[str] = Counter()
    for dataset, number in found:
        lengths[place_of(dataset, dataset.episodes[number])] += dataset.episodes[number].length
    chosen = lengths.most_common(1)[0][0] if place is None else place
    if chosen not in lengths:
        raise DataError(f"there is no place {chosen!r} in these recordings; they have {', '.join(sorted(lengths))}")
    return chosen, [(d, i) for d, i in found if place_of(d, d.episodes[i]) == chosen]


def _opened_with(dataset: Dataset, number: int) -> tuple[str | None, int | None, dict[str, Any]]:
    """Map, seed and options that the game was opened with for an episode."""
    meta = dataset.episodes[number].meta
    name, seed = meta.get("map") or None, meta.get("seed")
    return name, None if seed is None else int(seed), json.loads(meta.get("options") or "{}")


def _read_split(episodes: Sequence[tuple[Dataset, int]], seed: int, report: Report | None) -> tuple[Stack, Stack]:
    """The frames to build from, and those held out: marked episodes, else one in eight, else the last eighth."""
    marked = mark_held_out(episodes, seed)
    parts: tuple[list[Stack], list[Stack]] = ([], [])
    total = sum(dataset.episodes[number].length for dataset, number in episodes)
    for i, (dataset, number) in enumerate(episodes):
        if report is not None:
            report(i / len(episodes), "reading recordings")
        # Memory stays bounded for hours of play: an episode has its share of what a scene chooses among.
        limit = -(-2 * MAX_FRAMES * dataset.episodes[number].length // total)
        parts[marked[i]].append(_read_episode(dataset, number, limit))
    if not parts[True]:
        (whole,) = parts[False]
        kept = len(whole[3]) - max(2, len(whole[3]) // HELD_OUT_EVERY)
        parts = ([_cut(whole, slice(0, kept))], [_cut(whole, slice(kept, None))])
    train, held_out = (_thin(_join(part)) for part in parts)
    for name, stack in (("to build from", train), ("held out", held_out)):
        if len(stack[3]) < 2:
            raise DataError(f"expected at least 2 frames with depth {name}, got {len(stack[3])}; record a longer walk")
    return train, held_out


def mark_held_out(episodes: Sequence[tuple[Dataset, int]], seed: int) -> list[bool]:
    """Marks the episodes that are held out: as they are marked, else one in eight, and none of a single one."""
    marked = [is_held_out(dataset, number) for dataset, number in episodes]
    if not any(marked) or all(marked):
        order = np.random.default_rng(seed).permutation(len(episodes))
        count = -(-len(episodes) // HELD_OUT_EVERY) if len(episodes) > 1 else 0
        marked = [bool(number < count) for number in order]
    return marked


def _read_episode(dataset: Dataset, number: int, limit: int) -> Stack:
    """At most `limit` of the frames of an episode that have depth, spread evenly, none of a fall."""
    clip = dataset.clip(number)
    assert clip.poses is not None
    depth = clip.depth
    if depth is None:
        empty = np.zeros((0, *VIEW_SIZE), np.float32)
        depth = ClipDepth(np.zeros(0, np.int64), empty, empty.astype(np.bool_))
    walked = np.flatnonzero(find_walked(clip.poses)[depth.frames])
    index = walked[_spread(len(walked), limit)]
    frames = depth.frames[index]
    # At its rim a body has a share of the pixels beside its mask, which would be left as crumbs.
    body = dilate(torch.from_numpy(depth.body[index])).numpy()
    return clip.frames[frames], depth.depth[index], body, clip.poses[frames]


def _spread(count: int, limit: int) -> npt.NDArray[np.intp]:
    """At most `limit` of `count` indices, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.intp)) if count else np.arange(0)


def _join(parts: Sequence[Stack]) -> Stack:
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))  # type: ignore[return-value]


def _cut(stack: Stack, part: slice) -> Stack:
    return tuple(array[part] for array in stack)  # type: ignore[return-value]


def _thin(stack: Stack) -> Stack:
    index = _spread(len(stack[3]), MAX_FRAMES)
    return tuple(array[index] for array in stack)  # type: ignore[return-value]
