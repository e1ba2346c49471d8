"""Motions of recordings, read without their videos, and ego-motion networks fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.models.depth import MAX_DEPTH_M, MIN_DEPTH_M
from reverie.scenes.ego_motion import EgoMotionNet, depth_ahead
from reverie.scenes.recordings import HELD_OUT_EVERY, game_of, mark_held_out, open_recordings
from reverie.train.spatial.ego_motion import Drift, Motions, check_ego_motion, train_ego_motion
from reverie.train.spatial.encoded_recordings import common_actions
from reverie.types import STEP_FRAMES, ActionSpace

WIDTH = 128
"""Width of a scene's network: it knows one game."""
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class RecordedWalks:
    """Motions of recordings to fit a network to, and those held out; names: of their games."""

    action_space: ActionSpace
    names: tuple[str, ...]
    train: Motions
    held_out: Motions


def read_walks(
    folders: Sequence[Path], fov_deg: float | None = None, seed: int = 0, space: ActionSpace | None = None
) -> RecordedWalks:
    """Reads the motions of all episodes with depth; arguments and what is held out are those of `read_footage`.

    space: actions as a model takes them, and each folder is then a game of its own; without it all folders are of one
    game, with its own actions.  Raises DataError for recordings that cannot be used.
    """
    groups = [folders] if space is None else [[folder] for folder in folders]
    parts: tuple[list[Motions], list[Motions]] = ([], [])
    names, own = [], space
    for number, group in enumerate(groups):
        datasets, _ = open_recordings(group, fov_deg)
        own = space or datasets[0].action_space
        names.append(datasets[0].path.resolve().name if space else game_of(datasets[0]))
        for part, walks in zip(parts, _read_game(datasets, number, seed, own), strict=True):
            part += walks
    assert own is not None
    return RecordedWalks(own, tuple(names), *map(Motions.join, parts))


def _read_game(
    datasets: Sequence[Dataset], game: int, seed: int, space: ActionSpace
) -> tuple[list[Motions], list[Motions]]:
    """Walks to train on and held out; of a single episode, its last part is held out."""
    episodes = [(d, i) for d in datasets for i, episode in enumerate(d.episodes) if episode.depth_file is not None]
    parts: tuple[list[Motions], list[Motions]] = ([], [])
    for is_held_out, (dataset, number) in zip(mark_held_out(episodes, seed), episodes, strict=True):
        parts[is_held_out].extend(_read_episode(dataset, number, game, space))
    if not parts[True] and parts[False]:
        *others, last = parts[False]
        cut = len(last.motion) - len(last.motion) // HELD_OUT_EVERY
        parts = ([*others, last.part(0, cut)], [last.part(cut, len(last.motion))])
    return parts


def _read_episode(dataset: Dataset, number: int, game: int, space: ActionSpace) -> list[Motions]:
    """The walk of an episode as far as every fourth frame has depth and every pose is sound; none where it is short."""
    poses, depth = dataset.poses(number), dataset.depth(number)
    assert poses is not None
    assert depth is not None
    sound = len(poses) if np.isfinite(poses).all() else int(np.argmin(np.isfinite(poses).all(1)))
    wanted = np.arange(0, sound, STEP_FRAMES)
    found = np.searchsorted(depth.frames, wanted)
    there = np.append(depth.frames, -1)[found] == wanted
    steps = len(wanted) if there.all() else int(np.argmin(there))
    if steps < 2:
        return []
    last = STEP_FRAMES * (steps - 1)
    log_depth = torch.from_numpy(depth.depth[found[:steps]]).clamp(MIN_DEPTH_M, MAX_DEPTH_M).log()
    actions = torch.from_numpy(common_actions(dataset.actions(number)[:last], dataset.action_space, space))
    return [Motions.of_walk(torch.from_numpy(poses[: last + 1]), actions, depth_ahead(log_depth), game)]


def fit_ego_motion(
    walks: RecordedWalks, epochs: int, width: int = WIDTH, device: torch.device = CPU
) -> tuple[EgoMotionNet, dict[str, Drift]]:
    """Trains a network of the walks' actions.  Returns it, on the CPU, and its drift on what was held out, for games
    whose walks are long enough.

    Raises DataError for walks that are too short to learn from.
    """
    torch.manual_seed(0)
    network = EgoMotionNet(walks.action_space.size, width).to(device)
    train_ego_motion(network, walks.train.to(device), epochs=epochs)
    try:
        drifts = check_ego_motion(network, walks.held_out.to(device), walks.names)
    except DataError:
        drifts = {}
    return network.cpu(), drifts
