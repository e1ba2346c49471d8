"""What makes recorded play good or bad (stuck, staring at a wall, teleported), and whether a dataset is sound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.types import MAX_TURN_DEG, ActionSpace

STUCK_FRAMES = 14
"""A player who holds keys and does not move for so long is stuck."""
STUCK_UNITS = 8.0
STARE_FRAMES = 45
STARE_DEPTH = 5.0
JUMP_UNITS = 48.0
"""Nobody walks so far in a frame: a teleport."""
CELL_FRAMES = 250
CELL_UNITS = 160.0
"""Who has not come so far after ten seconds is in a cell."""


def good_length(
    actions: npt.NDArray[np.float32],
    poses: npt.NDArray[np.float32] | None,
    depths: npt.NDArray[np.float32] | None,
    space: ActionSpace,
) -> int:
    """How many frames from the start are worth keeping; all of them where poses and depths are not known.

    actions: `(f, size)`; poses: `(f, 5)` x, y, z, yaw, pitch; depths: `(f,)` distance of the view's middle.
    """
    length = len(actions)
    if poses is not None:
        held = np.asarray(actions[:, : len(space.keys)].max(axis=1, initial=0.0) > 0.5)
        for bad in (first_jump(poses), first_stuck(poses, held)):
            length = min(length, bad)
        reach = np.abs(poses[:CELL_FRAMES, :2] - poses[0, :2]).max() if len(poses) >= CELL_FRAMES else np.inf
        if reach < CELL_UNITS:
            return 0
    return length if depths is None else min(length, first_stare(depths))


def first_jump(poses: npt.NDArray[np.float32]) -> int:
    """The first frame that is far from the one before; the number of frames if there is none."""
    moved = np.abs(np.diff(poses[:, :2], axis=0)).max(axis=1, initial=0.0)
    return int(np.argmax(moved > JUMP_UNITS)) + 1 if (moved > JUMP_UNITS).any() else len(poses)


def first_stuck(poses: npt.NDArray[np.float32], held: npt.NDArray[np.bool_]) -> int:
    """Where keys begin to be held without effect for STUCK_FRAMES; the number of frames if nowhere."""
    for start in range(len(poses) - STUCK_FRAMES):
        stretch = slice(start, start + STUCK_FRAMES)
        if held[stretch].all() and np.ptp(poses[stretch, :2], axis=0).max() < STUCK_UNITS:
            return start
    return len(poses)


def first_stare(depths: npt.NDArray[np.float32]) -> int:
    """Where STARE_FRAMES of nothing but a near wall begin; the number of frames if nowhere."""
    run = 0
    for index, depth in enumerate(depths):
        run = run + 1 if depth < STARE_DEPTH else 0
        if run >= STARE_FRAMES:
            return index - run + 1
    return len(depths)


def problems(dataset: Dataset) -> list[str]:
    """Read every file of a dataset; one line for each episode that is damaged or holds impossible actions."""
    found = []
    keys = len(dataset.action_space.keys)
    for index in range(dataset.num_episodes):
        try:
            clip = dataset.clip(index)
        except DataError as error:
            found.append(str(error))
            continue
        name = f"{dataset.episodes[index].data_file}: episode {index}"
        if not np.isfinite(clip.actions).all():
            found.append(f"{name} has actions that are not numbers")
        elif not np.isin(clip.actions[:, :keys], (0.0, 1.0)).all():
            found.append(f"{name} has keys that are neither 0 nor 1")
        elif np.abs(clip.actions[:, keys:]).max(initial=0.0) > MAX_TURN_DEG:
            found.append(f"{name} has turns of more than {MAX_TURN_DEG:g} degrees a frame")
        if clip.poses is not None and not np.isfinite(clip.poses).all():
            found.append(f"{name} has poses that are not numbers")
    return found
