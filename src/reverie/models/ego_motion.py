"""Ego-motion: what the next four frames' actions do to the camera.

A frame's motion is (forward, right, up, yaw, pitch, roll) since the frame before: metres in the level frame of that
frame's yaw, and degrees.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.actions import STEP_FRAMES, WINDOW_FRAMES

MOTION_SCALE = (0.1, 0.1, 0.05, 1.0, 1.0, 1.0)
"""A usual frame's motion: metres and degrees."""
MOTION_FRAMES = 8
"""Frames whose motions are given."""
AHEAD_GRID = (8, 14)
"""Cells of the log depth of the last frame, which shows the walls."""


def relative_motion(before: Tensor, after: Tensor) -> Tensor:
    """The motion from poses `before` to poses `after`, (..., 6) each."""
    yaw = torch.deg2rad(before[..., 3])
    step = after[..., :3] - before[..., :3]
    s, c = yaw.sin(), yaw.cos()
    turn = (after[..., 3] - before[..., 3] + 180) % 360 - 180
    forward, right = step[..., 0] * s + step[..., 1] * c, step[..., 0] * c - step[..., 1] * s
    tilt = after[..., 4:6] - before[..., 4:6]
    return torch.cat([torch.stack([forward, right, step[..., 2], turn], -1), tilt], -1)


def apply_motion(pose: Tensor, motion: Tensor) -> Tensor:
    """The pose after a frame's motion, (..., 6) each."""
    yaw = torch.deg2rad(pose[..., 3])
    s, c = yaw.sin(), yaw.cos()
    x = pose[..., 0] + motion[..., 0] * s + motion[..., 1] * c
    y = pose[..., 1] + motion[..., 0] * c - motion[..., 1] * s
    place = torch.stack([x, y, pose[..., 2] + motion[..., 2]], -1)
    return torch.cat([place, pose[..., 3:] + motion[..., 3:]], -1)


class EgoMotionNet(nn.Module):
    """Motions of the next four frames from the last latent, actions, the last motions, tilt and the depth ahead."""

    scale: Tensor

    def __init__(self, action_size: int, num_keys: int, latent_channels: int = 16, width: int = 256) -> None:
        super().__init__()
        self.num_keys = num_keys
        self.image = nn.Sequential(
            nn.Conv2d(latent_channels, 48, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(48, 64, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(64, 96, 3, 2, 1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d((2, 4)),
            nn.Flatten(),
            nn.Linear(96 * 8, 128),
            nn.SiLU(),
        )
        told = WINDOW_FRAMES * action_size + MOTION_FRAMES * 6
        inputs = 128 + told + 2 + AHEAD_GRID[0] * AHEAD_GRID[1]
        self.mlp = nn.Sequential(
            nn.Linear(inputs, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, STEP_FRAMES * 6),
        )
        self.skip = nn.Linear(told, STEP_FRAMES * 6)
        nn.init.zeros_(self.mlp[4].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.skip.weight)
        self.register_buffer("scale", torch.tensor(MOTION_SCALE))

    def forward(self, latent: Tensor, actions: Tensor, motion: Tensor, tilt: Tensor, ahead: Tensor) -> Tensor:
        """latent: (b, c, h, w) of the last step; actions: (b, 12, a), of its 8 frames and of the next 4; motion:
        (b, 8, 6) of the last 8 frames; tilt: (b, 2) pitch and roll now; ahead: (b, 8, 14) log depth of the last frame.

        Returns (b, 4, 6).
        """
        mouse = actions[..., self.num_keys :] * 0.5
        rows = torch.cat([actions[..., : self.num_keys], mouse], -1).flatten(1)
        told = torch.cat([rows, (motion / self.scale).clamp(-30, 30).flatten(1) * 0.3], 1)
        inputs = torch.cat([self.image(latent), told, tilt / 20, ahead.flatten(1) - 2], 1)
        return (self.mlp(inputs) + self.skip(told)).unflatten(1, (STEP_FRAMES, 6)) * self.scale


def depth_ahead(log_depth: Tensor) -> Tensor:
    """Log depth (b, h, w) on the grid that the network takes, (b, 8, 14)."""
    return F.adaptive_avg_pool2d(log_depth[:, None], AHEAD_GRID)[:, 0]
