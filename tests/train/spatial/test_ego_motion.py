"""Ego-motion learnt from recorded walks of a made-up player."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.yard_scene import record_yard
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.scenes.ego_motion import EgoMotionNet, relative_motion
from reverie.train.spatial.ego_motion import Motions, camera_error, check_ego_motion, train_ego_motion, unroll
from reverie.train.spatial.walks import fit_ego_motion, read_walks
from reverie.types import ActionSpace


def walk(steps: int, seed: int = 0, game: int = 0, speed: float = 0.1) -> Motions:
    """Somebody who is slow to start and to stop: 0.8 of a frame's motion remains, 0.2 are what the key asks."""
    generator = torch.Generator().manual_seed(seed)
    held = (torch.rand(steps, 2, generator=generator) < 0.5).float().repeat_interleave(4, 0)
    pose, poses, forward = torch.zeros(6), [torch.zeros(6)], 0.0
    for ahead, turn in held:
        forward = 0.8 * forward + 0.2 * speed * float(ahead)
        yaw = torch.deg2rad(pose[3])
        pose = pose + torch.tensor([0, 0, 0, 2.0 * float(turn), 0, 0])
        pose = pose + forward * torch.tensor([float(yaw.sin()), float(yaw.cos()), 0, 0, 0, 0])
        poses.append(pose)
    return Motions.of_walk(torch.stack(poses), held, torch.full((steps + 1, 8, 14), 2.0), game)


def test_a_step_is_walked_where_nothing_jumps_and_no_episode_begins() -> None:
    one, other = walk(10), walk(10, 1)
    both = Motions.join([one, other])
    assert both.motion[[0, 11]].abs().max() == 0
    assert both.actions[[0, 11]].abs().max() == 0, "nothing leads to the first frame"
    assert set(both.walks(1)) == {i for i in range(22) if i % 11}
    assert set(both.walks(6)) == {i for i in range(22) if 1 <= i % 11 <= 5}
    both.motion[8, 2, 0] = 50.0  # a respawn
    assert set(both.walks(1)) == {*range(1, 8), *range(12, 22)} - {i for i in range(22) if i - 6 <= 8 < i}
    with pytest.raises(DataError, match="at least 42 latent steps"):
        both.walks(41)
    with pytest.raises(DataError, match="expected walks"):
        Motions.join([])


class Coasting(torch.nn.Module):
    """Goes on as the camera went in the last frame."""

    scale = torch.ones(6)

    def forward(self, actions: Tensor, motion: Tensor, tilt: Tensor, ahead: Tensor) -> Tensor:
        assert actions.shape[1:] == (28, 2)
        assert motion.shape[1:] == (24, 6)
        return motion[:, -1:].expand(-1, 4, -1)


def test_it_goes_on_from_its_own_motions() -> None:
    d = Motions.join([walk(12), walk(12, 1)])
    made, recorded = unroll(Coasting(), d, torch.tensor([3, 16]), 3)  # type: ignore[arg-type]
    assert torch.equal(made, d.motion[[2, 15], -1][:, None, None].expand(2, 3, 4, 6))
    assert torch.equal(recorded[:, 1], d.motion[[4, 17]])
    first, _ = unroll(Coasting(), d, torch.tensor([14]), 3)  # type: ignore[arg-type]
    assert first.abs().max() == 0, "the episode before is not this one's past"


def test_camera_error_grows_along_a_wrong_turn() -> None:
    straight = torch.zeros(1, 8, 6)
    straight[..., 0] = 0.5
    turned = straight.clone()
    turned[:, 0, 3] = 90.0
    error = camera_error(turned, straight)
    assert error[0, 0, 3] == 90
    torch.testing.assert_close(error[0, -1, :2], torch.tensor([3.5, 0.0]) - torch.tensor([0.0, 3.5]), atol=1e-5, rtol=0)


def test_inertia_is_learnt() -> None:
    torch.manual_seed(0)
    network = EgoMotionNet(2, 64)
    train = Motions.join([walk(80, seed) for seed in range(20)])
    held_out = Motions.join([walk(80, 100 + seed) for seed in range(3)])
    before = check_ego_motion(network, held_out, ["slow"])["slow"]
    assert train_ego_motion(network, train, epochs=40) == 40 * len(train.walks(12)) // 128 + 1
    after = check_ego_motion(network, held_out, ["slow"])["slow"]
    assert before.off_m > 0.5 * before.way_m
    assert after.off_m < 0.1 * after.way_m
    assert after.yaw_deg < 3
    assert not any(parameter.requires_grad for parameter in network.parameters())
    begin = torch.from_numpy(held_out.walks(60))[::5]
    made, recorded = unroll(network, held_out, begin, 60, torch.Generator().manual_seed(0))
    for i in range(6):
        assert made[..., i].abs().max() < 2 * recorded[..., i].abs().max() + 0.1, "ten seconds of its own motions"


def test_games_count_alike_however_long_they_are() -> None:
    """A network that cannot tell two games apart learns the speed in the middle, not that of the longer one."""
    torch.manual_seed(0)
    network = EgoMotionNet(2, 8)
    long, short = walk(400, 0, 0, speed=0.2), walk(40, 1, 1, speed=0.1)
    fresh = [dataclasses.replace(one, motion=one.motion * 1.0) for one in (long, short)]
    train_ego_motion(network, Motions.join(fresh), epochs=100)
    held = torch.ones(1, 28, 2) * torch.tensor([1.0, 0.0])
    made = network(held, torch.zeros(1, 24, 6), torch.zeros(1, 2), torch.full((1, 8, 14), 2.0))
    assert 0.0 < made[0, -1, 0] < 0.2
    found = check_ego_motion(network, Motions.join(fresh), ["long", "short"])
    assert set(found) == {"long", "short"}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_yard(tmp_path_factory.mktemp("recordings") / "yard", frames=121)


def test_walks_are_those_of_the_recording(recording: Path) -> None:
    walks = read_walks([recording])
    data = Dataset(recording)
    assert walks.action_space == data.action_space
    lengths = [np.bincount(part.episode).tolist() for part in (walks.train, walks.held_out)]
    assert sorted(map(len, lengths)) == [1, 2], "of three episodes one is held out"
    assert {n for part in lengths for n in part} == {31}
    poses = [torch.from_numpy(data.poses(i)) for i in range(3)]  # type: ignore[arg-type]
    ways = [relative_motion(pose[:-1], pose[1:])[:120].unflatten(0, (30, 4)) for pose in poses]
    for found in (walks.train, walks.held_out):
        for number in np.unique(found.episode):
            motion = found.motion[torch.from_numpy(found.episode == number)]
            assert any(torch.equal(motion[1:], way) for way in ways)
    assert walks.train.ahead.std() > 0.01, "depth is recorded"


def test_of_one_episode_the_last_part_is_held_out(tmp_path: Path) -> None:
    walks = read_walks([record_yard(tmp_path / "yard", episodes=1, frames=161)])
    assert len(walks.train.motion) + len(walks.held_out.motion) == 41
    assert len(walks.held_out.motion) == 5
    assert walks.held_out.motion[0].abs().max() == 0


def test_a_network_of_a_model_takes_several_games(recording: Path) -> None:
    space = ActionSpace(("jump", *Dataset(recording).action_space.keys))
    walks = read_walks([recording, recording], space=space)
    assert walks.names == ("yard", "yard")
    assert walks.train.actions.shape[-1] == space.size
    assert sorted(set(walks.train.game)) == [0, 1]
    assert walks.train.actions[..., 0].abs().max() == 0, "a key that the game does not have"
    network, drifts = fit_ego_motion(walks, 30)
    assert drifts["yard"].off_m < 0.3 * drifts["yard"].way_m
    assert network.columns == list(range(space.size))


def test_walks_that_are_too_short_are_told(tmp_path: Path) -> None:
    walks = read_walks([record_yard(tmp_path / "short", episodes=2, frames=13)])
    with pytest.raises(DataError, match="at least 5 latent steps"):
        fit_ego_motion(walks, 1)
