"""Fine detail of what was seen, put back into generated frames.

The tokenizer keeps colours and shapes, and loses what is finer than a few pixels; the keyframes have it.  Where the
memory's view and a generated frame agree in what is coarse, the frame takes what is fine from the view.  Where they do
not (what moves, the player's own body, light that has changed), and where the view is ragged, it stays as it was
generated.

Legend: b batch, f frames, (H W) frames, (h w) views at half size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE = 8
"""Pixels of a frame, across and down, whose mean is coarse."""
TOLERANCE = 0.15
"""Difference of coarse colours, of 2 from black to white, at which a frame takes a third of the view's detail."""
KEPT_COARSE = 0.5
"""Share of the coarse difference that stays: of two estimates of a colour, the mean is nearest to the truth."""
BODY_RIM = 7
"""Pixels of a view, across and down, that a pixel of the body takes: it moves within a block."""
SAME_SURFACE = 0.2
"""Relative difference of inverse depths up to which neighbours lie on one surface."""
MIN_NEIGHBOURS = 4
"""A pixel with fewer of eight neighbours on its surface is a stray point, or a rim's tooth."""


def add_detail(frames: Tensor, detail: Tensor, cover: Tensor, inverse_depth: Tensor, body: Tensor) -> Tensor:
    """Generated frames with the view's fine detail.

    frames: (b, f, 3, H, W) in [-1, 1]; detail: the view at full size, (b, f, 3, 2 h, 2 w) in [-1, 1]; cover,
    inverse_depth: (b, f, h, w) of the view; body: (b, h, w) of the player in the last frame, 1 where it is and about
    where it was before.  Returns (b, f, 3, H, W), a little beyond [-1, 1] in places.
    """
    size, view = frames.shape[-2:], detail.flatten(0, 1)
    if view.shape[-2:] != size:  # test models have other views
        view = F.interpolate(view, size, mode="area")
    weight = F.interpolate(cover.flatten(0, 1)[:, None], size, mode="area")
    difference = (view - frames.flatten(0, 1)) * weight  # in holes the view shows anything
    coarse, share = (F.avg_pool2d(x, COARSE, ceil_mode=True) for x in (difference, weight))
    coarse = coarse / share.clamp(min=1e-3)
    apart = F.avg_pool2d(coarse.abs().mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
    agreement = torch.exp(-(apart / TOLERANCE).square())
    is_drawn = _is_drawn(cover, inverse_depth, body)
    agreement, is_drawn, coarse = (F.interpolate(x, size, mode="bilinear") for x in (agreement, is_drawn, coarse))
    return frames + (difference - KEPT_COARSE * coarse).mul_(agreement * is_drawn).view_as(frames)


def show_behind(frames: Tensor, view: Tensor, cover: Tensor, body: Tensor) -> Tensor:
    """Frames in which the view is seen where a body was painted, but for the view's holes.

    As `add_detail`; cover: without a body before the view.
    """
    size = frames.shape[-2:]
    painted = F.interpolate(_with_rim(body), size, mode="bilinear")[:, None]
    # In holes the view shows anything: its holes stay sharp.
    found = F.interpolate(cover.flatten(0, 1)[:, None], size, mode="area").view(*frames.shape[:2], 1, *size)
    if view.shape[-2:] != size:
        view = F.interpolate(view.flatten(0, 1), size, mode="area").unflatten(0, view.shape[:2])
    return torch.lerp(frames, view, painted * (found == 1))


def _with_rim(body: Tensor) -> Tensor:
    """The body (b, h, w) of a block's last frame and where it was about before, (b, 1, h, w)."""
    return F.max_pool2d(body[:, None].float(), BODY_RIM, 1, BODY_RIM // 2)


def _neighbours(inverse_depth: Tensor) -> Tensor:
    """Counts of the eight neighbours that are on each pixel's surface.  inverse_depth: (..., h, w) per metre."""
    inverse_depth = inverse_depth + 1e-3  # sky is a surface
    h, w = inverse_depth.shape[-2:]
    padded = F.pad(inverse_depth, (1, 1, 1, 1))
    around = [padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    limit, count = SAME_SURFACE * inverse_depth, torch.zeros_like(inverse_depth)
    for one in around:
        count += (one - inverse_depth).abs() < limit
    return count


def _is_drawn(cover: Tensor, inverse_depth: Tensor, body: Tensor) -> Tensor:
    """Marks pixels whose detail may be taken, (b f, 1, h, w): not at the rims of holes, on the body, or astray."""
    is_drawn = -F.max_pool2d(-cover, 3, 1, 1)  # covered, and its neighbours too
    is_drawn = is_drawn * (1 - _with_rim(body))
    return (is_drawn * (_neighbours(inverse_depth) >= MIN_NEIGHBOURS)).flatten(0, 1)[:, None]
