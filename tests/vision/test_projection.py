"""Cameras: axes, and points to pixels and back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reverie.vision.projection import VIEW_SIZE, focal_lengths, project, rotation, turn_scale, unproject

H, W = VIEW_SIZE


def pose(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Tensor:
    return torch.tensor([0.0, 0.0, 0.0, yaw, pitch, roll])


def test_the_axes_of_a_camera() -> None:
    right, up, forward = rotation(pose())
    torch.testing.assert_close(right, torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(forward, torch.tensor([0.0, 1, 0]))
    torch.testing.assert_close(up, torch.tensor([0.0, 0, 1]))
    east = rotation(pose(yaw=90))[2]
    torch.testing.assert_close(east, torch.tensor([1.0, 0, 0]), atol=1e-6, rtol=0)  # yaw is to the right
    assert rotation(pose(pitch=30))[2, 2] == pytest.approx(0.5)  # pitch is up
    assert rotation(pose(roll=30))[0, 2] == pytest.approx(-0.5)  # roll is to the right
    axes = rotation(torch.randn(5, 6) * 60)
    torch.testing.assert_close(axes @ axes.transpose(-1, -2), torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)


def test_projecting_undoes_unprojecting() -> None:
    generator = torch.Generator().manual_seed(0)
    camera = torch.randn(2, 1, 6, generator=generator) * torch.tensor([5.0, 5, 1, 90, 20, 5])
    depth = 1 + 20 * torch.rand(2, 1, H, W, generator=generator)
    focal = focal_lengths(torch.tensor([70.0, 100.0]), torch.tensor([1.0, 1.2]))
    points = unproject(depth, camera, focal)
    xy, z = project(points[:, 0], camera, focal)
    torch.testing.assert_close(z[:, 0].view(2, H, W), depth[:, 0], atol=1e-3, rtol=1e-4)
    x, y = xy[:, 0].view(2, H, W, 2).unbind(-1)
    torch.testing.assert_close(x, torch.arange(W).float().expand_as(x), atol=0.02, rtol=0)
    torch.testing.assert_close(y, torch.arange(H).float()[:, None].expand_as(y), atol=0.02, rtol=0)


def test_mouse_rotations_scale_with_the_field_of_view() -> None:
    assert turn_scale(None, 90.0) == turn_scale(90.0, None) == turn_scale(70.0, 70.0) == 1.0
    assert turn_scale(60.0, 90.0) == pytest.approx(math.sqrt(3))
