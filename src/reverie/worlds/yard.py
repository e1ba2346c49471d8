"""A walled yard under an open sky, drawn by casting rays: a toy world that needs nothing, for trying out and for tests.

It is all that a RecordableWorld is: known depth, poses with roll, and a body.
"""

from __future__ import annotations

import numpy as np

from reverie.types import GEOMETRY_SHAPE, Action, ActionSpace, Frames, Geometry, Pose

HALF_M, WALL_M, EYE_M = (6.0, 8.0), 3.0, 1.6
FOV_DEG = 80.0


class Yard:
    """Keys walk along the view, the mouse turns it, `lean` rolls it.  The body is a block at the frame's bottom."""

    action_space = ActionSpace(("forward", "back", "left", "right", "lean"))
    resolution = GEOMETRY_SHAPE
    block_frames = 1
    fov_deg = FOV_DEG
    pixel_aspect = 1.0
    map = "yard"
    finished = False

    def __init__(self) -> None:
        self.episode_info: dict[str, str] = {}
        self.hints: dict[str, float] = {}

    @property
    def pose(self) -> Pose:
        return np.array([self._x, self._y, EYE_M, self._yaw % 360.0, self._pitch, self._roll], np.float32)

    def reset(self, seed: int) -> Frames:
        rng = np.random.default_rng(seed)
        (self._x, self._y), self._yaw = rng.uniform(-2, 2, 2), float(rng.uniform(0, 360))
        self._pitch = self._roll = 0.0
        self._tone = rng.uniform(0, 6, 3)
        return self._draw()

    def step(self, action: Action) -> Frames:
        self._pitch = float(np.clip(self._pitch + action.mouse[0], -30, 30))
        self._yaw += action.mouse[1]
        self._roll += 2.0 * ("lean" in action.keys) - 0.2 * self._roll
        ahead = 0.12 * (("forward" in action.keys) - ("back" in action.keys))
        aside = 0.12 * (("right" in action.keys) - ("left" in action.keys))
        sin, cos = np.sin(np.radians(self._yaw)), np.cos(np.radians(self._yaw))
        self._x = float(np.clip(self._x + ahead * sin + aside * cos, -5, 5))
        self._y = float(np.clip(self._y + ahead * cos - aside * sin, -7, 7))
        return self._draw()

    def close(self) -> None:
        pass

    def geometry(self) -> Geometry:
        return Geometry(self._cast()[0].astype(np.float32), self._body())

    def _body(self) -> np.ndarray:
        body = np.zeros(GEOMETRY_SHAPE, np.bool_)
        body[56:, 48:64] = True
        return body

    def _cast(self) -> tuple[np.ndarray, np.ndarray]:
        """Depth, and the points that are seen, of every pixel; the sky is at infinity."""
        rays, eye = self._rays(), np.array([self._x, self._y, EYE_M])
        with np.errstate(divide="ignore"):
            floor = np.where(rays[..., 2] < 0, -EYE_M / rays[..., 2], np.inf)
            walls = [
                np.where(rays[..., axis] > 0, half - eye[axis], -half - eye[axis]) / rays[..., axis]
                for axis, half in enumerate(HALF_M)
            ]
        wall = np.minimum(*walls)
        wall[EYE_M + wall * rays[..., 2] > WALL_M] = np.inf
        depth = np.minimum(floor, wall)
        return depth, eye + np.where(np.isinf(depth), 0.0, depth)[..., None] * rays

    def _rays(self) -> np.ndarray:
        """The direction of every pixel, of length 1 along the view: (h, w, 3)."""
        yaw, pitch, roll = np.radians([self._yaw, self._pitch, self._roll])
        forward = np.array([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
        level = np.array([np.cos(yaw), -np.sin(yaw), 0.0])
        upright = np.cross(level, forward)
        right = np.cos(roll) * level - np.sin(roll) * upright
        up = np.cos(roll) * upright + np.sin(roll) * level
        height, width = GEOMETRY_SHAPE
        focal = width / 2 / np.tan(np.radians(FOV_DEG) / 2)
        v, u = np.meshgrid(np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2, indexing="ij")
        return forward + u[..., None] / focal * right - v[..., None] / focal * up

    def _draw(self) -> Frames:
        depth, points = self._cast()
        waves = np.sin(points @ np.array([[2.1, 0.7, -1.1], [0.5, -2.3, 1.3], [1.7, 1.9, 2.2]]) + self._tone)
        colour = 128 + 70 * waves + 40 * np.sin(5 * points.sum(-1, keepdims=True))
        colour[np.isinf(depth)] = (120, 160, 220)
        colour[self._body()] = (200, 30, 30)
        return colour.clip(0, 255).astype(np.uint8)[None]
