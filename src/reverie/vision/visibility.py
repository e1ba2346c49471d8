"""Free space: a surface that a camera sees something clearly farther through is not there any more.

Legend: b batch, k depth images that are tested, v frames that test them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reverie.vision.projection import clip_far
from reverie.vision.rendering import splat


def compare_depth(
    depth: Tensor,
    keyframe_pose: Tensor,
    frame_depth: Tensor,
    frame_hidden: Tensor,
    frame_pose: Tensor,
    focal: Tensor,
    tolerance: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Compares the points of depth images with what other frames see along the same rays.

    depth: (b, k, h, w) metres; keyframe_pose: (b, k, 6); frame_depth: (b, v, h, w) metres and frame_hidden: (b, v, h,
    w) bool, pixels without information; frame_pose: (b, v, 6); focal: (b, 2); tolerance: factor and metres.

    Returns through and beside, (b, v, k, h, w) bool: the frame sees something farther than `factor * depth + metres`;
    the frame sees the point's pixel, and nothing farther.  Both are false for points outside the frame.
    """
    h, w = depth.shape[-2:]
    x, y, z = splat(clip_far(depth.float()), keyframe_pose, frame_pose, focal)
    inside = (z > 0.3) & (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    place = (y.round().clamp(0, h - 1) * w + x.round().clamp(0, w - 1)).int().long().flatten(2)
    # The nearest of 3 x 3 depths: a point at an edge is not seen through.
    nearest = -F.max_pool2d(-frame_depth.float(), 3, stride=1, padding=1)
    there = nearest.flatten(2).gather(2, place).view_as(z)
    inside &= ~frame_hidden.flatten(2).gather(2, place).view_as(z)
    factor, metres = tolerance
    is_farther = there > z * factor + metres
    return inside & is_farther, inside & ~is_farther
