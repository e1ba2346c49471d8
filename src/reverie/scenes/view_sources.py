"""Choice of the keyframes that a view is rendered from.

Every keyframe has `NUM_PROBES` probes: world points on a coarse grid of its depth image.  A keyframe promises for a
cell of the view as much as its probes there are seen alike from both cameras; keyframes are taken greedily by what they
add to the best promise so far.

Legend: b batch of sessions, m keyframes to choose from, p probes, k keyframes chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.vision.projection import FAR, NEAR, VIEW_SIZE, rotation, unproject

PROBE_GRID = (6, 10)
NUM_PROBES = PROBE_GRID[0] * PROBE_GRID[1]
CELLS = (4, 7)
"""Cells of a view, down and across, for which keyframes compete."""
ANGLE_SCALE_DEG = 25.0
"""A surface seen from this much another side promises 1 / e of what it would from the same side."""
DISTANCE_SCALE = 0.3
"""A keyframe this many median depths away promises 1 / e: what it shows may be hidden behind what it does not show."""

MIN_GAIN = 1e-3
"""The least that a keyframe adds to the promises of those picked before it, in cells."""


def probe_points(depth: Tensor, hidden: Tensor, pose: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """World points on a coarse grid.

    depth: (b, m, h, w) metres; hidden: (b, m, h, w) bool; pose: (b, m, 6); focal: (b, 2).
    Returns points (b, m, p, 3) and ok (b, m, p), false where the pixel is hidden.
    """
    pixels = probe_pixels((depth.shape[-2], depth.shape[-1]), depth.device)
    points = unproject(depth.float(), pose, focal)[:, :, pixels]
    return points, ~hidden.flatten(2)[:, :, pixels]


def probe_pixels(size: tuple[int, int], device: torch.device) -> Tensor:
    """Numbers (p,) of the probes' pixels in a depth image of size (h, w)."""
    h, w = size
    rows = ((torch.arange(PROBE_GRID[0], device=device) + 0.5) * h / PROBE_GRID[0]).long()
    columns = ((torch.arange(PROBE_GRID[1], device=device) + 0.5) * w / PROBE_GRID[1]).long()
    return (rows[:, None] * w + columns).flatten()


def choose_keyframes(
    probes: Tensor,
    seen: Tensor,
    keyframe_pose: Tensor,
    preference: Tensor,
    pose: Tensor,
    focal: Tensor,
    reach: Tensor,
    k: int,
) -> tuple[Tensor, Tensor]:
    """The keyframes that promise most for a view, best first.

    probes: (b, m, p, 3); seen: (b, m, p) bool; keyframe_pose: (b, m, 6); preference: (b, m), 0 for keyframes that
    may not be used, else what their promise is multiplied by; pose: (b, 6) of the view;
    focal: (b, 2); reach: (b,) typical distance of what the keyframes show, metres.
    Returns index (b, k) int64 and valid (b, k) bool.
    """
    return pick_keyframes(view_promise(probes, seen, keyframe_pose, pose, focal, reach) * preference[..., None], k)


def pick_keyframes(promise: Tensor, k: int, leading: int = 0, first: int = 0) -> tuple[Tensor, Tensor]:
    """Picks greedily by what each keyframe adds to the best promise so far.

    promise: (b, m, cells); leading, first: the first so many picks are of the first so many keyframes, while those add
    anything.  Returns index (b, k) int64, the best of those picked first, and valid (b, k) bool.
    """
    b, m, cells = promise.shape
    best = promise.new_zeros(b, cells)
    chosen, gains = [], []
    for i in range(min(k, m)):
        gain = (promise - best[:, None]).clamp(min=0).sum(-1)
        if i < leading:
            gain[:, first:] *= ~(gain[:, :first] > MIN_GAIN).any(1, keepdim=True)
        most, index = gain.max(1)
        chosen.append(index)
        gains.append(most)
        best = torch.maximum(best, promise[torch.arange(b, device=best.device), index])
    index, valid = torch.stack(chosen, 1), torch.stack(gains, 1) > MIN_GAIN
    order = _best_first(promise, index, valid)
    index, valid = index.gather(1, order), valid.gather(1, order)
    if k > m:
        index = torch.cat([index, index.new_zeros(b, k - m)], 1)
        valid = torch.cat([valid, valid.new_zeros(b, k - m)], 1)
    return index, valid


def view_promise(
    probes: Tensor, seen: Tensor, keyframe_pose: Tensor, pose: Tensor, focal: Tensor, reach: Tensor
) -> Tensor:
    """Scores each keyframe's coverage of each cell of a view: (b, m, cells) in 0..1.

    Arguments as `choose_keyframes`; probes, seen and keyframe_pose may have a batch of one, for sessions that share
    their keyframes.
    """
    b, m, p = pose.shape[0], *seen.shape[1:]
    h, w = VIEW_SIZE
    points, centre, own = probes.unbind(-1), keyframe_pose[..., :3, None].unbind(-2), pose[:, :3, None, None].unbind(1)
    axes = rotation(pose)[..., None, None]  # (b, 3, 3, 1, 1)
    east, north, up = (point - place for point, place in zip(points, own, strict=True))
    right, above, z = (axes[:, i, 0] * east + axes[:, i, 1] * north + axes[:, i, 2] * up for i in range(3))
    scale = focal[..., None, None] / z.clamp(min=NEAR)[:, None]
    x, y = right * scale[:, 0] + w / 2, -above * scale[:, 1] + h / 2
    inside = seen & (z > 0.3) & (x > 0) & (x < w) & (y > 0) & (y < h)
    cell = (y * (CELLS[0] / h)).floor().clamp(0, CELLS[0] - 1) * CELLS[1]
    cell = cell + (x * (CELLS[1] / w)).floor().clamp(0, CELLS[1] - 1)
    theirs = [point - place for point, place in zip(points, centre, strict=True)]
    far_keyframe = (theirs[0].square() + theirs[1].square() + theirs[2].square()).sqrt()
    far_view = (east.square() + north.square() + up.square()).sqrt()
    cosine = theirs[0] * east + theirs[1] * north + theirs[2] * up
    cosine = cosine / (far_keyframe * far_view).clamp(min=1e-6)
    angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    quality = torch.exp(-angle / ANGLE_SCALE_DEG) * (far_view / far_keyframe.clamp(min=1e-3)).clamp(max=1)
    away = (keyframe_pose[..., :3] - pose[:, None, :3]).norm(dim=-1)
    quality = quality * torch.exp(-away / (DISTANCE_SCALE * reach[:, None]).clamp(min=1e-3))[..., None]
    quality = quality * inside
    cells = CELLS[0] * CELLS[1]
    # A cell is promised in full by two probes, on average as many as it has in the keyframe's own view.
    promise = quality.new_zeros(b * m, cells)
    promise.scatter_add_(1, cell.int().long().view(b * m, p), quality.view(b * m, p))
    return (promise / 2).clamp(max=1).view(b, m, cells)


def median_reach(probes: Tensor, seen: Tensor, keyframe_pose: Tensor) -> Tensor:
    """Typical distance of what each keyframe shows, metres; sky left out.

    probes: (..., m, p, 3); seen: (..., m, p); keyframe_pose: (..., m, 6).  Returns (..., m), nan where nothing is near.
    """
    distance = (probes - keyframe_pose[..., None, :3]).norm(dim=-1)
    near = torch.where(seen & (distance < FAR), distance, torch.full_like(distance, float("nan")))
    return near.nanmedian(-1).values


def _best_first(promise: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    """Orders picked keyframes by their mean promise where they promise anything; those that add nothing come last."""
    quality = promise.sum(-1).gather(1, index) / (promise > 0).sum(-1).gather(1, index).clamp(min=1)
    return torch.where(valid, -quality, torch.full_like(quality, 1.0)).argsort(dim=1, stable=True)
