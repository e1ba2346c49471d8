"""Walls stop the camera: a sphere around it does not move into surfaces of the memory, and slides along them.

Legend: b batch, p points of the keyframes that show most of the way ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.models.conditioning.erasure import gone
from reverie.scenes.keyframes import Choice
from reverie.vision.projection import clip_far, pixel_rays, rotation

BODY_RADIUS = 0.3
"""Metres that the camera keeps from surfaces; it may be nearer where a session begins so."""
STRIDE = 2
"""Every so many pixels of a keyframe's depth, across and down, is a point."""
STRAYS = 3
"""So many points may be inside the body: they may be strays."""
ANGLES_DEG = (0.0, 20.0, -20.0, 40.0, -40.0, 60.0, -60.0, 80.0, -80.0)
PLACES = 6
"""Places on a way that are looked at."""
NEAREST = 512
"""Points that are looked at, the nearest."""
SET_BACK = 2.0
"""Metres behind the camera from which surfaces are looked for: a wall that fills the view is seen by few keyframes."""


def heading_pose(camera: Tensor, poses: Tensor) -> Tensor:
    """A camera behind this one (b, 6), level and turned to where the poses (b, 4, 6) take it."""
    way = poses[:, -1, :2] - camera[:, :2]
    place = camera[:, :2] - SET_BACK * torch.nn.functional.normalize(way, dim=1)
    yaw = torch.rad2deg(torch.atan2(way[:, 0], way[:, 1]))
    return torch.cat([place, camera[:, 2:3], yaw[:, None], torch.zeros_like(camera[:, 4:])], 1)


def surface_points(choice: Choice, counts: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """World points (b, p, 3) of the chosen keyframes, and whether they are drawn, (b, p) bool.

    counts: (b, r, bytes), of what was seen through; focal: (b, 2).
    """
    part = (..., slice(STRIDE // 2, None, STRIDE), slice(STRIDE // 2, None, STRIDE))
    drawn = ~(choice.gather("hidden") | gone(counts, choice)) & choice.valid[..., None, None]
    depth, pose = clip_far(choice.gather("depth").float()), choice.gather("pose")
    rays = pixel_rays(focal, (depth.shape[-2], depth.shape[-1])).unflatten(1, depth.shape[-2:])
    rays = rays.movedim(-1, 1)[part].flatten(2).mT  # (b, p / k, 3)
    points = (rays[:, None] * depth[part].flatten(2)[..., None]) @ rotation(pose) + pose[..., None, :3]
    return points.flatten(1, 2), drawn[part].flatten(1)


def stop_at_surfaces(camera: Tensor, poses: Tensor, points: Tensor, drawn: Tensor) -> Tensor:
    """Takes from the poses what would bring the camera into a surface; height and direction of view stay.

    Of the way itself and ways that turn from it to both sides, as short as a wall at that angle makes them, the one
    that leads farthest ahead is taken: that is a slide along the wall.  camera: (b, 6); poses: (b, f, 6), the next
    ones; points: (b, p, 3) and drawn: (b, p).  Returns (b, f, 6).
    """
    wanted = poses[:, -1, :2] - camera[:, :2]
    angle = torch.deg2rad(torch.tensor(ANGLES_DEG, device=poses.device))
    c, s = angle.cos(), angle.sin()
    ways = torch.stack(
        [c * (c * wanted[:, :1] - s * wanted[:, 1:]), c * (s * wanted[:, :1] + c * wanted[:, 1:])], -1
    )  # (b, a, 2)
    share = torch.linspace(0, 1, PLACES + 1, device=poses.device)
    places = ways[:, :, None] * share[1:, None]  # (b, a, s, 2)
    offsets = points - camera[:, None, :3]
    apart = (drawn & (offsets[..., 2].abs() < BODY_RADIUS)).logical_not_().float() * 1e6
    squared = offsets[..., :2].square().sum(-1) + apart
    near = squared.topk(min(NEAREST, squared.shape[1]), 1, largest=False, sorted=False).indices
    offsets = offsets.gather(1, near[..., None].expand(-1, -1, 2)) + apart.gather(1, near)[..., None]

    def crowd(places: Tensor) -> Tensor:
        away = (places.flatten(1, -2)[:, :, None] - offsets[:, None]).square().sum(-1)
        return (away < BODY_RADIUS**2).sum(-1).view(places.shape[:-1])

    start = crowd(torch.zeros_like(wanted)[:, None]).clamp(min=STRAYS)
    free = (crowd(places) <= start[:, :, None]).int().cumprod(-1).sum(-1)  # (b, a)
    ahead = share[free] * c.square()
    best = ahead.argmax(1)
    rows = torch.arange(len(best), device=best.device)
    moved = ways[rows, best] * share[free][rows, best][:, None]
    along = torch.linspace(0, 1, poses.shape[1] + 1, device=poses.device)[1:, None]
    return torch.cat([poses[..., :2] + along * (moved - wanted)[:, None], poses[..., 2:]], -1)
