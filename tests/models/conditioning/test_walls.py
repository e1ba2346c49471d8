"""Walls stop the camera, in a room whose walls are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers.rendered_room import FOCAL, HALF, around, keyframes
from torch import Tensor

from reverie.models import presets
from reverie.models.conditioning.spatial_memory import SpatialMemory, SpatialMemoryConfig
from reverie.models.conditioning.walls import BODY_RADIUS
from reverie.models.state import SpatialMemoryState
from reverie.scenes.keyframes import Candidates

PRESET = presets.tiny_memory()
STEP = 0.14
"""Metres a frame: a fast walk."""


@pytest.fixture(scope="module")
def room() -> Candidates:
    frames = keyframes(np.concatenate([around(8), around(8, radius=1.5)]))
    return Candidates.of_scene(frames)


@pytest.fixture(scope="module")
def memory() -> SpatialMemory:
    return SpatialMemory(SpatialMemoryConfig(keyframes=2), PRESET.world.action_space, PRESET.world.latent).eval()


@torch.inference_mode()
def walk(memory: SpatialMemory, room: Candidates, yaw: float, steps: int = 32, start: tuple[float, float] = (0, 0)):
    """Straight on for `steps` blocks towards `yaw`; where that leads, (steps, 2)."""
    state: SpatialMemoryState = memory.init_state(1, (32, 64))
    state.focal.copy_(FOCAL)
    state.camera[:, 0], state.camera[:, 1] = start
    angle, places = torch.deg2rad(torch.tensor(yaw)), []
    way = torch.stack([angle.sin(), angle.cos()]) * STEP
    for _ in range(steps):
        poses: Tensor = state.camera[:, None].repeat(1, 4, 1)
        poses[..., :2] += torch.arange(1, 5)[:, None] * way
        state.camera.copy_(memory.stop_at_walls(state, poses, room)[:, -1])
        places.append(state.camera[0, :2].clone())
    return torch.stack(places)


@pytest.mark.parametrize("yaw", [0.0, 90.0, 180.0, 270.0])
def test_a_walk_of_five_seconds_into_a_wall_ends_before_it(memory: SpatialMemory, room: Candidates, yaw: float) -> None:
    places = walk(memory, room, yaw)
    assert places.abs().max() < HALF[0] - 0.5 * BODY_RADIUS
    assert places[-1].abs().max() > HALF[0] - 3 * BODY_RADIUS, "it comes to the wall"


def test_it_slides_along_a_wall_that_it_meets_at_an_angle(memory: SpatialMemory, room: Candidates) -> None:
    places = walk(memory, room, 55.0, steps=18, start=(1.0, -2.5))
    assert (places.abs() < HALF[0] - 0.5 * BODY_RADIUS).all()
    at_wall = places[places[:, 0] > HALF[0] - 3 * BODY_RADIUS]
    assert len(at_wall) > 3
    assert at_wall[-1, 1] - at_wall[0, 1] > 0.5


def test_a_way_that_is_free_is_left_as_it_is(memory: SpatialMemory, room: Candidates) -> None:
    places = walk(memory, room, 30.0, steps=4)
    torch.testing.assert_close(places[-1].norm(), torch.tensor(16 * STEP), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_without_memory_nothing_stops_it(memory: SpatialMemory) -> None:
    state = memory.init_state(2, (32, 64))
    state.focal.copy_(FOCAL)
    poses = torch.zeros(2, 4, 6)
    poses[0, :, 1], poses[1, :, 3] = torch.arange(1, 5) * STEP, 5.0  # one walks, one turns on the spot
    torch.testing.assert_close(memory.stop_at_walls(state, poses, None), poses)
