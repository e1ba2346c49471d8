"""Motions of the camera: what `apply_motion` does, `relative_motion` measures."""

from __future__ import annotations

import pytest
import torch

from reverie.scenes.ego_motion import AHEAD_GRID, EgoMotionNet, apply_motion, depth_ahead, relative_motion

SPREAD = torch.tensor([20.0, 20.0, 3.0, 170.0, 40.0, 10.0])


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_they_are_inverses() -> None:
    before, after = rand(50) * SPREAD, rand(50, seed=1) * SPREAD
    found = apply_motion(before, relative_motion(before, after))
    torch.testing.assert_close(found[:, :3], after[:, :3], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 4:], after[:, 4:], atol=1e-4, rtol=0)
    off = (found[:, 3] - after[:, 3] + 180) % 360 - 180
    assert off.abs().max() < 1e-3
    motion = rand(50, seed=2) * torch.tensor([1.0, 1, 1, 90, 10, 5])
    torch.testing.assert_close(relative_motion(before, apply_motion(before, motion)), motion, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("yaw", "motion", "there"),
    [
        (0.0, (2.0, 0.0), (0.0, 2.0)),  # north is ahead
        (0.0, (0.0, 2.0), (2.0, 0.0)),  # and east to the right
        (90.0, (2.0, 0.0), (2.0, 0.0)),
        (90.0, (0.0, 2.0), (0.0, -2.0)),
        (180.0, (2.0, 0.0), (0.0, -2.0)),
    ],
)
def test_forward_and_right_are_those_of_the_yaw(
    yaw: float, motion: tuple[float, float], there: tuple[float, float]
) -> None:
    pose = torch.tensor([[0.0, 0.0, 1.0, yaw, 30.0, 0.0]])
    moved = apply_motion(pose, torch.tensor([[*motion, 0.5, 0.0, 0.0, 0.0]]))
    assert moved[0, :3].tolist() == pytest.approx([*there, 1.5], abs=1e-5)  # whatever the pitch
    assert moved[0, 3:].tolist() == [yaw, 30.0, 0.0]


def test_a_turn_across_north_is_small() -> None:
    before, after = torch.tensor([[0.0, 0, 0, 359, 0, 0]]), torch.tensor([[0.0, 0, 0, 2, 0, 0]])
    assert relative_motion(before, after)[0, 3] == pytest.approx(3.0)
    assert relative_motion(after, before)[0, 3] == pytest.approx(-3.0)


def test_the_network_takes_a_step_and_gives_four_motions() -> None:
    torch.manual_seed(0)
    network = EgoMotionNet(6).eval()
    inputs = [torch.randn(3, 28, 6), torch.randn(3, 24, 6) * 0.1, torch.randn(3, 2), torch.randn(3, *AHEAD_GRID)]
    assert network(*inputs).shape == (3, 4, 6)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    full = network(*inputs)
    for i in range(len(inputs)):
        changed = [x + 1 if i == j else x for j, x in enumerate(inputs)]
        assert not torch.allclose(network(*changed), full), "every input counts"
    alone = network(*(x[1:2] for x in inputs))
    torch.testing.assert_close(full[1:2], alone, atol=1e-4, rtol=1e-4)


def test_of_longer_rows_it_reads_its_own_numbers() -> None:
    torch.manual_seed(0)
    network, wider = EgoMotionNet(2).eval(), EgoMotionNet(2, columns=[3, 1]).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    wider.load_state_dict(network.state_dict())
    actions, rest = torch.randn(1, 28, 5), (torch.randn(1, 24, 6), torch.zeros(1, 2), torch.zeros(1, *AHEAD_GRID))
    assert torch.equal(wider(actions, *rest), network(actions[..., [3, 1]], *rest))


def test_depth_ahead_is_a_mean_of_cells() -> None:
    log_depth = torch.zeros(2, 64, 112)
    log_depth[1, :8, :8] = 3.0
    ahead = depth_ahead(log_depth)
    assert ahead.shape == (2, *AHEAD_GRID)
    assert ahead[1, 0, 0] == 3.0
    assert ahead.sum() == 3.0
