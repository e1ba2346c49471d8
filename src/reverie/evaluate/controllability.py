"""Action controllability of a video: the actions that an inverse-dynamics model names, against those asked.

The groups and the mouse's nine directions are those of the GameWorld Score (Matrix-Game, Skywork 2025): keyboard is the
accuracy over {back, forward, none} and {left, right, none} and of jump and attack each by itself; mouse is the share of
frames whose (pitch, yaw) falls into the same one of nine directions, with a dead zone of 0.01 of their mouse unit.
One degree is 1/15 of that unit, so the dead zone is 0.15 degrees.

Rows are those of an ActionSpace, `(f, size)`; all measures lie in [0, 1], higher is better, unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from reverie.errors import ShapeError
from reverie.evaluate.action_mapping import Rows
from reverie.types import ActionSpace

DEAD_ZONE_DEG = 0.15
GROUPS: Mapping[str, tuple[str, str]] = {"forward/back": ("forward", "back"), "left/right": ("left", "right")}
"""Keys that exclude each other: a group is one of them, or none (both held are none: they cancel)."""

TURNS: tuple[tuple[str, str], ...] = (("turn-left", "turn-right"), ("lean-left", "lean-right"))


def group_accuracy(named: Rows, asked: Rows, space: ActionSpace, pair: tuple[str, str]) -> float:
    """Share of frames whose one-of-three answer (first key, second key, none) is right.

    Chance depends on the play: read it beside the static video's.
    """
    return float((_one_of_three(named, space, pair) == _one_of_three(asked, space, pair)).mean())


def balanced_group_accuracy(named: Rows, asked: Rows, space: ActionSpace, pair: tuple[str, str]) -> float:
    """The same, averaged over the answers that were asked instead of over frames: a video that never moves gets 1/3."""
    true, found = _one_of_three(asked, space, pair), _one_of_three(named, space, pair)
    return float(np.mean([(found[true == answer] == answer).mean() for answer in np.unique(true)]))


def key_accuracy(named: Rows, asked: Rows, space: ActionSpace, key: str) -> float:
    """Share of frames in which the key's state is predicted correctly."""
    column = space.keys.index(key)
    return float(((named[:, column] > 0.5) == (asked[:, column] > 0.5)).mean())


def directions(rows: Rows, space: ActionSpace) -> npt.NDArray[np.int64]:
    """Classifies each frame's rotation into nine directions, `(f,)`: 0 to 8, 3 pitches times 3 yaws; 4 is none."""
    turns = rows[:, len(space.keys) :]
    ways = (turns > DEAD_ZONE_DEG).astype(np.int64) - (turns < -DEAD_ZONE_DEG).astype(np.int64) + 1
    return ways[:, 0] * 3 + ways[:, 1]


def mouse_accuracy(named: Rows, asked: Rows, space: ActionSpace) -> float:
    """Share of frames that turn in the asked one of nine directions."""
    return float((directions(named, space) == directions(asked, space)).mean())


def turn_error_deg(named: Rows, asked: Rows, space: ActionSpace) -> float:
    """Mean distance between the turns, degrees per frame, 0 and up, lower is better."""
    first = len(space.keys)
    return float(np.linalg.norm(named[:, first:] - asked[:, first:], axis=1).mean())


def strict_accuracy(named: Rows, asked: Rows, space: ActionSpace) -> float:
    """Share of frames in which all is right at once: every group, every other key, and the mouse's direction.

    Chance is low, and a key that is seldom held does not help: the strictest of these measures.
    """
    right = np.ones(len(asked), np.bool_)
    for pair in groups_of(space).values():
        right &= _one_of_three(named, space, pair) == _one_of_three(asked, space, pair)
    for column in map(space.keys.index, single_keys(space)):
        right &= (named[:, column] > 0.5) == (asked[:, column] > 0.5)
    if space.mouse:
        right &= directions(named, space) == directions(asked, space)
    return float(right.mean())


def controllability(named: Sequence[Rows], asked: Sequence[Rows], space: ActionSpace) -> dict[str, float]:
    """All of it over clips of the same lengths: `keyboard` is the mean of the groups and single keys that there are.

    Raises ShapeError for clips that do not match.
    """
    for one, other in zip(named, asked, strict=True):
        if one.shape != other.shape or one.ndim != 2 or one.shape[1] != space.size:
            raise ShapeError(f"actions must be (frames, {space.size}) on both sides, got {one.shape} and {other.shape}")
    both, groups = (np.concatenate(named), np.concatenate(asked), space), groups_of(space)
    metrics = {name: group_accuracy(*both, pair) for name, pair in groups.items()}
    metrics |= {key: key_accuracy(*both, key) for key in single_keys(space)}
    if metrics:
        metrics["keyboard"] = float(np.mean(list(metrics.values())))
    if groups:
        metrics["keyboard_balanced"] = float(np.mean([balanced_group_accuracy(*both, p) for p in groups.values()]))
    if space.mouse:
        metrics |= {"mouse": mouse_accuracy(*both), "turn_error_deg": turn_error_deg(*both)}
    return metrics


def groups_of(space: ActionSpace) -> dict[str, tuple[str, str]]:
    """The pairs of keys of `space` that are scored as one answer of three."""
    pairs = {**GROUPS, **{"/".join(pair): pair for pair in TURNS}}
    return {name: pair for name, pair in pairs.items() if all(key in space.keys for key in pair)}


def single_keys(space: ActionSpace) -> list[str]:
    """The keys that no group has."""
    grouped = {key for pair in groups_of(space).values() for key in pair}
    return [key for key in space.keys if key not in grouped]


def _one_of_three(rows: Rows, space: ActionSpace, pair: tuple[str, str]) -> npt.NDArray[np.int64]:
    first, second = (rows[:, space.keys.index(key)] > 0.5 for key in pair)
    return first.astype(np.int64) - second.astype(np.int64)
