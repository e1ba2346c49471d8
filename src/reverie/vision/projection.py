"""Cameras: poses, fields of view, and points between the world and an image.

Conventions, the same for every game: a pose is (x, y, z, yaw, pitch, roll) in metres and degrees, x east, y north, z
up, yaw from north to the right, pitch up, roll to the right.  Depth is measured along the optical axis, in metres.

Legend: b batch of sessions, v views, k keyframes, n = h w pixels of a view.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Degrees = TypeVar("Degrees", Tensor, npt.NDArray[np.floating[Any]])

VIEW_SIZE = (64, 112)
"""(h, w) of rendered views and of depth images."""
FAR = 95.0
"""Depths beyond this many metres are treated as infinitely far: sky does not move when one walks."""
SKY = 3000.0
NEAR = 0.15
"""Points closer than this to the camera are not drawn."""


def wrap_degrees(degrees: Degrees) -> Degrees:
    """The same turn within half a circle to either side."""
    return (degrees + 180) % 360 - 180


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
    """Factor on rotations by which an image of one horizontal field of view moves as one of another would; 1 where
    either is unknown."""
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
