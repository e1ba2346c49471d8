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
from reverie.types import ActionSpace

Rows = npt.NDArray[np.float32]

DEAD_ZONE_DEG = 0.15
GROUPS: Mapping[str, tuple[str, str]] = {"forward/back": ("forward", "back"), "left/right": ("left", "right")}
"""Keys that exclude each other: a group is one of them, or none (both held are none: they cancel)."""

TURNS: tuple[tuple[str, str], ...] = (("turn-left", "turn-right"), ("lean-left", "lean-right"))


def group_accuracy(guessed: Rows, asked: Rows, space: ActionSpace, pair: tuple[str, str]) -> float:
    """Share of frames whose one-of-three answer (first key, second key, none) is right.

    Chance depends on the play: read it beside the static video's.
    """
    return float((_one_of_three(guessed, space, pair) == _one_of_three(asked, space, pair)).mean())


def balanced_group_accuracy(guessed: Rows, asked: Rows, space: ActionSpace, pair: tuple[str, str]) -> float:
    """The same, averaged over the answers that were asked instead of over frames: a video that never moves gets 1/3."""
    told, said = _one_of_three(asked, space, pair), _one_of_three(guessed, space, pair)
    return float(np.mean([(said[told == answer] == answer).mean() for answer in np.unique(told)]))


def key_accuracy(guessed: Rows, asked: Rows, space: ActionSpace, key: str) -> float:
    """Share of frames in which the key's state is predicted correctly."""
    column = space.keys.index(key)
    return float(((guessed[:, column] > 0.5) == (asked[:, column] > 0.5)).mean())


def directions(rows: Rows, space: ActionSpace, dead_zone_deg: float = DEAD_ZONE_DEG) -> npt.NDArray[np.int64]:
    """Classifies each frame's rotation into nine directions, `(f,)`: 0 to 8, 3 pitches times 3 yaws; 4 is none."""
    turns = rows[:, len(space.keys) :]
    ways = (turns > dead_zone_deg).astype(np.int64) - (turns < -dead_zone_deg).astype(np.int64) + 1
    return ways[:, 0] * 3 + ways[:, 1]


def mouse_accuracy(guessed: Rows, asked: Rows, space: ActionSpace, dead_zone_deg: float = DEAD_ZONE_DEG) -> float:
    """Share of frames that turn in the asked one of nine directions."""
    return float((directions(guessed, space, dead_zone_deg) == directions(asked, space, dead_zone_deg)).mean())


def strict_accuracy(guessed: Rows, asked: Rows, space: ActionSpace) -> float:
    """Share of frames in which all is right at once: every group, every other key, and the mouse's direction.

    Chance is low, and a key that is seldom held does not help: the strictest of these measures.
    """
    right = np.ones(len(asked), np.bool_)
    for pair in groups_of(space).values():
        right &= _one_of_three(guessed, space, pair) == _one_of_three(asked, space, pair)
    grouped = {key for pair in groups_of(space).values() for key in pair}
    for column, key in enumerate(space.keys):
        if key not in grouped:
            right &= (guessed[:, column] > 0.5) == (asked[:, column] > 0.5)
    if space.mouse:
        right &= directions(guessed, space) == directions(asked, space)
    return float(right.mean())


def turn_error_deg(guessed: Rows, asked: Rows, space: ActionSpace) -> float:
    """Mean distance between the turns, degrees per frame, 0 and up, lower is better."""
    first = len(space.keys)
    return float(np.linalg.norm(guessed[:, first:] - asked[:, first:], axis=1).mean())


def obedience_figures(guessed: Sequence[Rows], asked: Sequence[Rows], space: ActionSpace) -> dict[str, float]:
    """All of it over clips of the same lengths: `keyboard` is the mean of the groups and single keys that there are.

    Raises ShapeError for clips that do not match.
    """
    for said, told in zip(guessed, asked, strict=True):
        if said.shape != told.shape or said.ndim != 2 or said.shape[1] != space.size:
            raise ShapeError(f"actions must be (frames, {space.size}) on both sides, got {said.shape} and {told.shape}")
    said, told = np.concatenate(guessed), np.concatenate(asked)
    figures: dict[str, float] = {}
    grouped: set[str] = set()
    balanced = []
    for name, pair in groups_of(space).items():
        grouped |= set(pair)
        figures[name] = group_accuracy(said, told, space, pair)
        balanced.append(balanced_group_accuracy(said, told, space, pair))
    for key in space.keys:
        if key not in grouped:
            figures[key] = key_accuracy(said, told, space, key)
    if figures:
        figures["keyboard"] = float(np.mean(list(figures.values())))
    if balanced:
        figures["keyboard_balanced"] = float(np.mean(balanced))
    if space.mouse:
        figures["mouse"] = mouse_accuracy(said, told, space)
        figures["turn_error_deg"] = turn_error_deg(said, told, space)
    return figures


def groups_of(space: ActionSpace) -> dict[str, tuple[str, str]]:
    """The pairs of keys of `space` that are judged as one answer of three."""
    pairs = {**GROUPS, **{"/".join(pair): pair for pair in TURNS}}
    return {name: pair for name, pair in pairs.items() if all(key in space.keys for key in pair)}


def _one_of_three(rows: Rows, space: ActionSpace, pair: tuple[str, str]) -> npt.NDArray[np.int64]:
    first, second = (rows[:, space.keys.index(key)] > 0.5 for key in pair)
    return first.astype(np.int64) - second.astype(np.int64)
