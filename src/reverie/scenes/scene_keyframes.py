"""Scenes from recordings: keyframes that spread over places and directions, moving things removed.

Legend: n frames to choose from, m chosen, (h w) = 64 x 112.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reverie.errors import DataError
from reverie.scenes.keyframes import Candidates, Keyframes
from reverie.scenes.view_sources import DISTANCE_SCALE, choose_keyframes
from reverie.vision.pixels import psnr_db, shrink_frames
from reverie.vision.projection import wrap_degrees
from reverie.vision.rendering import View, render_views
from reverie.vision.visibility import compare_depth

NEIGHBOURS = 8
"""Keyframes that a point is tested against for being seen through."""
SEEN_THROUGH = (1.12, 0.25)
"""A point is seen through by a keyframe whose depth there is more than `a * depth + b`."""
YAW_SCALE_DEG, PITCH_SCALE_DEG = 40.0, 30.0
DRAWN = 8


@dataclass(frozen=True, slots=True)
class Coverage:
    """Quality of a scene on held-out views: share of pixels covered, PSNR in dB (mean of squared errors, and median) at
    half size, views that were tried."""

    cover: float
    psnr_db: float
    psnr_median_db: float
    views: int


@torch.no_grad()
def choose_scene_keyframes(frames: Keyframes, count: int) -> Tensor:
    """Chooses keyframes that spread evenly over places and directions: each is the frame farthest from all before it.

    A metre counts by how far the scene's surfaces are, a degree by `YAW_SCALE_DEG` and `PITCH_SCALE_DEG`.  On held-out
    walks this was better than a greedy choice by promised coverage, which takes far views through what hides them
    (docs/LOG.md).  Returns indices (m,), m at most `count`.  Raises DataError where no surface is near.
    """
    scale = DISTANCE_SCALE * frames.reach.nanmedian()
    if not bool(scale > 0):
        raise DataError("the frames show nothing nearer than the sky; check the recording's depth")
    pose = frames.pose
    distance = torch.full((len(frames),), float("inf"))
    chosen = [0]
    while len(chosen) < min(count, len(frames)):
        last = pose[chosen[-1]]
        yaw = wrap_degrees(pose[:, 3] - last[3]).abs() / YAW_SCALE_DEG
        pitch = (pose[:, 4] - last[4]).abs() / PITCH_SCALE_DEG
        away = (pose[:, :3] - last[:3]).norm(dim=1) / scale
        distance = torch.minimum(distance, away.square() + (yaw + pitch).square())
        farthest = int(distance.argmax())
        if distance[farthest] < 1e-6:
            break  # what is left are frames from the very same views
        chosen.append(farthest)
    return torch.tensor(sorted(chosen))


@torch.no_grad()
def hide_moving(chosen: Keyframes, frames: Keyframes, focal: Tensor) -> Tensor:
    """Pixels of the chosen keyframes that at least two of their neighbours see through: (m, h, w) bool."""
    reach = frames.reach.nanmedian().nan_to_num(1.0)[None]
    every = torch.ones(1, len(frames))

    def count_votes(depth: Tensor, pose: Tensor) -> Tensor:
        near, valid = choose_keyframes(
            frames.probes[None], frames.seen[None], frames.pose[None], every, pose, focal[None], reach, NEIGHBOURS + 1
        )
        others = frames.depth[near], frames.hidden[near], frames.pose[near]
        through, _ = compare_depth(depth[None], pose[None], *others, focal[None], SEEN_THROUGH)
        return (through[0, :, 0] & valid[0][:, None, None]).sum(0)

    votes = [count_votes(*one) for one in zip(chosen.depth.split(1), chosen.pose.split(1), strict=True)]
    return torch.stack(votes) >= 2


@torch.no_grad()
def render_from(
    scene: Keyframes, pose: Tensor, focal: Tensor, drawn: int = DRAWN, usable: Tensor | None = None
) -> View:
    """Renders views of a scene.

    pose: (v, 6); focal: (2,); usable: (v, n) bool, keyframes that may be drawn (None: all).  Returns a View of batch v
    with one view each.
    """
    count = len(pose)
    reach = scene.reach.nanmedian().nan_to_num(1.0).expand(count)
    candidates = Candidates.of_scene(scene, count)
    lens = focal.expand(count, 2)
    index, valid = choose_keyframes(
        scene.probes.expand(count, -1, -1, -1),
        scene.seen.expand(count, -1, -1),
        scene.pose.expand(count, -1, -1),
        (candidates.usable if usable is None else usable).float(),
        pose,
        lens,
        reach,
        drawn,
    )
    return render_views(
        scene.colour[index], scene.depth[index], scene.hidden[index], scene.pose[index], valid, pose[:, None], lens
    )


@torch.no_grad()
def measure_coverage(
    scene: Keyframes, held_out: Keyframes, focal: Tensor, limit: int = 100, leave_out: Tensor | None = None
) -> Coverage:
    """Renders the scene at held-out frames' poses and compares with them.

    leave_out: numbers of keyframes of the scene; each is then shown by the others, and `held_out` is the scene itself.
    """
    shown = torch.arange(0, len(held_out), max(1, len(held_out) // limit)) if leave_out is None else leave_out
    errors, covers = [], []
    for i in shown.tolist():
        usable = None
        if leave_out is not None:
            usable = torch.ones(1, len(scene), dtype=torch.bool)
            usable[0, i] = False
        view = render_from(scene, held_out.pose[i : i + 1], focal, usable=usable)
        true = shrink_frames(held_out.colour[i : i + 1])
        errors.append((view.colour[:, 0].clamp(-1, 1) - true).square().mean().item())
        covers.append(view.cover.mean().item())
    mean, median = float(np.mean(errors)), float(np.median(errors))
    return Coverage(float(np.mean(covers)), psnr_db(mean), psnr_db(median), len(errors))
