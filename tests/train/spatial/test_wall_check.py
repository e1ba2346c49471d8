"""Walls that recorded cameras went through are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tests.helpers import rendered_room as rooms
from tests.helpers.yard_scene import record_yard

from reverie.scenes.recordings import read_poses
from reverie.train.spatial.wall_check import blocked_share, has_walls, recorded_steps


def steps(start: float, stop: float, count: int = 10) -> torch.Tensor:
    """Steps north along the middle of the room, one after another."""
    y = torch.linspace(start, stop, 4 * count + 1).unfold(0, 5, 4)
    return torch.stack([torch.zeros_like(y), y, *[torch.zeros_like(y)] * 4], -1)


def test_steps_inside_are_free_and_those_through_a_wall_are_not() -> None:
    room = rooms.keyframes(np.concatenate([rooms.around(8), rooms.around(8, radius=1.5)]))
    inside, through = steps(-1.0, 1.0), steps(1.0, 9.0)
    assert blocked_share(room, rooms.FOCAL, inside) == 0.0
    assert has_walls(room, rooms.FOCAL, inside)
    assert 0.05 < blocked_share(room, rooms.FOCAL, through) < 1.0
    assert not has_walls(room, rooms.FOCAL, torch.cat([inside, through]))
    assert blocked_share(room, rooms.FOCAL, inside[:0]) == 0.0


def walks_of(recording: Path) -> list[npt.NDArray[np.float32]]:
    recorded, held_out = read_poses([recording], "yard")
    return [*recorded, *held_out]


def test_steps_are_those_of_the_recording(tmp_path: Path) -> None:
    found = recorded_steps(walks_of(record_yard(tmp_path / "yard", episodes=2, frames=81)))
    assert found.shape[1:] == (5, 6)
    assert 20 < len(found) <= 40
    way = (found[:, -1, :2] - found[:, 0, :2]).norm(dim=1)
    assert way.min() > 0.05
    assert not len(recorded_steps(walks_of(record_yard(tmp_path / "short", episodes=2, frames=4))))
