"""Views of keyframes: frames with depth are splatted into new views.

Views are rendered at `VIEW_SIZE`, half of nano's frames.  Geometry is splatted at that size (one point a pixel, a
z-buffer over all keyframes, then one source point a pixel); colour is read from the keyframe at its full size with a
sub-pixel correction, so that a view is about as sharp as its source.

Conventions of cameras are those of `vision/projection.py`.  Legend: b batch of sessions, v views, k keyframes, n = h w
pixels of a view, H W pixels of a keyframe's colour.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.vision.projection import NEAR, SKY, clip_far, rotation

DEPTH_TOLERANCE = (1.07, 0.12)
"""A point is visible if its depth is at most `a * nearest + b` of the pixel's nearest point."""
GAP_REACHES = (8, 8, 2)
"""Pixels to either side in which the points around a gap are looked for, in each pass over gaps: powers of two.  Far
ones find surfaces that are right before the camera, near ones those beside something nearer."""
SMALL_GAP, GAP_SPREAD = 3, 4.0
"""Points this many pixels apart, and this many times what coming nearer has drawn them apart, have a gap between."""
SAME_SURFACE = 1.4
"""Points of one surface are at most so many times as far."""
LOG_LEVELS, DISTANCE_BITS = 1024, 4
PER_PIXEL = (30 << DISTANCE_BITS) + 1
"""A point counts as three percent farther for each pixel that it is away."""
RENEWED_FROM = 2.0
"""A surface that was seen from more than this many times as far is seen anew."""
MAX_SCALE = 4.0
"""Pixels of a keyframe that one pixel of a view spans at most."""
NOWHERE, BEYOND = 1e12, 1e6
"""The depth of points that are not drawn, and a depth that only such points have."""
MAX_KEYFRAMES = 32
"""Keyframes that one view may be rendered from: a rank takes five bits of the packed key."""


class View(NamedTuple):
    """Rendered views.

    colour: (b, v, 3, h, w) in [-1, 1], holes filled; cover: (b, v, h, w), 1 where a keyframe shows the pixel, 0 in
    holes; inverse_depth: (b, v, h, w) per metre, 0 for sky and holes; known: (b, v, h, w), 1 where the keyframe saw
    the surface from at most `RENEWED_FROM` times as far; keyframe: (b, v, h, w) int64, the rank of the keyframe that
    shows the pixel, 0 in holes; points: what each pixel shows.
    """

    colour: Tensor
    cover: Tensor
    inverse_depth: Tensor
    known: Tensor
    keyframe: Tensor
    points: Points


class Points(NamedTuple):
    """The point that each pixel of views shows, (b, v, h, w) each.

    point: int64 into the pixels of k depth images, 0 in holes; found: float, 0 in holes; depth: in the view;
    source_depth: in the keyframe; right, down: the pixel's place in the keyframe less that point's own, in pixels of
    the depth image.
    """

    point: Tensor
    found: Tensor
    depth: Tensor
    source_depth: Tensor
    right: Tensor
    down: Tensor

    @property
    def scale(self) -> Tensor:
        """Pixels of the keyframe that one pixel of the view spans."""
        return (self.depth / self.source_depth).clamp(max=MAX_SCALE)

    def divided(self) -> Points:
        """Four pixels for each, two across and two down, (b, v, 2 h, 2 w)."""
        part = (torch.arange(2, device=self.depth.device) - 0.5) / 2
        h, w = self.point.shape[-2:]
        wide = Points(*(a[..., :, None, :, None].expand(-1, -1, h, 2, w, 2).flatten(2, 3).flatten(3) for a in self))
        scale = wide.scale
        right = torch.addcmul(wide.right, scale, part.repeat(w))
        return wide._replace(right=right, down=torch.addcmul(wide.down, scale, part.repeat(h)[:, None]))


def render_views(
    colour: Tensor,
    depth: Tensor,
    hidden: Tensor,
    keyframe_pose: Tensor,
    valid: Tensor,
    pose: Tensor,
    focal: Tensor,
    fills: Tensor | None = None,
) -> View:
    """Renders keyframes into new views, in order of preference.

    colour: (b, k, 3, H, W) uint8, or floating in [-1, 1]; depth: (b, k, h, w) metres; hidden: (b, k, h, w) bool, pixels
    that are not drawn (the player's own body, what moves); keyframe_pose: (b, k, 6); valid: (b, k) bool; pose:
    (b, v, 6); focal: (b, 2); fills: (b, k) bool, keyframes that are drawn only where the others leave holes, however
    near they are.  Of several keyframes that show a surface the first wins: one source a pixel, because averages of
    slightly different depths are blur.
    """
    keyframe_pose, is_sound = _sound(keyframe_pose)
    pose, is_seen_from = _sound(pose)
    valid = valid & is_sound & is_seen_from.all(1, keepdim=True)
    points = _nearest_points(depth, hidden, keyframe_pose, valid, pose, focal, fills)
    rgb, cover = sample_colour(colour, hidden, points), points.found
    rgb = push_pull(rgb.flatten(0, 1), cover.flatten(0, 1)[:, None]).unflatten(0, rgb.shape[:2])
    inverse = points.depth.clamp(min=0.3).reciprocal() * (points.depth < SKY / 2)
    known = cover * (points.source_depth <= RENEWED_FROM * points.depth)
    return View(rgb, cover, inverse, known, points.point // (depth.shape[-2] * depth.shape[-1]), points)


def _sound(pose: Tensor) -> tuple[Tensor, Tensor]:
    """Poses (b, n, 6) with those that are no numbers, or out of this world, at the origin; whether they are sound."""
    sound = (pose.abs() < BEYOND).all(-1)
    return torch.where(sound[..., None], pose, torch.zeros_like(pose)), sound


def splat(depth: Tensor, keyframe_pose: Tensor, pose: Tensor, focal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Projects every pixel of depth images into views.

    depth: (b, k, h, w) metres, infinitely far things at `SKY`; keyframe_pose: (b, k, 6); pose: (b, v, 6); focal:
    (b, 2).  Returns columns, rows (pixels, 0 at the centre of the first) and depths, (b, v, k, h, w) each.

    As `project(unproject(...))`, without world coordinates between: a pixel's ray in the view is linear in its place.
    """
    h, w = depth.shape[-2:]
    axes, theirs = rotation(pose)[:, :, None], rotation(keyframe_pose)[:, None]  # (b, v, 1, 3, 3), (b, 1, k, 3, 3)
    between = keyframe_pose[:, None, :, None, :3] - pose[:, :, None, None, :3]
    shift = (axes * between).sum(-1)  # sums, not products of matrices: those may round to fewer bits
    turn = (axes[..., :, None, :] * theirs[..., None, :, :]).sum(-1)
    lens = torch.stack([focal[:, 0], -focal[:, 1], torch.ones_like(focal[:, 0])], -1)[:, None, None]
    turn = turn * (lens[..., :, None] / lens[..., None, :])
    shift = shift * lens
    x = torch.arange(w, device=depth.device) + 0.5 - w / 2
    y = (torch.arange(h, device=depth.device) + 0.5 - h / 2)[:, None]

    def along(axis: int) -> Tensor:
        a, b, c = (part[..., None, None] for part in turn[..., axis, :].unbind(-1))
        return torch.addcmul(shift[..., axis, None, None], a * x + (b * y + c), depth[:, None])

    z = along(2)
    scale = z.clamp(min=NEAR).reciprocal_()
    return along(0).mul_(scale).add_((w - 1) / 2), along(1).mul_(scale).add_((h - 1) / 2), z


def _leave_to_recorded(drawn_z: Tensor, address: Tensor, fills: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Moves points of generated keyframes out of sight where recorded ones are, and at their rims: they fill holes.

    In front of what was recorded they would hide it for good.  drawn_z: (b, v, k, h, w); fills: (b, k), marks the
    generated ones; size: views, height, width of what `address` points into.
    """
    filling = fills[:, None, :, None, None].float()
    taken = torch.zeros(math.prod(size), device=drawn_z.device)
    taken.scatter_reduce_(0, address, ((drawn_z < BEYOND).float() * (1 - filling)).flatten(), "amax")
    taken = dilate(taken.view(size) > 0).flatten().float()
    return drawn_z + taken.index_select(0, address).view_as(drawn_z) * filling * NOWHERE


def _pick_points(drawn_z: Tensor, distance: Tensor, place: Tensor, address: Tensor, count: int) -> Tensor:
    """The point that each of `count` pixels shows: the nearest to its centre of those that nothing is in front of.

    distance: (b, v, k, h, w) squared, from the pixel's centre; place, address: of the pixel, int32 and int64.  Returns
    int32, the point in the lowest 21 bits, negative where there is one.
    """
    _, _, k, h, w = drawn_z.shape
    device = drawn_z.device
    nearest = torch.full((count,), NOWHERE, device=device)
    nearest.scatter_reduce_(0, address, drawn_z.flatten(), "amin")
    factor, slack = DEPTH_TOLERANCE
    limit = (nearest * factor + slack) * (nearest < BEYOND)
    visible = (drawn_z.flatten() <= limit.index_select(0, place)).int().view_as(drawn_z)
    # Visible (the sign), rank (five bits), distance to the pixel's centre (five bits) and point (21 bits) in one
    # integer: one scatter.
    rank = torch.arange(k, device=device, dtype=torch.int32).view(k, 1, 1) << 26
    point = torch.arange(k * h * w, device=device, dtype=torch.int32).view(k, h, w)
    key = (visible << 31) | (distance.clamp_(max=0.5).mul_(62).int() << 21) | (rank | point)
    best = torch.zeros(count, dtype=torch.int32, device=device)
    best.scatter_reduce_(0, address, key.flatten(), "amin")
    return best


def _nearest_points(
    depth: Tensor,
    hidden: Tensor,
    keyframe_pose: Tensor,
    valid: Tensor,
    pose: Tensor,
    focal: Tensor,
    fills: Tensor | None,
) -> Points:
    """Finds the point that each pixel shows.

    Masks are applied by arithmetic: on a CPU `torch.where` and `masked_fill` take thirty times as long.
    """
    b, k, h, w = depth.shape
    v, m, device = pose.shape[1], k * h * w, depth.device
    depth = clip_far(depth.float())
    x, y, z = splat(depth, keyframe_pose, pose, focal)
    column, row = x.round(), y.round()
    absent = (hidden | ~valid[..., None, None]).float()[:, None] * NOWHERE
    drawn_z = (NEAR - z).clamp_(min=0).mul_(NOWHERE).add_(absent).add_(z)
    # What lies outside goes to a border of one pixel around the view.
    height, width = h + 2, w + 2
    place = ((row.clamp(-1, h) + 1) * width + (column.clamp(-1, w) + 1)).int().view(b * v, m)
    place = (place + (torch.arange(b * v, device=device) * (height * width)).int()[:, None]).flatten()
    address = place.long()
    if fills is not None:
        drawn_z = _leave_to_recorded(drawn_z, address, fills, (b * v, height, width))
    distance = (column - x).square_().add_((row - y).square_())
    best = _pick_points(drawn_z, distance, place, address, b * v * height * width)
    best = best.view(b * v, height, width)[:, 1:-1, 1:-1]
    index = (best & (1 << 21) - 1) | ~(best >> 31)  # -1 in holes
    first = (torch.arange(b * v, device=device) * m).view(-1, 1, 1)
    z = z.flatten().index_select(0, (index.clamp(min=0) + first).flatten()).view_as(index) + (index < 0) * NOWHERE
    sources = depth.flatten(1)[:, None].expand(b, v, m).reshape(b * v, m)
    for reach in GAP_REACHES:
        index, z = _close_gaps(index, z, sources, reach)
    found, index = (index >= 0).float(), index.clamp(min=0).long()
    at = (index + first).flatten()
    source = (index.view(b, v, -1) + (torch.arange(b, device=device) * m).view(-1, 1, 1)).flatten()
    source_depth = depth.flatten().index_select(0, source).view_as(z)
    scale = (z / source_depth).clamp(max=MAX_SCALE)
    right = (torch.arange(w, device=device) - x.flatten().index_select(0, at).view_as(z)) * scale
    down = (torch.arange(h, device=device)[:, None] - y.flatten().index_select(0, at).view_as(z)) * scale
    return Points(*(a.view(b, v, h, w) for a in (index, found, z, source_depth, right, down)))


def _close_gaps(index: Tensor, z: Tensor, source_depth: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Fills the gaps of a surface that has come nearer, between its points to the left and right or above and below.

    A gap is a pixel without a point, or with one far behind, between points of one surface that are as far apart as
    coming nearer has drawn them.  index, z: (views, h, w); source_depth: (views, m) of all points.
    """
    first = torch.arange(len(index), device=z.device).view(-1, 1, 1) * source_depth.shape[1]
    factor, slack = DEPTH_TOLERANCE
    for dim in (-1, -2):
        source = source_depth.flatten().index_select(0, (index.clamp(min=0) + first).flatten()).view_as(z)
        levels = z.clamp(max=NOWHERE).log_().mul_(LOG_LEVELS).round_().int() << DISTANCE_BITS
        depth, (left, right) = _nearest_beside(levels, dim, reach)
        near, far, gap = depth.amin(0), depth.amax(0), left + right
        here = torch.arange(z.shape[dim], device=z.device).view(-1, *[1] * (-1 - dim))
        spread = source / z  # pixels from one point to the next
        apart = torch.minimum(spread.gather(dim, here - left), spread.gather(dim, here + right))
        is_gap = (far < BEYOND) & (far * factor + slack < z)
        is_gap &= (gap <= SMALL_GAP) | ((gap <= 1 + GAP_SPREAD * apart) & (far <= near * SAME_SURFACE))
        at = here + torch.where(left <= right, -left, right) * is_gap
        z, index = z.gather(dim, at), index.gather(dim, at)
    return index, z


def _nearest_beside(levels: Tensor, dim: int, reach: int) -> tuple[Tensor, Tensor]:
    """Depths of the nearest points among the `reach` pixels before each pixel and after it along an axis, (2, ...),
    and their distances in pixels, int64; of a surface's points the one beside counts as nearest.  Where there is none,
    a depth above `BEYOND` and no distance.

    levels: int32 logarithms of depth, with room below for the distance, so that a minimum finds both: tilted, every
    pixel has the same ones for whoever looks at it, and a minimum of twice as many is one of two.
    """
    size = levels.shape[dim]
    tilt = PER_PIXEL * torch.arange(size, dtype=torch.int32, device=levels.device).view(-1, *[1] * (-1 - dim))
    tilted = torch.stack([levels - tilt, levels + tilt])
    none = round(math.log(NOWHERE) * LOG_LEVELS) << DISTANCE_BITS
    best, step = F.pad(tilted, (*[0, 0] * (-1 - dim), reach, reach), value=none), 1
    while step < reach:
        count = best.shape[dim] - step
        best, step = torch.minimum(best.narrow(dim, 0, count), best.narrow(dim, step, count)), 2 * step
    before, after = best[0].narrow(dim, 0, size) + tilt, best[1].narrow(dim, reach + 1, size) - tilt
    best = torch.stack([before, after])
    distance = best & ((1 << DISTANCE_BITS) - 1)
    depth = ((best - distance * PER_PIXEL) >> DISTANCE_BITS).float().div_(LOG_LEVELS).exp_()
    return depth, distance.long() * (depth < BEYOND)


def sample_colour(colour: Tensor, hidden: Tensor, points: Points) -> Tensor:
    """Bilinear samples of the keyframes at the points' places.  Returns (b, v, 3, ...) in [-1, 1], of the points' size.

    colour: (b, k, 3, H, W) uint8, or floating in [-1, 1]; hidden: (b, k, h, w) bool, pixels not to be sampled: where
    they would have a share, the sample is taken at the point itself.
    """
    b, k, _, height, width = colour.shape
    h, w = hidden.shape[-2:]
    device = colour.device
    beside = dilate(hidden).flatten().float()
    place = points.point.view(b, -1) + (torch.arange(b, device=device) * (k * h * w))[:, None]
    keyframe = (place.int() // (h * w)).view_as(points.point)
    pixel = points.point.int() % (h * w)
    y, x = pixel // w, pixel % w
    target = (y + points.down.round()).clamp(0, h - 1) * w + (x + points.right.round()).clamp(0, w - 1)
    target = target.long() + keyframe * (h * w)
    is_free = 1 - beside.index_select(0, target.flatten()).view_as(points.right)
    x, y = (
        ((p + offset * is_free + 0.5) * (large / small) - 0.5).clamp(0, large - 1)
        for p, offset, large, small in ((x, points.right, width, w), (y, points.down, height, h))
    )
    # All keyframes of a session, one below the other: places are held inside of theirs, so none reaches into the next.
    below = colour.transpose(1, 2).flatten(2, 3).float()
    grid = torch.stack([x * (2 / (width - 1)) - 1, (y + keyframe % k * height) * (2 / (k * height - 1)) - 1], -1)
    out = F.grid_sample(below, grid.flatten(1, 2), padding_mode="border", align_corners=True)
    out = out.unflatten(2, grid.shape[1:3]).transpose(1, 2)
    return out if colour.is_floating_point() else out / 127.5 - 1


def dilate(mask: Tensor) -> Tensor:
    """The pixels of a bool mask (..., h, w) and those beside them."""
    wide = F.pad(mask, (1, 1, 1, 1))
    wide = wide[..., :-2] | wide[..., 1:-1] | wide[..., 2:]
    return wide[..., :-2, :] | wide[..., 1:-1, :] | wide[..., 2:, :]


def push_pull(image: Tensor, weight: Tensor) -> Tensor:
    """Fills holes from coarser and coarser averages.  image: (n, c, h, w); weight: (n, 1, h, w) in 0..1."""
    levels = [torch.cat([image * weight, weight], 1)]
    while levels[-1].shape[-1] > 4:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    out = levels[-1][:, :-1] / levels[-1][:, -1:].clamp(min=1e-4)
    for level in reversed(levels[:-1]):
        above = F.interpolate(out, size=level.shape[-2:], mode="bilinear", align_corners=False)
        count = level[:, -1:]
        out = torch.lerp(above, level[:, :-1] / count.clamp(min=1e-4), (count * 4).clamp(max=1))
    return out
