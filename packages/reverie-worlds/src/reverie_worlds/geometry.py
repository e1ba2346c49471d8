"""Geometry that the worlds share: depth buffers to metres, camera matrices to poses, cells to points."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import GEOMETRY_SHAPE, POSE_NAMES, Pose

Floats = npt.NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)

NO_BODY = np.zeros(GEOMETRY_SHAPE, np.bool_)
"""The body mask of a game that draws nothing of the player."""
NO_BODY.setflags(write=False)


def check_pose(pose: npt.ArrayLike) -> tuple[float, ...]:
    """The six numbers of a pose.  Raises WorldError unless it has them, and they are finite."""
    numbers = np.asarray(pose, np.float64)
    if numbers.shape != (len(POSE_NAMES),) or not np.isfinite(numbers).all():
        raise WorldError(f"a pose is six finite numbers ({', '.join(POSE_NAMES)}), got {numbers.tolist()}")
    return tuple(float(number) for number in numbers)


def sample_cells(image: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Samples an image `(H, W)` at the centres of the cells of a geometry `(64, 112)`."""
    rows, columns = (
        ((np.arange(cells) + 0.5) * size / cells).astype(np.intp)
        for cells, size in zip(GEOMETRY_SHAPE, image.shape, strict=True)
    )
    return image[rows[:, None], columns]


def linear_depth(buffer: Floats, projection: npt.NDArray[np.floating]) -> Floats:
    """Converts an OpenGL depth buffer to metres along the optical axis.

    At 1, where nothing was drawn, and above it is infinite.  projection: `(4, 4)` for column vectors.
    """
    a, b = float(projection[2, 2]), float(projection[2, 3])
    with np.errstate(divide="ignore"):
        depth = b / (2.0 * buffer.astype(np.float64) - 1.0 + a)
    return np.where(buffer < 1.0, np.abs(depth), np.inf).astype(np.float32)


def perspective(near_m: float, far_m: float) -> npt.NDArray[np.float64]:
    """The rows of an OpenGL projection that depth depends on, `(4, 4)`, for two clipping planes."""
    matrix = np.zeros((4, 4))
    matrix[2, 2] = -(far_m + near_m) / (far_m - near_m)
    matrix[2, 3] = -2.0 * far_m * near_m / (far_m - near_m)
    return matrix


def cell_points(depth: Floats, fov_deg: float, pixel_aspect: float = 1.0) -> Floats:
    """Points `(64, 112, 3)` of the cells in camera coordinates: right, up, forward, metres."""
    height, width = depth.shape
    across = width / 2 / math.tan(math.radians(fov_deg) / 2)
    down = across * pixel_aspect
    y, x = np.meshgrid(np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2, indexing="ij")
    with np.errstate(invalid="ignore"):
        return np.stack([x / across * depth, -y / down * depth, depth], axis=-1).astype(np.float32)


def camera_pose(
    position: npt.ArrayLike,
    right: npt.NDArray[np.floating],
    up: npt.NDArray[np.floating],
    forward: npt.NDArray[np.floating],
) -> Pose:
    """The pose of a camera at `position` with three unit axes, all in a frame with x east, y north, z up."""
    yaw = math.atan2(float(forward[0]), float(forward[1]))
    pitch = math.asin(min(max(float(forward[2]), -1.0), 1.0))
    level_right = np.array([math.cos(yaw), -math.sin(yaw), 0.0])
    level_up = np.cross(level_right, forward)
    roll = math.atan2(-float(right @ level_up), float(right @ level_right))
    return np.array([*np.asarray(position, np.float64), *np.degrees([yaw % math.tau, pitch, roll])], np.float32)
