"""Sessions stay near to where their scene was recorded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie.scenes.ground import REACH, SPACING, Ground
from reverie.scenes.recorded_ways import HEIGHT_FACTOR, RecordedWays


def poses(*places: tuple[float, ...]) -> Tensor:
    return torch.tensor([[*place, *[0.0] * (6 - len(place))] for place in places])


STREET = poses(*[(0.0, 2.0 * i, 1.7, 0.0, 10.0 * (i % 2), 0.0) for i in range(20)])


def test_its_radius_follows_the_distance_between_places() -> None:
    assert float(Ground.of(STREET).radius) == pytest.approx(2 * REACH)
    panoramas = STREET.repeat_interleave(4, 0)
    panoramas[:, 3] = torch.arange(len(panoramas)) * 90.0
    assert float(Ground.of(panoramas).radius) == pytest.approx(2 * REACH)
    assert float(Ground.of(STREET[:1]).radius) == pytest.approx(SPACING * REACH)


def test_a_walk_on_the_ground_goes_where_it_wants() -> None:
    walk = STREET[None, 3:7] + torch.tensor([0.5, 0.3, 0.4, 70.0, 4.0, 0.0])
    torch.testing.assert_close(Ground.of(STREET).hold(STREET[None, 2], walk), walk)


def test_a_way_out_becomes_one_along_the_edge() -> None:
    ground, camera = Ground.of(STREET), poses((0.0, 20.0, 1.7))
    for _ in range(20):  # to the right, and a little ahead
        step = torch.tensor([1.0, 0.4, 0.0, 3.0, 0.0, 0.0])
        wanted = camera[:, None] + step * torch.arange(1, 5).view(1, 4, 1)
        held = ground.hold(camera, wanted)
        torch.testing.assert_close(held[..., 3:], wanted[..., 3:])
        camera = held[:, -1]
    away = (STREET[:, :2] - camera[0, :2]).norm(dim=1).min()
    assert float(away) == pytest.approx(2 * REACH, abs=0.01)
    assert float(camera[0, 1]) > 22, "it slides on along the street"


def test_it_neither_sinks_nor_flies() -> None:
    ground, camera = Ground.of(STREET), STREET[None, 4]
    for height in (-50.0, 50.0):
        wanted = camera[:, None].repeat(1, 4, 1)
        wanted[..., 2] += height
        held = ground.hold(camera, wanted)
        assert float((held[..., 2] - 1.7).abs().max()) == pytest.approx(2 * REACH / HEIGHT_FACTOR, abs=0.01)


def test_it_looks_up_and_down_as_far_as_was_usual_and_half_as_much_more() -> None:
    wanted = STREET[None, 4:8].clone()
    wanted[..., 4] = torch.tensor([-88.0, -4.0, 13.0, 60.0])
    held = Ground.of(STREET).hold(STREET[None, 3], wanted)
    assert held[0, :, 4].tolist() == pytest.approx([-5, -4, 13, 15])


def test_a_camera_that_was_never_tilted_stays_as_it_is() -> None:
    street = STREET.repeat(5, 1)
    street[:, 4] = -15.0
    street[7, 4] = -24.0  # once, in a fall
    wanted = street[None, 4:8] + torch.tensor([0.0, 0.0, 0.0, 0.0, -3.0, 1.0])
    held = Ground.of(street).hold(street[None, 3], wanted)
    torch.testing.assert_close(held[..., 4:], street[None, 4:5, 4:].expand(1, 4, 2))


def test_who_begins_beyond_it_goes_no_farther_and_may_come_back() -> None:
    ground, camera = Ground.of(STREET), poses((30.0, 10.0, 1.7, 0.0, -60.0))
    out, home = camera[:, None].repeat(1, 4, 1), camera[:, None].repeat(1, 4, 1)
    out[..., 0] += torch.arange(1, 5)
    home[..., 0] -= torch.arange(1, 5)
    torch.testing.assert_close(ground.hold(camera, out)[..., 0], torch.full((1, 4), 30.0))
    torch.testing.assert_close(ground.hold(camera, home), home)


def test_far_from_the_origin_nothing_is_lost() -> None:
    far = STREET + torch.tensor([-2400.0, 1900.0, 0.0, 0.0, 0.0, 0.0])
    far = far.repeat_interleave(3, 0)
    assert float(Ground.of(far).radius) == pytest.approx(2 * REACH, abs=0.01)
    walk = far[None, 9:13] + torch.tensor([1.5, 0.3, 0.4, 70.0, 4.0, 0.0])
    torch.testing.assert_close(Ground.of(far).hold(far[None, 6], walk), walk)


def test_sessions_are_held_each_by_itself() -> None:
    ground = Ground.of(STREET)
    cameras = STREET[[2, 9]]
    wanted = cameras[:, None] + torch.tensor([20.0, 0, 0, 0, 0, 0]) * torch.arange(1, 5).view(1, 4, 1)
    both = ground.hold(cameras, wanted)
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], ground.hold(cameras[i : i + 1], wanted[i : i + 1]))


def track(heading: float = 10.0, radius: float = 1.0) -> Ground:
    """North for ten metres, a bend, then east for ten: recorded ways of a track."""
    north = [(0.0, float(i), 1.0, 0.0) for i in range(11)]
    east = [(float(i), 10.0, 1.0, 90.0) for i in range(11)]
    rows = torch.tensor([*north, *east])
    turns = torch.where((rows[:, 0] - 0.0).abs() + (rows[:, 1] - 10.0).abs() < 2.5, 90.0 + heading, heading)
    ways = RecordedWays(rows.numpy(), turns.numpy(), radius)
    return Ground.of(poses((0.0, 0.0, 1.0), (5.0, 10.0, 1.0)), ways)


def run(ground: Ground, camera: Tensor, turn_at: int, blocks: int) -> Tensor:
    """Runs half a metre a frame in the direction of view; from a block on it turns right by three degrees a frame."""
    for block in range(blocks):
        path = [camera]
        for _ in range(4):
            yaw = torch.deg2rad(path[-1][:, 3])
            step = torch.stack([0.5 * yaw.sin(), 0.5 * yaw.cos()], 1)
            turned = 3.0 * (block >= turn_at)
            path.append(
                torch.cat([path[-1][:, :2] + step, path[-1][:, 2:3], path[-1][:, 3:4] + turned, path[-1][:, 4:]], 1)
            )
        camera = ground.hold(camera, torch.stack(path[1:], 1))[:, -1]
    return camera


def test_on_recorded_ways_it_stays_on_the_track_and_waits_at_a_bend() -> None:
    camera = run(track(), poses((0.0, 0.0, 1.0)), 99, 30)
    assert float(camera[0, 1]) == pytest.approx(11.0, abs=0.05), "as far as the track is wide"
    assert abs(float(camera[0, 0])) < 1.0


def test_it_leaves_the_bend_when_it_is_turned() -> None:
    camera = run(track(), poses((0.0, 0.0, 1.0)), 20, 29)  # by 108 degrees
    assert float(camera[0, 0]) > 8
    assert float(camera[0, 3]) == pytest.approx(100, abs=0.1), "within ten degrees of what was recorded there"


def test_on_a_straight_its_heading_is_the_recorded_one() -> None:
    wanted = poses(*[(0.0, 3.0 + 0.3 * i, 1.0, 20.0) for i in range(4)])[None]
    held = track().hold(poses((0.0, 2.7, 1.0, -10.0)), wanted)
    torch.testing.assert_close(held[0, :, 3], torch.full((4,), 10.0))
    assert float(held[0, -1, 1]) > 3.5, "it goes on in that direction"


def test_a_camera_that_is_turned_away_from_the_way_is_not_moved_at_once() -> None:
    camera = poses((0.0, 3.0, 1.0, 45.0))
    wanted = camera[:, None].repeat(1, 4, 1)
    wanted[..., 3] += torch.tensor([1.0, 2.0, -20.0, -45.0])
    held = track().hold(camera, wanted)
    assert held[0, :, 3].tolist() == pytest.approx([45, 45, 23, -2], abs=1e-3)
    torch.testing.assert_close(held[..., :3], wanted[..., :3])
