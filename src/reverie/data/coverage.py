"""Coverage statistics of a dataset: keys, alone and together and for how long; the speed of camera rotation; the places
visited; the shares that are idle, stuck or still.  `reverie data report DIR` shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.data import signals
from reverie.data.audit import world_of
from reverie.data.checks import SAME, held, limits_of, usual_travel
from reverie.data.dataset import Dataset, _matrix
from reverie.errors import DataError
from reverie.worlds.limits import Limits

CLIP_FRAMES = 50
"""Stuck and near-static are measured on clips of two seconds."""
SPEED_EDGES = (0.0, 1.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
"""Degrees a second; the last bin has no end."""
PITCH_EDGES = tuple(float(edge) for edge in range(-90, 91, 15))
GRID = 40
"""Cells of a place's heat map, each way."""
NAMED_COUNTS = 24
"""Largest number of distinct values of an episode's attribute (weather, time, ...) that are counted one by one."""
PRIVATE = {
    "episode_index",
    "length",
    "tasks",
    "dataset_from_index",
    "dataset_to_index",
    "source",
    "source_from_s",
    "source_content",
    "source_options",
    "cut",
}


@dataclass(slots=True)
class KeyUse:
    """Statistics of one key.  share: of frames that hold it; presses; how long a press lasts, in seconds."""

    share: float
    presses: int
    median_s: float
    p90_s: float
    longest_s: float


@dataclass(slots=True)
class Coverage:
    """The figures of a report; `as_json` for a file.  Shares are of all frames unless stated otherwise."""

    dataset: str
    world: str
    episodes: int
    frames: int
    hours: float
    keys: dict[str, KeyUse] = field(default_factory=dict)
    combinations: dict[str, float] = field(default_factory=dict)
    """Share of frames by what is held together, the most frequent first."""
    idle: dict[str, float] = field(default_factory=dict)
    """share: neither key nor turn; stretches_3s: stretches of 3 s and more; longest_s."""
    camera_speed: dict[str, list[float]] = field(default_factory=dict)
    """yaw and pitch: share of frames in each bin of SPEED_EDGES, by mouse, or by pose where there is no mouse."""
    turns_right: float | None = None
    """The share of turns that go to the right."""
    view_pitch: list[float] = field(default_factory=list)
    """Share of frames in each bin of PITCH_EDGES; empty without poses."""
    places: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By map: frames, cells visited, extent [x0, x1, y0, y1] and the heat map's counts, GRID x GRID."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Episodes by map, and by their other attributes."""
    distinct_seeds: int = 0
    stuck_clips: float | None = None
    """The share of clips whose keys have no effect; None without poses."""
    static_clips: float = 0.0
    """The share of sampled clips that hardly change."""
    sampled_clips: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries."""
        return {**asdict(self), "speed_edges_deg_s": SPEED_EDGES, "pitch_edges_deg": PITCH_EDGES}


@dataclass(frozen=True, slots=True)
class _Play:
    """One episode without its frames."""

    index: int
    map: str
    actions: npt.NDArray[np.float32]
    poses: npt.NDArray[np.float32] | None


def measure(dataset: Dataset, clips: int = 200, seed: int = 0) -> Coverage:
    """Go through all rows, and through the frames of `clips` clips.  Raises DataError for damaged files."""
    plays = list(_plays(dataset))
    found = Coverage(
        str(dataset.path), world_of(dataset), len(plays), dataset.num_frames, dataset.num_frames / dataset.fps / 3600
    )
    if not found.frames:
        raise DataError(f"{dataset.path}: has no frames to report on")
    _use_of_keys(found, plays, dataset)
    _camera(found, plays, dataset)
    _places(found, plays)
    _counts(found, dataset)
    limits = limits_of(found.world)
    found.stuck_clips = _stuck(plays, dataset, limits)
    found.static_clips, found.sampled_clips = _static(dataset, clips, seed)
    return found


def _plays(dataset: Dataset) -> Iterator[_Play]:
    for index, episode in enumerate(dataset.episodes):
        rows = dataset.rows(index)
        actions = _matrix(rows, "action", dataset.action_space.size, episode.data_file)
        yield _Play(index, str(episode.meta.get("map") or ""), actions, dataset.poses(index))


def runs(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return edges[1::2] - edges[::2]


def _use_of_keys(found: Coverage, plays: list[_Play], dataset: Dataset) -> None:
    keys, fps = dataset.action_space.keys, dataset.fps
    lengths: dict[str, list[int]] = {key: [] for key in keys}
    idle_runs: list[int] = []
    together: Counter[str] = Counter()
    for play in plays:
        down = play.actions[:, : len(keys)] > 0.5
        for i, key in enumerate(keys):
            lengths[key] += runs(down[:, i]).tolist()
        idle_runs += runs(np.logical_and.reduce(np.abs(play.actions) < 1e-6, axis=1)).tolist()
        patterns, counts = np.unique(down, axis=0, return_counts=True)
        for pattern, count in zip(patterns, counts, strict=True):
            together["+".join(key for key, is_down in zip(keys, pattern, strict=True) if is_down) or "none"] += int(
                count
            )
    for key, pressed in lengths.items():
        seconds = np.array(pressed or [0]) / fps
        figures = (float(np.median(seconds)), float(np.percentile(seconds, 90)), float(seconds.max()))
        found.keys[key] = KeyUse(sum(pressed) / found.frames, len(pressed), *figures)
    found.combinations = {name: count / found.frames for name, count in together.most_common(20)}
    found.idle = {
        "share": sum(idle_runs) / found.frames,
        "stretches_3s": float(sum(length >= 3 * fps for length in idle_runs)),
        "longest_s": max(idle_runs, default=0) / fps,
    }


def _camera(found: Coverage, plays: list[_Play], dataset: Dataset) -> None:
    turns = [turn for play in plays if (turn := _turns(play, dataset)) is not None]
    if turns:
        speed = np.concatenate(turns) * dataset.fps
        edges = (*SPEED_EDGES, np.inf)
        for column, name in enumerate(("pitch", "yaw")):
            found.camera_speed[name] = (np.histogram(np.abs(speed[:, column]), edges)[0] / len(speed)).tolist()
        clear = speed[np.abs(speed[:, 1]) > SPEED_EDGES[1], 1]
        found.turns_right = float((clear > 0).mean()) if len(clear) else None
    poses = [play.poses for play in plays if play.poses is not None]
    if poses:
        pitch = np.concatenate([one[:, 4] for one in poses]).clip(-90, 89.9)
        found.view_pitch = (np.histogram(pitch, PITCH_EDGES)[0] / len(pitch)).tolist()


def _turns(play: _Play, dataset: Dataset) -> npt.NDArray[np.float32] | None:
    """(pitch, yaw) degrees a frame: the mouse's, or what the pose turned where there is none."""
    if dataset.action_space.mouse:
        return play.actions[:, -2:]
    if play.poses is None:
        return None
    turned = np.diff(play.poses[:, 3:5], axis=0)[:, ::-1]
    return (turned + 180.0) % 360.0 - 180.0


def _places(found: Coverage, plays: list[_Play]) -> None:
    """Heat maps on the ground: x, and whichever of y and z the player covers more of."""
    by_map: dict[str, list[npt.NDArray[np.float32]]] = {}
    for play in plays:
        if play.poses is not None:
            by_map.setdefault(play.map or "(no name)", []).append(play.poses[:, :3])
    if not by_map:
        return
    spread = [float(np.median([np.ptp(one[:, axis]) for parts in by_map.values() for one in parts])) for axis in (1, 2)]
    other = 1 if spread[0] >= spread[1] else 2
    for name, parts in sorted(by_map.items(), key=lambda item: -sum(map(len, item[1]))):
        found.places[name] = _heat_map(*np.concatenate(parts)[:, (0, other)].T)


def _heat_map(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Counts of frames on a square grid that holds all of them."""
    half = max(np.ptp(x), np.ptp(y), 1e-6) / 2 * 1.02
    middle = ((x.max() + x.min()) / 2, (y.max() + y.min()) / 2)
    extent = [[m - half, m + half] for m in middle]
    heat = np.histogram2d(x, y, GRID, extent)[0].astype(int)
    return {
        "frames": len(x),
        "cells": int((heat > 0).sum()),
        "extent": [float(edge) for pair in extent for edge in pair],
        "heat": heat.T[::-1].tolist(),
    }


def _counts(found: Coverage, dataset: Dataset) -> None:
    metas = [episode.meta for episode in dataset.episodes]
    seeds = [meta["seed"] for meta in metas if isinstance(meta.get("seed"), int) and meta["seed"] >= 0]
    found.distinct_seeds = len(set(seeds))
    names = {name for meta in metas for name in meta} - PRIVATE - {"seed"}
    for name in sorted(names):
        values = [meta.get(name) for meta in metas]
        if all(value is None or isinstance(value, str | bool | int | float) for value in values):
            counted = Counter(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)
            if name == "map" or len(counted) <= NAMED_COUNTS:
                found.counts[name] = dict(counted.most_common())


def _stuck(plays: list[_Play], dataset: Dataset, limits: Limits) -> float | None:
    """Clips of CLIP_FRAMES whose keys are held throughout and move the player by less than `limits` ask for."""
    asked: list[bool] = []
    reaches: list[float] = []
    travels: list[float] = []
    for play in plays:
        if play.poses is None or len(play.poses) < CLIP_FRAMES:
            continue
        moving = held(play.actions, dataset.action_space, limits.keys)
        travels.append(usual_travel(np.linalg.norm(np.diff(play.poses[:, :3], axis=0), axis=1), moving))
        for start in range(0, len(play.poses) - CLIP_FRAMES + 1, CLIP_FRAMES):
            part = slice(start, start + CLIP_FRAMES)
            asked.append(bool(moving[part].all()))
            reaches.append(float(np.ptp(play.poses[part, :3], axis=0).max()))
    if not asked:
        return None
    travel = float(np.median(travels)) if limits.travel is None else limits.travel
    least = limits.stuck_share * travel * CLIP_FRAMES
    return float((np.array(asked) & (np.array(reaches) <= least)).mean())


def _static(dataset: Dataset, clips: int, seed: int) -> tuple[float, int]:
    """The share of clips, drawn by length of episode, whose frames hardly change."""
    room = np.array([max(0, episode.length - CLIP_FRAMES + 1) for episode in dataset.episodes], np.float64)
    if not room.sum() or not clips:
        return 0.0, 0
    rng = np.random.default_rng(seed)
    drawn = sorted((int(i), int(rng.integers(int(room[i])))) for i in rng.choice(len(room), clips, p=room / room.sum()))
    still = 0
    for index, start in drawn:
        frames = dataset.clip(index, start, CLIP_FRAMES, depth=False).frames
        still += float((signals.change(signals.thumbnails(frames)) < SAME).mean()) > 0.9
    return still / clips, clips
