"""Top views: the memory's points from above, with the camera, its field of view and its trail."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

BACKGROUND = (14, 14, 22)
TRAIL, CAMERA = (242, 201, 160), (255, 255, 255)
BELOW_M, ABOVE_M = 3.0, 2.0
"""Heights, relative to the camera, between which points are drawn: what is higher is a ceiling, and would hide all."""
RADIUS_M = (8.0, 80.0)
"""The map reaches so far from the camera, at least and at most."""
CELL_PX = 2
"""Points are counted in cells of this size."""
COVERED = 0.5
"""Share of the points within `RADIUS_M` that the map reaches to."""


def draw_top_view(
    points: npt.NDArray[np.floating],
    camera: npt.NDArray[np.floating],
    trail: npt.NDArray[np.floating],
    fov_deg: float,
    size: int = 192,
) -> npt.NDArray[np.uint8]:
    """Draws points from above, north up, the camera in the middle.

    points: (n, 3) metres, east, north, up; camera: (6,) pose; trail: (t, 2) where it was, oldest first; fov_deg: its
    horizontal field of view; size: pixels, an even number.  Low points are dark and blue, those at the camera's height
    bright and warm.  Returns (size, size, 3) RGB.
    """
    image = np.full((size, size, 3), BACKGROUND, np.uint8)
    offset = np.asarray(points, np.float32) - np.asarray(camera[:3], np.float32)
    away = np.hypot(offset[:, 0], offset[:, 1])
    drawn = (offset[:, 2] > -BELOW_M) & (offset[:, 2] < ABOVE_M) & (away < RADIUS_M[1])
    offset, away = offset[drawn], away[drawn]
    radius = float(np.clip(np.quantile(away, COVERED), *RADIUS_M)) if len(away) else RADIUS_M[0]
    scale = size / 2 / radius

    def pixels(east_north: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        return np.stack([size / 2 + east_north[:, 0] * scale, size / 2 - east_north[:, 1] * scale], 1)

    _draw_points(image, pixels(offset[:, :2]).astype(np.int64), offset[:, 2])
    path = pixels(np.asarray(trail, np.float32) - np.asarray(camera[:2], np.float32))
    cv2.polylines(image, [(path * 16).round().astype(np.int32)], False, TRAIL, 1, cv2.LINE_AA, shift=4)
    _draw_camera(image, float(camera[3]), fov_deg)
    return image


def _draw_points(image: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], height: npt.NDArray[np.floating]) -> None:
    """Colours each pixel by the mean height of its points; where there are more, it is brighter."""
    size, at = len(image) // CELL_PX, at // CELL_PX
    inside = ((at >= 0) & (at < size)).all(1)
    place, height = at[inside, 1] * size + at[inside, 0], height[inside]
    count = np.bincount(place, minlength=size * size)
    mean = np.bincount(place, height, minlength=size * size) / np.maximum(count, 1)
    level = np.clip(1 + mean / BELOW_M, 0, 1)[:, None]
    low, middle, high = (np.array(colour, np.float32) for colour in ((46, 62, 120), (120, 150, 160), (250, 205, 120)))
    colour = np.where(level < 0.5, low + (middle - low) * 2 * level, middle + (high - middle) * (2 * level - 1))
    strength = (1 - np.exp(-0.7 * count))[:, None]
    cells = (BACKGROUND + (colour - BACKGROUND) * strength).round().astype(np.uint8).reshape(size, size, 3)
    image[:] = cells.repeat(CELL_PX, 0).repeat(CELL_PX, 1)


def _draw_camera(image: npt.NDArray[np.uint8], yaw_deg: float, fov_deg: float) -> None:
    centre, length = len(image) / 2, len(image) / 5
    angles = np.radians(yaw_deg + np.linspace(-fov_deg / 2, fov_deg / 2, 9))
    rim = centre + length * np.stack([np.sin(angles), -np.cos(angles)], 1)
    fan = (np.concatenate([[[centre, centre]], rim]) * 16).round().astype(np.int32)
    over = image.copy()
    cv2.fillPoly(over, [fan], CAMERA, cv2.LINE_AA, shift=4)
    cv2.addWeighted(over, 0.25, image, 0.75, 0, dst=image)
    cv2.circle(image, (round(centre), round(centre)), max(2, len(image) // 64), CAMERA, -1, cv2.LINE_AA)


def field_of_view(focal_px: float, width: int) -> float:
    """Degrees across that a focal length in pixels gives to an image of `width` pixels."""
    return math.degrees(2 * math.atan(width / 2 / focal_px))
