"""A made-up room, rendered exactly: a box with textured walls, whose depth and colour are known everywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from reverie.scenes.keyframes import Keyframes
from reverie.vision.projection import VIEW_SIZE, focal_lengths, pixel_rays, rotation

HALF = np.array([4.0, 4.0, 1.5])
"""The room reaches from minus to plus this, in metres."""
FOV_DEG = 90.0
FOCAL = focal_lengths(torch.tensor([FOV_DEG]))[0]


def look(
    pose: npt.NDArray[np.floating], size: tuple[int, int] = VIEW_SIZE
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Colour (h, w, 3) and depth (h, w) along the optical axis, from `pose` (6,)."""
    lens = focal_lengths(torch.tensor([FOV_DEG]), width=size[1])
    camera = pixel_rays(lens, size)[0].double().numpy()
    rays = camera @ rotation(torch.from_numpy(np.asarray(pose, np.float64))).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        along = np.where(rays > 0, (HALF - pose[:3]) / rays, np.where(rays < 0, (-HALF - pose[:3]) / rays, np.inf))
    wall, depth = along.argmin(1), along.min(1)
    points = pose[:3] + rays * depth[:, None]
    side = 2 * wall + (rays[np.arange(len(rays)), wall] > 0)
    phase = side[:, None] * np.array([1.0, 2.3, 4.1])
    waves = np.sin(points @ np.array([[1.9, 0.7, 2.3], [0.8, 2.1, 1.2], [1.5, 1.1, 2.6]]) + phase)
    colour = 127 + 60 * waves + 40 * np.cos(phase)
    shape = (*size, 3)
    return colour.reshape(shape).clip(0, 255).astype(np.uint8), depth.reshape(size).astype(np.float32)


def keyframes(poses: npt.NDArray[np.floating], size: tuple[int, int] = VIEW_SIZE) -> Keyframes:
    """What cameras at `poses` (n, 6) see of the room."""
    seen = [look(pose, size) for pose in poses]
    depth = torch.from_numpy(np.stack([look(pose)[1] for pose in poses]))
    return Keyframes.new(
        torch.from_numpy(np.stack([colour for colour, _ in seen])).permute(0, 3, 1, 2).contiguous(),
        depth,
        torch.zeros(depth.shape, dtype=torch.bool),
        torch.from_numpy(np.asarray(poses, np.float32)),
        FOCAL,
    )


def walk(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Poses (count, 6) of a slow walk through the room that turns as it goes."""
    rng = np.random.default_rng(seed)
    pose, poses = np.zeros(6), []
    pose[3], turn = rng.uniform(0, 360), 0.0
    for _ in range(count):
        poses.append(pose.copy())
        turn = 0.9 * turn + rng.normal(0, 1.0)
        pose[3] = (pose[3] + turn) % 360
        yaw = np.radians(pose[3])
        there = pose[:2] + 0.08 * np.array([np.sin(yaw), np.cos(yaw)])
        pose[:2] = there.clip(-2.5, 2.5)
    return np.array(poses, np.float32)


def around(count: int, radius: float = 0.0) -> npt.NDArray[np.float32]:
    """Poses (count, 6) that look to all sides from about the middle."""
    poses = np.zeros((count, 6), np.float32)
    poses[:, 3] = np.arange(count) * 360 / count
    poses[:, 0], poses[:, 1] = radius * np.sin(np.radians(poses[:, 3])), radius * np.cos(np.radians(poses[:, 3]))
    return poses
