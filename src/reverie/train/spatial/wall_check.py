"""Check of walls: a scene has none where they would stop the camera on ways that recorded cameras went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie.models.conditioning.erasure import ROW_BYTES
from reverie.models.conditioning.spatial_memory import SpatialMemoryConfig
from reverie.models.conditioning.walls import heading_pose, stop_at_surfaces, surface_points
from reverie.scenes.keyframes import Candidates, Choice, Keyframes
from reverie.types import STEP_FRAMES

STEPS = 600
"""Recorded steps that are looked at, at most."""
MOVED_M = (0.05, 3.0)
"""Metres of a step that is neither standing nor a jump."""
MOST_BLOCKED = 0.01
"""Share of recorded steps that walls may cut to less than half.  One is too many for who runs: in the temple, whose
camera follows a runner through gates, it is 0.012."""


def has_walls(keyframes: Keyframes, focal: Tensor, steps: Tensor) -> bool:
    """Returns whether surfaces of the scene leave recorded steps alone.  steps: (n, 5, 6), the pose before in front."""
    return blocked_share(keyframes, focal, steps) <= MOST_BLOCKED


@torch.no_grad()
def blocked_share(keyframes: Keyframes, focal: Tensor, steps: Tensor) -> float:
    """Share of the recorded steps (n, 5, 6) that walls cut to less than half; 0 without a step."""
    scene = Candidates.of_scene(keyframes)
    counts = torch.zeros(1, len(keyframes), ROW_BYTES, dtype=torch.uint8)
    drawn_keyframes = SpatialMemoryConfig().drawn
    blocked = 0
    for step in steps:
        camera, poses = step[None, 0], step[None, 1:]
        choice = Choice.best([scene], [1.0], heading_pose(camera, poses), focal[None], drawn_keyframes)
        points, drawn = surface_points(choice, counts, focal[None])
        stopped = stop_at_surfaces(camera, poses, points, drawn)
        wanted, gone = (end[0, -1, :2] - camera[0, :2] for end in (poses, stopped))
        blocked += bool(wanted @ gone < 0.5 * wanted.square().sum())
    return blocked / max(1, len(steps))


def recorded_steps(walks: Sequence[npt.NDArray[np.float32]], seed: int = 0) -> Tensor:
    """Steps (n, 5, 6) of recorded cameras that move, drawn evenly from walks (frames, 6)."""
    found = []
    for poses in walks:
        if len(poses) > STEP_FRAMES:
            every = np.lib.stride_tricks.sliding_window_view(poses, STEP_FRAMES + 1, axis=0)[::STEP_FRAMES]
            found.append(every.transpose(0, 2, 1))
    steps = torch.from_numpy(np.concatenate([np.zeros((0, STEP_FRAMES + 1, 6)), *found]).astype(np.float32))
    way = (steps[:, -1, :2] - steps[:, 0, :2]).norm(dim=1)
    steps = steps[(way > MOVED_M[0]) & (way < MOVED_M[1]) & steps.isfinite().all(2).all(1)]
    generator = torch.Generator().manual_seed(seed)
    return steps[torch.randperm(len(steps), generator=generator)[:STEPS]]
