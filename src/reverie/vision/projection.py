"""Cameras and view synthesis: keyframes with depth are splatted into new views.

Conventions, the same for every game: a pose is (x, y, z, yaw, pitch, roll) in metres and degrees, x east, y north, z
up, yaw from north to the right, pitch up, roll to the right.  Depth is measured along the optical axis, in metres.

Views are rendered at `VIEW_SIZE`, half of nano's frames.  Geometry is splatted at that size (one point a pixel, a
z-buffer over all keyframes, then one source point a pixel); colour is read from the keyframe at its full size with a
sub-pixel correction, so that a view is about as sharp as its source.

Legend: b batch of sessions, v views, k keyframes, n = h w pixels of a view, H W pixels of a keyframe's colour.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

VIEW_SIZE = (64, 112)
"""(h, w) of rendered views and of depth images."""
FAR = 95.0
"""Depths beyond this many metres are treated as infinitely far: sky does not move when one walks."""
SKY = 3000.0
NEAR = 0.15
"""Points closer than this to the camera are not drawn."""

DEPTH_TOLERANCE = (1.07, 0.12)
"""A point is visible if its depth is at most `a * nearest + b` of the pixel's nearest point."""
CRACK_WIDTH = 2
"""Passes over cracks: a surface may come nearer until its points are this many pixels and one apart."""
MAX_KEYFRAMES = 32
"""Keyframes that one view may be rendered from: a rank takes five bits of the packed key."""


class View(NamedTuple):
    """Rendered views.

    colour: (b, v, 3, h, w) in [-1, 1], holes filled; cover: (b, v, h, w), 1 where a keyframe shows the pixel, 0 in
    holes; inverse_depth: (b, v, h, w) per metre, 0 for sky and holes.
    """

    colour: Tensor
    cover: Tensor
    inverse_depth: Tensor


def rotation(pose: Tensor) -> Tensor:
    """Camera axes in world coordinates.  pose: (..., 6).  Returns (..., 3, 3): rows right, up, forward."""
    yaw, pitch, roll = torch.deg2rad(pose[..., 3:6]).unbind(-1)
    zero = torch.zeros_like(yaw)
    forward = torch.stack([yaw.sin() * pitch.cos(), yaw.cos() * pitch.cos(), pitch.sin()], -1)
    right = torch.stack([yaw.cos(), -yaw.sin(), zero], -1)
    up = torch.linalg.cross(right, forward)
    c, s = roll.cos()[..., None], roll.sin()[..., None]
    return torch.stack([c * right - s * up, c * up + s * right, forward], -2)


def focal_lengths(fov_deg: Tensor, pixel_aspect: Tensor | float = 1.0, width: int = VIEW_SIZE[1]) -> Tensor:
    """Focal lengths in pixels, across and down.

    fov_deg: (b,) horizontal field of view; pixel_aspect: how much taller than wide a pixel is (Doom: 1.2).
    Returns (b, 2).
    """
    across = width / 2 / torch.tan(torch.deg2rad(fov_deg) / 2)
    return torch.stack([across, across * pixel_aspect], -1)


def turn_scale(fov_deg: float | None, wanted_deg: float | None) -> float:
    """What rotations are multiplied by so that they move a picture with one horizontal field of view as they would move
    one with another; 1 where either is unknown."""
    if fov_deg is None or wanted_deg is None:
        return 1.0
    return math.tan(math.radians(wanted_deg) / 2) / math.tan(math.radians(fov_deg) / 2)


def pixel_rays(focal: Tensor, size: tuple[int, int] = VIEW_SIZE) -> Tensor:
    """Points at depth 1 of every pixel, camera coordinates (right, up, forward).  focal: (b, 2).  Returns (b, n, 3)."""
    h, w = size
    y = torch.arange(h, device=focal.device) + 0.5 - h / 2
    x = torch.arange(w, device=focal.device) + 0.5 - w / 2
    y, x = (a.reshape(1, -1) for a in torch.meshgrid(y, x, indexing="ij"))
    right, up = x / focal[:, :1], -y / focal[:, 1:]
    return torch.stack([right, up, torch.ones_like(right)], -1)


def clip_far(depth: Tensor) -> Tensor:
    """Depth in metres with everything beyond `FAR` at `SKY`."""
    return torch.where(depth > FAR, torch.full_like(depth, SKY), depth)


def unproject(depth: Tensor, pose: Tensor, focal: Tensor) -> Tensor:
    """World points of depth images.  depth: (b, k, h, w); pose: (b, k, 6); focal: (b, 2).  Returns (b, k, n, 3)."""
    size = (depth.shape[-2], depth.shape[-1])
    camera = pixel_rays(focal, size)[:, None] * clip_far(depth).flatten(2)[..., None]
    return camera @ rotation(pose) + pose[..., None, :3]


def project(points: Tensor, pose: Tensor, focal: Tensor, size: tuple[int, int] = VIEW_SIZE) -> tuple[Tensor, Tensor]:
    """Pixel positions and depths of world points.

    points: (b, ..., 3); pose: (b, v, 6); focal: (b, 2).  Returns xy (b, v, ..., 2), in pixels with (0, 0) at the centre
    of the first, and depth (b, v, ...).
    """
    h, w = size
    b, v = pose.shape[:2]
    axes = rotation(pose)
    flat = points.reshape(b, 1, -1, 3)
    camera = flat @ axes.transpose(-1, -2) - (pose[..., None, :3] @ axes.transpose(-1, -2))
    depth = camera[..., 2]
    scale = focal[:, None, None] / depth.clamp(min=NEAR)[..., None]
    x = camera[..., 0] * scale[..., 0] + (w - 1) / 2
    y = -camera[..., 1] * scale[..., 1] + (h - 1) / 2
    shape = (b, v, *points.shape[1:-1])
    return torch.stack([x, y], -1).reshape(*shape, 2), depth.reshape(shape)


def render_views(
    colour: Tensor,
    depth: Tensor,
    hidden: Tensor,
    keyframe_pose: Tensor,
    valid: Tensor,
    pose: Tensor,
    focal: Tensor,
) -> View:
    """Renders keyframes into new views, in order of preference.

    colour: (b, k, 3, H, W) uint8, or floating in [-1, 1]; depth: (b, k, h, w) metres; hidden: (b, k, h, w) bool, pixels
    that are not drawn (the player's own body, what moves); keyframe_pose: (b, k, 6); valid: (b, k) bool; pose:
    (b, v, 6); focal: (b, 2).  Of several keyframes that show a surface the first wins: one source a pixel, because
    averages of slightly different depths are blur.
    """
    index, offset, near = _nearest_points(depth, hidden, keyframe_pose, valid, pose, focal)
    found = index >= 0
    rgb = _sample_colour(colour, index.clamp(min=0), offset, (depth.shape[-2], depth.shape[-1]))
    cover = found.float()
    rgb = push_pull(rgb.flatten(0, 1), cover.flatten(0, 1)[:, None]).unflatten(0, rgb.shape[:2])
    inverse = torch.where(found & (near < SKY / 2), 1 / near.clamp(min=0.3), torch.zeros_like(near))
    return View(rgb, cover, inverse)


def _nearest_points(
    depth: Tensor, hidden: Tensor, keyframe_pose: Tensor, valid: Tensor, pose: Tensor, focal: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The point that each pixel of the views shows.

    Returns index (b, v, h, w) int64 into k n points, -1 in holes; offset (b, v, h, w, 2), the pixel's place in the
    keyframe less that point's own, in pixels of the depth image; depth (b, v, h, w) in the view.
    """
    b, k, h, w = depth.shape
    v, n, m = pose.shape[1], h * w, k * h * w
    own_depth = clip_far(depth.float())
    xy, z = project(unproject(own_depth, keyframe_pose, focal).flatten(1, 2), pose, focal, (h, w))
    column, row = xy[..., 0].round(), xy[..., 1].round()
    drawn = (~hidden.flatten(1) & valid.repeat_interleave(n, 1))[:, None]
    drawn = drawn & (z > NEAR) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
    views = torch.arange(b * v, device=depth.device).view(b, v, 1) * n
    # A point that is not drawn goes, without effect, to a pixel of its own: one address for all would be a queue.
    spare = torch.arange(m, device=depth.device) % n
    place = (views + torch.where(drawn, (row * w + column).long(), spare)).flatten()

    infinite = torch.tensor(float("inf"), device=depth.device)
    nearest = torch.full((b * v * n,), float("inf"), device=depth.device)
    nearest.scatter_reduce_(0, place, torch.where(drawn, z, infinite).flatten(), "amin")
    factor, slack = DEPTH_TOLERANCE
    visible = drawn & (z <= (nearest * factor + slack)[place].view_as(z))
    # Rank (five bits), distance to the pixel's centre (five bits) and point (21 bits) in one integer: one scatter.
    distance = ((column - xy[..., 0]).square() + (row - xy[..., 1]).square()).clamp(max=0.5)
    rank = torch.arange(k, device=depth.device).repeat_interleave(n)
    point = torch.arange(m, device=depth.device)
    key = (rank << 26 | point) + ((distance * 62).int() << 21)
    empty = torch.iinfo(torch.int32).max
    best = torch.full((b * v * n,), empty, dtype=torch.int32, device=depth.device)
    best.scatter_reduce_(0, place, torch.where(visible, key, empty).int().flatten(), "amin")

    found = best != empty
    index = torch.where(found, best & (1 << 21) - 1, -1).view(b, v, n)
    z = torch.where(found, z.flatten(0, 1).gather(1, index.clamp(min=0).view(b * v, n).long()).flatten(), infinite)
    index, z = index.view(b * v, h, w), z.view(b * v, h, w)
    for _ in range(CRACK_WIDTH):
        index, z = _close_cracks(index, z)
    index, z = index.view(b, v, n).long(), z.view(b, v, n)
    safe = index.clamp(min=0)
    at = xy.gather(2, safe[..., None].expand(-1, -1, -1, 2))
    pixel = torch.arange(n, device=depth.device)
    centre = torch.stack([pixel % w, pixel // w], -1).float()
    source_depth = own_depth.flatten(1)[:, None].expand(-1, v, -1).gather(2, safe)
    offset = (centre - at) * (z / source_depth).nan_to_num(0.0, 0.0, 0.0).clamp(max=4)[..., None]
    return index.view(b, v, h, w), offset.view(b, v, h, w, 2), z.view(b, v, h, w)


def _close_cracks(index: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Fills one-pixel cracks of a surface that has come nearer from its neighbours' points.

    A crack is a pixel without a point, or with one far behind, that has nearer neighbours on opposite sides.
    index, z: (views, h, w).
    """
    padded = F.pad(z, (1, 1, 1, 1), value=float("inf"))
    points = F.pad(index, (1, 1, 1, 1), value=-1)
    h, w = z.shape[-2:]
    factor, slack = DEPTH_TOLERANCE
    for (a, b), (c, d) in (((1, 0), (1, 2)), ((0, 1), (2, 1)), ((0, 0), (2, 2)), ((0, 2), (2, 0))):
        one, other = padded[:, a : a + h, b : b + w], padded[:, c : c + h, d : d + w]
        far = torch.maximum(one, other)
        crack = (far * factor + slack < z) & (far < float("inf"))
        first = one <= other
        z = torch.where(crack, torch.minimum(one, other), z)
        neighbour = torch.where(first, points[:, a : a + h, b : b + w], points[:, c : c + h, d : d + w])
        index = torch.where(crack, neighbour, index)
    return index, z


def _sample_colour(colour: Tensor, index: Tensor, offset: Tensor, depth_size: tuple[int, int]) -> Tensor:
    """Bilinear samples of the keyframes at points `index` plus `offset`.  Returns (b, v, 3, h, w) in [-1, 1]."""
    b, k, _, height, width = colour.shape
    h, w = depth_size
    scale = torch.tensor([width / w, height / h], device=colour.device)
    keyframe, pixel = index // (h * w), index % (h * w)
    centre = torch.stack([pixel % w, pixel // w], -1).float() + offset + 0.5
    at = centre * scale - 0.5
    x, y = at[..., 0].clamp(0, width - 1.001), at[..., 1].clamp(0, height - 1.001)
    x0, y0 = x.floor(), y.floor()
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    batch = torch.arange(b, device=colour.device).view(b, 1, 1, 1)
    corner = ((batch * k + keyframe) * height + y0.long()) * width + x0.long()
    texels = colour.movedim(2, -1).reshape(-1, 3)
    c00, c01, c10, c11 = (texels[corner + step].float() for step in (0, 1, width, width + 1))
    out = (c00 * (1 - fx) + c01 * fx) * (1 - fy) + (c10 * (1 - fx) + c11 * fx) * fy
    if not colour.is_floating_point():
        out = out / 127.5 - 1
    return out.movedim(-1, 2)


def push_pull(image: Tensor, weight: Tensor) -> Tensor:
    """Fills holes from coarser and coarser averages.  image: (n, c, h, w); weight: (n, 1, h, w) in 0..1."""
    levels = [(image * weight, weight)]
    while levels[-1][0].shape[-1] > 4:
        total, count = levels[-1]
        levels.append((F.avg_pool2d(total, 2, ceil_mode=True), F.avg_pool2d(count, 2, ceil_mode=True)))
    out = levels[-1][0] / levels[-1][1].clamp(min=1e-4)
    for total, count in reversed(levels[:-1]):
        above = F.interpolate(out, size=total.shape[-2:], mode="bilinear", align_corners=False)
        known = (count * 4).clamp(max=1)
        out = total / count.clamp(min=1e-4) * known + above * (1 - known)
    return out
