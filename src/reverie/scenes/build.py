"""Scenes from recordings: keyframes chosen greedily by what they newly show, moving things removed.

Legend: n frames to choose from, m chosen, t target views, (h w) = 64 x 112.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.errors import DataError
from reverie.scenes.keyframes import Candidates, Keyframes
from reverie.scenes.selection import choose_keyframes, view_promise
from reverie.vision.projection import VIEW_SIZE, View, project, render_views, unproject

NEIGHBOURS = 8
"""Keyframes that are asked whether they see through a point."""
SEEN_THROUGH = (1.12, 0.25)
"""A point is seen through by a keyframe whose depth there is more than `a * depth + b`."""
TARGETS = 500
DRAWN = 8


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a scene shows views that it does not hold: share of pixels covered, PSNR in dB (mean of squared errors, and
    median) at half size, views that were tried."""

    cover: float
    psnr_db: float
    psnr_median_db: float
    views: int


@torch.no_grad()
def choose_views(
    frames: Keyframes, focal: Tensor, count: int, seed: int = 0, report: Callable[[float], None] | None = None
) -> Tensor:
    """Chooses keyframes among frames, greedily by what they add to the promise of random other views.

    frames: n; focal: (2,).  report: told the share that is done.  Returns indices (m,), m at most `count`.
    """
    n = len(frames)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randperm(n, generator=generator)[:TARGETS]
    reach = frames.reach.nanmedian().nan_to_num(1.0)[None]
    promise = []
    for done, t in enumerate(targets.tolist()):
        one = view_promise(
            frames.probes[None], frames.seen[None], frames.pose[None], frames.pose[t : t + 1], focal[None], reach
        )[0]
        one[t] = 0  # or every frame would be its own best keyframe
        promise.append(one.half())
        if report is not None and done % 50 == 0:
            report(0.5 * done / len(targets))
    table = torch.cat(promise, 1)  # (n, t cells)
    best = torch.zeros(table.shape[1], dtype=torch.float16)
    # Gains only shrink: a frame's last gain bounds its next one (lazy greedy).
    bound = table.float().sum(1)
    chosen: list[int] = []
    fresh = torch.zeros(n, dtype=torch.bool)
    while len(chosen) < min(count, n):
        top = int(bound.argmax())
        if bound[top] <= 1e-3:
            break
        if fresh[top]:
            chosen.append(top)
            best = torch.maximum(best, table[top])
            bound[top] = 0
            fresh[:] = False
            if report is not None and len(chosen) % 20 == 0:
                report(0.5 + 0.5 * len(chosen) / count)
        else:
            bound[top] = (table[top] - best).clamp(min=0).float().sum()
            fresh[top] = True
    if not chosen:
        raise DataError("no two of the frames show the same place; record a walk that comes back, or check its poses")
    return torch.tensor(sorted(chosen))


@torch.no_grad()
def hide_moving(chosen: Keyframes, frames: Keyframes, focal: Tensor) -> Tensor:
    """Pixels of the chosen keyframes that at least two of their neighbours see through: (m, h, w) bool."""
    h, w = VIEW_SIZE
    reach = frames.reach.nanmedian().nan_to_num(1.0)[None]
    every = torch.ones(1, len(frames))
    out = []
    factor, slack = SEEN_THROUGH
    for i in range(len(chosen)):
        pose = chosen.pose[i : i + 1]
        near, valid = choose_keyframes(
            frames.probes[None], frames.seen[None], frames.pose[None], every, pose, focal[None], reach, NEIGHBOURS + 1
        )
        points = unproject(chosen.depth[None, i : i + 1].float(), pose[None], focal[None])[0, 0]
        poses = frames.pose[near[0]]
        xy, z = (x[0] for x in project(points[None], poses[None], focal[None]))
        inside = (z > 0.3) & (xy[..., 0] >= 0) & (xy[..., 0] <= w - 1) & (xy[..., 1] >= 0) & (xy[..., 1] <= h - 1)
        place = xy[..., 1].round().clamp(0, h - 1) * w + xy[..., 0].round().clamp(0, w - 1)
        # The nearest of 3 x 3 depths: a point at an edge is not seen through.
        depth = -F.max_pool2d(-frames.depth[near[0], None].float(), 3, stride=1, padding=1)[:, 0]
        there = depth.flatten(1).gather(1, place.long())
        hidden = frames.hidden[near[0]].flatten(1).gather(1, place.long())
        votes = (inside & ~hidden & (there > z * factor + slack) & valid[0][:, None]).sum(0)
        out.append((votes >= 2).view(h, w))
    return torch.stack(out)


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
        true = F.interpolate(held_out.colour[i : i + 1].float() / 127.5 - 1, VIEW_SIZE, mode="area")
        errors.append((view.colour[:, 0].clamp(-1, 1) - true).square().mean().item())
        covers.append(view.cover.mean().item())
    mean, median = float(np.mean(errors)), float(np.median(errors))

    def decibel(mse: float) -> float:
        return -10 * float(np.log10(max(mse, 1e-9) / 4))

    return Coverage(float(np.mean(covers)), decibel(mean), decibel(median), len(errors))
