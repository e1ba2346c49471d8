"""Choice of the keyframes that a view is rendered from.

Every keyframe has `NUM_PROBES` probes: world points on a coarse grid of its depth image.  A keyframe promises for a
cell of the view as much as its probes there are seen alike from both cameras; keyframes are taken greedily by what they
add to the best promise so far.

Legend: b batch of sessions, m keyframes to choose from, p probes, k keyframes chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.vision.projection import FAR, VIEW_SIZE, project, unproject

PROBE_GRID = (6, 10)
NUM_PROBES = PROBE_GRID[0] * PROBE_GRID[1]
CELLS = (4, 7)
"""Cells of a view, down and across, for which keyframes compete."""
ANGLE_SCALE_DEG = 25.0
"""A surface seen from this much another side promises 1 / e of what it would from the same side."""
DISTANCE_SCALE = 0.3
"""A keyframe this many median depths away promises 1 / e: what it shows may be hidden behind what it does not show."""


def probe_points(depth: Tensor, hidden: Tensor, pose: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """World points on a coarse grid.

    depth: (b, m, h, w) metres; hidden: (b, m, h, w) bool; pose: (b, m, 6); focal: (b, 2).
    Returns points (b, m, p, 3) and ok (b, m, p), false where the pixel is hidden.
    """
    h, w = depth.shape[-2:]
    rows = ((torch.arange(PROBE_GRID[0], device=depth.device) + 0.5) * h / PROBE_GRID[0]).long()
    columns = ((torch.arange(PROBE_GRID[1], device=depth.device) + 0.5) * w / PROBE_GRID[1]).long()
    pixels = (rows[:, None] * w + columns).flatten()
    points = unproject(depth.float(), pose, focal)[:, :, pixels]
    return points, ~hidden.flatten(2)[:, :, pixels]


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
    promise = view_promise(probes, seen, keyframe_pose, pose, focal, reach) * preference[..., None]
    b, m, cells = promise.shape
    best = promise.new_zeros(b, cells)
    chosen, gains = [], []
    for _ in range(min(k, m)):
        gain, index = (promise - best[:, None]).clamp(min=0).sum(-1).max(1)
        chosen.append(index)
        gains.append(gain)
        best = torch.maximum(best, promise[torch.arange(b, device=best.device), index])
    index, valid = torch.stack(chosen, 1), torch.stack(gains, 1) > 1e-3
    quality = promise.sum(-1).gather(1, index) / (promise > 0).sum(-1).gather(1, index).clamp(min=1)
    order = torch.where(valid, -quality, torch.full_like(quality, 1.0)).argsort(dim=1, stable=True)
    index, valid = index.gather(1, order), valid.gather(1, order)
    if k > m:
        index = torch.cat([index, index.new_zeros(b, k - m)], 1)
        valid = torch.cat([valid, valid.new_zeros(b, k - m)], 1)
    return index, valid


def view_promise(
    probes: Tensor, seen: Tensor, keyframe_pose: Tensor, pose: Tensor, focal: Tensor, reach: Tensor
) -> Tensor:
    """How well each keyframe shows each cell of a view: (b, m, cells) in 0..1.  Arguments as `choose_keyframes`."""
    b, m, p = seen.shape
    h, w = VIEW_SIZE
    xy, z = (x[:, 0] for x in project(probes, pose[:, None], focal))
    inside = (
        seen & (z > 0.3) & (xy[..., 0] > -0.5) & (xy[..., 0] < w - 0.5) & (xy[..., 1] > -0.5) & (xy[..., 1] < h - 0.5)
    )
    cell = (xy[..., 1] + 0.5) * (CELLS[0] / h)
    cell = cell.floor().clamp(0, CELLS[0] - 1) * CELLS[1] + ((xy[..., 0] + 0.5) * (CELLS[1] / w)).floor().clamp(
        0, CELLS[1] - 1
    )
    from_keyframe = probes - keyframe_pose[:, :, None, :3]
    from_view = probes - pose[:, None, None, :3]
    far_keyframe, far_view = from_keyframe.norm(dim=-1), from_view.norm(dim=-1)
    cosine = (from_keyframe * from_view).sum(-1) / (far_keyframe * far_view).clamp(min=1e-6)
    angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    quality = torch.exp(-angle / ANGLE_SCALE_DEG) * (far_view / far_keyframe.clamp(min=1e-3)).clamp(max=1)
    away = (keyframe_pose[..., :3] - pose[:, None, :3]).norm(dim=-1)
    quality = quality * torch.exp(-away / (DISTANCE_SCALE * reach[:, None]).clamp(min=1e-3))[..., None]
    quality = torch.where(inside, quality, torch.zeros_like(quality))
    cells = CELLS[0] * CELLS[1]
    # A cell is promised in full by two probes, on average as many as it has in the keyframe's own view.
    promise = quality.new_zeros(b * m, cells)
    promise.scatter_add_(1, cell.long().view(b * m, p), quality.view(b * m, p))
    return (promise / 2).clamp(max=1).view(b, m, cells)


def median_reach(probes: Tensor, seen: Tensor, keyframe_pose: Tensor) -> Tensor:
    """Typical distance of what each keyframe shows, metres; sky left out.

    probes: (..., m, p, 3); seen: (..., m, p); keyframe_pose: (..., m, 6).  Returns (..., m), nan where nothing is near.
    """
    distance = (probes - keyframe_pose[..., None, :3]).norm(dim=-1)
    near = torch.where(seen & (distance < FAR), distance, torch.full_like(distance, float("nan")))
    return near.nanmedian(-1).values
