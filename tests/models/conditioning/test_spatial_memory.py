"""Spatial memory: what it remembers, what it shows, and how its camera moves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reverie.errors import CheckpointError, ShapeError
from reverie.models import presets
from reverie.models.checkpoint import ModelBundle, ModelConfig
from reverie.models.conditioning.next_condition import clip_condition, next_condition, previous_latents
from reverie.models.conditioning.spatial_memory import (
    INVERSE_DEPTH_SCALE,
    SpatialMemory,
    SpatialMemoryConfig,
    ViewEncoder,
    pack_channels,
    pooled,
    remembered_points,
)
from reverie.models.dit import WorldModel
from reverie.models.schedule import Schedule
from reverie.models.state import SpatialMemoryState
from reverie.scenes.body_matching import Body
from reverie.scenes.ego_motion import EgoMotionNet, relative_motion
from reverie.scenes.ground import Ground
from reverie.scenes.keyframes import Candidates, Keyframes
from reverie.scenes.recorded_body import RecordedBody
from reverie.scenes.recorded_ways import RecordedWays
from reverie.vision.projection import VIEW_SIZE, focal_lengths

SIZE = (32, 64)
PRESET = presets.tiny_memory()
LATENT = PRESET.world.latent
FOCAL = focal_lengths(torch.tensor([80.0]))[0]


class Flat(torch.nn.Module):
    """A depth network that finds the same depth everywhere, and no body."""

    def __init__(self, metres: float) -> None:
        super().__init__()
        self.log_depth = torch.nn.Parameter(torch.tensor(math.log(metres)))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        depth = self.log_depth.expand(len(frames), *frames.shape[-2:]).clone()
        return depth, torch.full_like(depth, -9.0)


@pytest.fixture
def memory() -> SpatialMemory:
    torch.manual_seed(0)
    made = SpatialMemory(SpatialMemoryConfig(keyframes=4, drawn=3), PRESET.world.action_space, LATENT)
    made.depth = Flat(4.0)  # type: ignore[assignment]
    return made.eval().requires_grad_(False)


def frame(value: float, batch: int = 1) -> Tensor:
    return torch.full((batch, 3, *SIZE), value)


def opened(memory: SpatialMemory, value: float = 0.5, batch: int = 1) -> SpatialMemoryState:
    state = memory.init_state(batch, SIZE)
    memory.open(state, frame(value, batch))
    return state


def poses(batch: int = 1, **changes: float) -> Tensor:
    names = ("x", "y", "z", "yaw", "pitch", "roll")
    return torch.tensor([changes.get(name, 0.0) for name in names]).expand(batch, 4, 6).clone()


def last(batch: int = 1) -> Tensor:
    return torch.full((batch, *LATENT), 0.25)


def actions(batch: int = 1) -> Tensor:
    return torch.zeros(batch, 4, PRESET.world.action_space.size)


def scene(value: int, yaw: float = 0.0) -> Candidates:
    keyframes = Keyframes.new(
        torch.full((1, 3, *SIZE), value, dtype=torch.uint8),
        torch.full((1, *VIEW_SIZE), 4.0),
        torch.zeros(1, *VIEW_SIZE, dtype=torch.bool),
        torch.tensor([[0.0, 0, 0, yaw, 0, 0]]),
        FOCAL,
    )
    return Candidates.of_scene(keyframes)


def test_a_fresh_session_remembers_its_start_image(memory: SpatialMemory) -> None:
    state = opened(memory)
    assert state.written.tolist() == [1]
    assert state.valid.tolist() == [[True, False, False, False]]
    assert state.camera.abs().max() == 0
    step = memory.next(state, last(), actions(), poses=poses())
    assert step.view.cover.min() == 1
    assert step.view.colour.mean() == pytest.approx(0.5, abs=0.01)
    assert step.view.inverse_depth.mean() == pytest.approx(0.25, abs=1e-4)
    assert step.parts.channels.shape == (1, 1, PRESET.world.cond_channels, *LATENT[1:])


def test_channels_are_cover_view_previous_latent_and_inverse_depth(memory: SpatialMemory) -> None:
    state = opened(memory)
    step = memory.next(state, last(), actions(), poses=poses(yaw=60))
    cover, view, before, inverse = step.parts.channels[0, 0].split([4, LATENT[0], LATENT[0], 4])
    expected_cover, expected_inverse = pooled(step.view.cover, step.view.inverse_depth, LATENT)
    torch.testing.assert_close(cover, expected_cover[0])
    torch.testing.assert_close(inverse, expected_inverse[0])
    torch.testing.assert_close(view, memory.view_encoder(step.view.colour)[0])
    torch.testing.assert_close(before, last()[0])
    assert step.parts.base is not None
    torch.testing.assert_close(step.parts.base[0, 0], view)
    assert 0 < cover.mean() < 1
    ones, halves = pooled(torch.ones(1, 4, 8, 16), torch.full((1, 4, 8, 16), 0.5), (16, 4, 8))
    assert ones.unique().tolist() == [1.0]
    assert halves.unique().tolist() == [0.5 * INVERSE_DEPTH_SCALE]
    packed = pack_channels(ones, last(), last(), halves)
    assert packed.channels.shape == (1, 1, 40, 4, 8)


def test_where_nothing_is_drawn_the_previous_latent_is_the_base(memory: SpatialMemory) -> None:
    state = opened(memory, batch=2)
    behind = torch.cat([poses(yaw=180), poses()])
    step = memory.next(state, last(2), actions(2), poses=behind)
    assert step.parts.base is not None
    torch.testing.assert_close(step.parts.base[0, 0], last()[0])
    assert not torch.allclose(step.parts.base[1, 0], last()[0])
    assert step.view.cover[0].max() == 0


def test_next_leaves_the_state_alone(memory: SpatialMemory) -> None:
    state = opened(memory)
    before = state.clone()
    memory.next(state, last(), actions(), scene(10))
    for one, other in zip(state.tensors(), before.tensors(), strict=True):
        assert torch.equal(one, other)


def test_commit_moves_the_camera_and_writes_only_what_is_new(memory: SpatialMemory) -> None:
    state = opened(memory)
    step = memory.next(state, last(), actions(), poses=poses())
    memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    assert state.written.tolist() == [1], "the view was known already"
    away = poses(yaw=90, x=1.0)
    step = memory.next(state, last(), actions(), poses=away)
    memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    assert state.written.tolist() == [2]
    torch.testing.assert_close(state.camera, away[:, -1])
    torch.testing.assert_close(state.pose[:, 1], away[:, -1])
    torch.testing.assert_close(state.motion[:, -4], relative_motion(poses()[:, -1], away[:, 0]))
    # looking there again it shows what was made there, and what was there before where that was
    again = memory.next(state, last(), actions(), poses=away)
    assert again.view.colour.mean() == pytest.approx(-0.5, abs=0.01)
    assert again.view.cover.min() == 1
    home = memory.next(state, last(), actions(), poses=poses())
    assert home.view.colour.mean() == pytest.approx(0.5, abs=0.02)


def test_the_start_image_is_never_overwritten_and_the_oldest_of_the_rest_is(memory: SpatialMemory) -> None:
    state = opened(memory)
    for i in range(1, 7):
        step = memory.next(state, last(), actions(), poses=poses(x=100.0 * i))
        memory.commit(state, step, frame(-i / 10).expand(1, 4, 3, *SIZE))
    assert state.written.tolist() == [7]
    assert state.valid.all()
    assert state.pose[0, :, 0].tolist() == [0.0, 400.0, 500.0, 600.0]
    assert state.colour[0, 0].unique().tolist() == [191]


def test_sessions_of_a_batch_write_for_themselves(memory: SpatialMemory) -> None:
    state = opened(memory, batch=2)
    step = memory.next(state, last(2), actions(2), poses=torch.cat([poses(), poses(yaw=120)]))
    memory.commit(state, step, frame(-0.5, 2)[:, None].expand(2, 4, 3, *SIZE))
    assert state.written.tolist() == [1, 2]
    assert state.valid.sum(1).tolist() == [1, 2]


def test_motions_are_applied_one_after_another(memory: SpatialMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    state = opened(memory)
    state.camera[:, 3] = 90.0
    motions = torch.tensor([0.5, 0.0, 0.0, 10.0, 0.0, 0.0]).expand(1, 4, 6)
    monkeypatch.setattr(memory, "predict_motion", lambda *_: motions)
    step = memory.next(state, last(), actions())
    assert step.poses[0, :, 3].tolist() == [100.0, 110.0, 120.0, 130.0]
    x = sum(0.5 * math.sin(math.radians(yaw)) for yaw in (90, 100, 110, 120))
    assert step.poses[0, 3, 0] == pytest.approx(x, abs=1e-4)
    torch.testing.assert_close(step.motions, motions)


def test_the_last_second_of_actions_and_motions_is_told(memory: SpatialMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Tensor, ...]] = []

    def listen(*inputs: Tensor) -> Tensor:
        told.append(tuple(x.clone() for x in inputs))
        return torch.full((1, 4, 6), 0.01 * len(told))

    monkeypatch.setattr(memory.ego_motion, "forward", listen)
    state = opened(memory)
    for number in range(8):
        step = memory.next(state, last(), actions() + number)
        memory.commit(state, step, frame(0.5).expand(1, 4, 3, *SIZE))
    rows, motion, _, ahead = told[-1]
    assert rows[0, :, 0].tolist() == [float(n) for n in range(1, 8) for _ in range(4)]
    torch.testing.assert_close(motion[0, :, 2], torch.tensor([0.01 * n for n in range(2, 8) for _ in range(4)]))
    assert ahead.shape == (1, 8, 14)
    assert told[0][0][:, :24].abs().max() == 0, "a session begins without a past"


def test_in_a_scene_one_moves_as_there(memory: SpatialMemory) -> None:
    network = EgoMotionNet(1, 8, columns=[2]).eval().requires_grad_(False)
    torch.nn.init.ones_(network.skip.weight)
    torch.nn.init.zeros_(network.skip.bias)
    torch.nn.init.zeros_(network.last.bias)
    there = scene(0)
    state, pressed = opened(memory), actions()
    pressed[..., 2] = 0.25
    elsewhere = memory.next(state, last(), pressed, there).motions
    motions = memory.next(state, last(), pressed, there._replace(ego_motion=network)).motions
    assert motions[0, 0, 0] == pytest.approx(0.1)  # four frames of a quarter, in usual motions
    assert not torch.allclose(motions, elsewhere)
    pressed[..., 1] = 1.0
    again = memory.next(state, last(), pressed, there._replace(ego_motion=network)).motions
    assert torch.equal(again, motions), "a key that the scene's game does not have does nothing"


def test_what_is_ahead_is_what_the_view_shows(memory: SpatialMemory) -> None:
    """The depth network says four metres everywhere; the scene knows better, but for what is far behind the camera."""
    state, there = opened(memory), scene(0)
    there.keyframes.depth[..., :56] = 3.0
    there.keyframes.depth[..., 56:] = 500.0
    step = memory.next(state, last(), actions(), there, poses())
    memory.commit(state, step, frame(0.5).expand(1, 4, 3, *SIZE))
    assert state.ahead[0, :, :6].exp().mean() == pytest.approx(3.0, rel=1e-3)
    assert state.ahead[0, :, -6:].exp().mean() == pytest.approx(400.0, rel=1e-3)
    memory.commit(state, memory.next(state, last(), actions(), poses=poses(yaw=150)), frame(0.5).expand(1, 4, 3, *SIZE))
    assert state.ahead.exp().mean() == pytest.approx(4.0, rel=1e-3)


def test_walls_stop_nobody_where_a_scene_has_none(memory: SpatialMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "predict_motion", lambda *_: torch.tensor([1.2, 0, 0, 0, 0, 0]).expand(1, 4, 6))
    state, room = opened(memory), scene(0)  # a wall four metres ahead
    stopped = memory.next(state, last(), actions(), room).poses
    free = memory.next(state, last(), actions(), room._replace(walls=False)).poses
    assert stopped[0, -1, 1] < 4.0
    assert free[0, -1, 1] == pytest.approx(4.8)
    assert not room._replace(walls=False).for_sessions(2).walls


def test_who_is_stopped_by_the_end_of_the_ground_runs_on_the_spot(
    memory: SpatialMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "predict_motion", lambda *_: torch.tensor([0.5, 0.2, 0, 0, 0, 0]).expand(1, 4, 6))
    room, state = scene(0), opened(memory)
    ways = RecordedWays(np.zeros((1, 4), np.float32), np.full(1, 10, np.float32), 0.4)
    step = memory.next(
        state, last(), actions(), room._replace(walls=False, ground=Ground.of(room.keyframes.pose, ways))
    )
    assert float(step.poses[0, :, :2].norm(dim=1).max()) == pytest.approx(0.4, abs=1e-3)
    torch.testing.assert_close(step.motions[0, :, 0], torch.full((4,), 0.5))
    assert float(step.motions[0, 1:, 1].abs().max()) < 0.15, "it is held to the side"


def test_known_poses_give_their_motions(memory: SpatialMemory) -> None:
    """What the network would have to predict: poses that are predicted and given back are the same step."""
    state = opened(memory)
    torch.nn.init.normal_(memory.ego_motion.skip.weight, std=0.1)
    torch.nn.init.normal_(memory.ego_motion.last.weight, std=0.1)
    predicted = memory.next(state, last(), actions() + 1)
    given = memory.next(state, last(), actions() + 1, poses=predicted.poses)
    assert predicted.motions.abs().max() > 0.01
    torch.testing.assert_close(given.motions, predicted.motions, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(given.parts.channels, predicted.parts.channels)


def test_a_scene_shows_what_the_session_has_not_seen(memory: SpatialMemory) -> None:
    state = opened(memory)
    behind = poses(yaw=180)
    assert memory.next(state, last(), actions(), poses=behind).view.cover.max() == 0
    step = memory.next(state, last(), actions(), scene(0, yaw=180.0), behind)
    assert step.view.cover.min() == 1
    assert step.view.colour.mean() == pytest.approx(-1, abs=0.01)


def test_beside_a_scene_own_keyframes_count_less(memory: SpatialMemory) -> None:
    state = opened(memory)  # its start image is as good a witness as the scene's keyframe
    step = memory.next(state, last(), actions(), scene(0), poses())
    assert step.view.colour.mean() == pytest.approx(-1, abs=0.01)
    unusable = scene(0)._replace(usable=torch.zeros(1, 1, dtype=torch.bool))
    step = memory.next(state, last(), actions(), unusable, poses())
    assert step.view.colour.mean() == pytest.approx(0.5, abs=0.01)


def half_known(memory: SpatialMemory) -> tuple[SpatialMemoryState, torch.Tensor]:
    """A session that has turned by 40 of its 80 degrees, and written what it saw there."""
    state = opened(memory)
    aside = poses(yaw=40)
    step = memory.next(state, last(), actions(), poses=aside)
    memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    return state, aside


def test_what_is_first_seen_stays_as_it_was(memory: SpatialMemory) -> None:
    state, aside = half_known(memory)
    assert state.written.tolist() == [2]
    view = memory.next(state, last(), actions(), poses=aside).view
    assert view.cover.mean() > 0.97
    left, right = view.colour[..., :30], view.colour[..., -30:]
    assert left.mean() == pytest.approx(0.5, abs=0.02), "the start image shows this"
    assert right.mean() == pytest.approx(-0.5, abs=0.02)
    assert 0.3 < state.hidden[0, 1].float().mean() < 0.7


def test_a_generated_surface_is_renewed_when_it_is_seen_from_less_than_half_as_far(memory: SpatialMemory) -> None:
    for y, written in ((-1.8, 2), (-2.2, 3)):  # a wall 4 m behind, generated at first sight
        state = opened(memory)
        step = memory.next(state, last(), actions(), poses=poses(yaw=180))
        memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
        memory.depth = Flat(4.0 + y)  # type: ignore[assignment]
        near = poses(y=y, yaw=180)
        step = memory.next(state, last(), actions(), poses=near)
        memory.commit(state, step, frame(-0.9).expand(1, 4, 3, *SIZE))
        assert state.written.tolist() == [written]
        view = memory.next(state, last(), actions(), poses=near).view
        assert view.colour.mean().item() == pytest.approx(-0.5 if written == 2 else -0.9, abs=0.02)
        memory.depth = Flat(4.0)  # type: ignore[assignment]


def test_a_recorded_surface_is_not_renewed(memory: SpatialMemory) -> None:
    state = opened(memory)
    memory.depth = Flat(1.98)  # type: ignore[assignment]
    step = memory.next(state, last(), actions(), poses=poses(y=2.02))
    assert step.view.cover.mean() > 0.95
    assert step.view.known.mean() < 0.05
    memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    assert state.written.tolist() == [1]


def test_the_body_alone_is_nothing_new(memory: SpatialMemory) -> None:
    class Body(Flat):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
            depth, _ = super().forward(frames)
            return depth, torch.full_like(depth, 9.0)

    state = opened(memory)
    memory.depth = Body(4.0)  # type: ignore[assignment]
    step = memory.next(state, last(), actions(), poses=poses(yaw=180))
    memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    assert state.written.tolist() == [1]


def bodied(memory: SpatialMemory) -> Candidates:
    """A scene whose recorded body is a white box in the middle of the frame."""
    height, width = SIZE
    image = np.full((8, 16, 16, 4), 255, np.uint8)
    past = 6 * (len(PRESET.world.action_space.names) + 6)
    recorded = RecordedBody(
        image,
        (height // 2 - 8, width // 2 - 8),
        np.repeat([0, 1], 4),
        np.zeros((8, 2), np.float32),
        np.zeros(past, np.float32),
        np.zeros((past, 2), np.float32),
    )
    columns = list(range(memory.action_size))
    return scene(10)._replace(body=Body.of(recorded, columns, memory.action_size))


def test_a_recorded_body_is_drawn_and_never_written(memory: SpatialMemory) -> None:
    room = bodied(memory)
    state = memory.init_state(1, SIZE, scene_keyframes=1)
    memory.open(state, frame(0.5), body=room.body)
    assert 1 <= int(state.body) <= 8, "of the start image"
    before = state.clone()
    step = memory.next(state, last(), actions(), room, poses(yaw=180))
    assert step.body is not None
    assert torch.equal(state.body, before.body)
    assert step.view.colour[0, -1, :, 32, 56].tolist() == [1.0] * 3
    assert step.view.cover[0, -1, 32, 56] == 1
    assert step.view.cover[0, -1, 0, 0] == 0, "nothing was seen behind"
    shown = memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    middle = (slice(SIZE[0] // 2 - 8, SIZE[0] // 2 + 8), slice(SIZE[1] // 2 - 8, SIZE[1] // 2 + 8))
    assert shown[..., *middle].min() == 1
    assert shown[..., 0, 0].max() == -0.5
    assert int(state.body) == int(step.body.rows[0, -1]) + 1
    assert int(state.written) == 2
    assert state.hidden[0, 1, 32, 56]
    assert state.hidden[0, 1].float().mean() == pytest.approx(16 * 16 / (SIZE[0] * SIZE[1]), abs=0.05)
    memory.open(state, frame(0.5))
    assert int(state.body) == 0


def test_a_body_that_the_network_paints_gives_way_to_the_recorded_one(memory: SpatialMemory) -> None:
    class Painted(Flat):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
            depth, body = super().forward(frames)
            body[:, 8:20, 8:24] = 9.0
            return depth, body

    room = bodied(memory)
    for candidates in (scene(10), room):
        state = memory.init_state(1, SIZE, scene_keyframes=1)
        memory.depth = Flat(4.0)  # type: ignore[assignment]
        memory.open(state, frame(10 / 127.5 - 1), body=candidates.body)
        memory.depth = Painted(4.0)  # type: ignore[assignment]
        painted = torch.full((1, 4, 3, *SIZE), 10 / 127.5 - 1)
        painted[..., 4:10, 5:11] = 1.0
        step = memory.next(state, last(), actions(), candidates, poses())
        shown = memory.commit(state, step, painted)
        ghost = float(shown.detach()[..., 6:8, 7:9].mean())
        assert ghost > 0.9 if candidates.body is None else ghost < -0.85


def test_what_is_seen_through_goes_from_a_scene_for_this_session_alone(memory: SpatialMemory) -> None:
    """The scene shows a wall at 4 m; frames show that there is none before 20 m."""
    there = scene(0)
    state, other = (memory.init_state(1, SIZE, scene_keyframes=1) for _ in range(2))
    for one in (state, other):
        memory.open(one, frame(0.5), torch.tensor([[0.0, 0, 0, 180, 0, 0]]))
    memory.depth = Flat(20.0)  # type: ignore[assignment]
    shown = []
    for _ in range(5):
        step = memory.next(state, last(), actions(), there, poses())
        shown.append(step.view.colour.mean().item())
        memory.commit(state, step, frame(0.9).expand(1, 4, 3, *SIZE))
    assert shown[0] == pytest.approx(-1, abs=0.01)
    assert shown[-1] == pytest.approx(0.9, abs=0.02), "what was generated behind it is remembered instead"
    untouched = memory.next(other, last(), actions(), there, poses())
    assert untouched.view.colour.mean() == pytest.approx(-1, abs=0.01)
    assert not there.keyframes.hidden.any()
    memory.open(state, frame(0.5))
    assert not state.seen_through.any()


def test_a_new_keyframe_has_no_counts_of_the_one_before_it(memory: SpatialMemory) -> None:
    state = opened(memory)
    state.seen_through.fill_(255)
    step = memory.next(state, last(), actions(), poses=poses(x=100.0))
    memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    assert state.written.tolist() == [2]
    assert not state.seen_through[0, 1].any()
    assert (state.seen_through[0, 0] == 255).all()


def test_the_map_has_the_points_of_the_scene_and_of_the_session(memory: SpatialMemory) -> None:
    state = opened(memory)
    own = remembered_points(state, None)
    assert own.shape == (16 * 28, 3)
    torch.testing.assert_close(own[:, 1], torch.full((16 * 28,), 4.0))
    both = remembered_points(state, scene(0, yaw=180.0))
    assert len(both) > len(own)
    assert both[:, 1].min() == pytest.approx(-4.0, abs=1e-4)
    assert state.trail.shape == (1, 256, 2)
    step = memory.next(state, last(), actions(), poses=poses(x=3.0))
    memory.commit(state, step, frame(0.5).expand(1, 4, 3, *SIZE))
    assert state.trail[0, -2:].tolist() == [[0.0, 0.0], [3.0, 0.0]]


def test_opening_again_forgets(memory: SpatialMemory) -> None:
    state = opened(memory)
    step = memory.next(state, last(), actions(), poses=poses(x=50.0))
    memory.commit(state, step, frame(-0.5).expand(1, 4, 3, *SIZE))
    memory.open(state, frame(0.5))
    for one, other in zip(state.tensors(), opened(memory).tensors(), strict=True):
        assert torch.equal(one, other)


def test_a_start_has_the_pose_and_the_lens_of_its_scene(memory: SpatialMemory) -> None:
    state = memory.init_state(1, SIZE)
    pose = torch.tensor([[3.0, 4, 1, 270, -5, 0]])
    memory.open(state, frame(0.0), pose, torch.tensor([90.0]), torch.tensor([1.2]))
    torch.testing.assert_close(state.camera, pose)
    torch.testing.assert_close(state.pose[:, 0], pose)
    assert state.focal[0].tolist() == pytest.approx([56.0, 67.2])


def test_the_view_encoder_fits_any_latent_grid() -> None:
    for latent in ((16, 16, 28), (16, 4, 8)):
        encoder = ViewEncoder(latent)
        assert encoder(torch.randn(2, 4, 3, *VIEW_SIZE)).shape == (2, *latent)
    views = torch.randn(1, 4, 3, *VIEW_SIZE)
    assert torch.equal(ViewEncoder((16, 16, 28)).inputs(views), views.flatten(1, 2))


def test_a_model_with_a_memory_needs_its_channels() -> None:
    model = WorldModel(PRESET.world)
    with pytest.raises(ShapeError, match="conditioned on spatial memory needs its condition channels"):
        next_condition(model, torch.zeros(1, 4, 6), model.new_state())
    with pytest.raises(ShapeError, match="conditioned on spatial memory"):
        clip_condition(model, torch.zeros(1, 4, 6), torch.zeros(1, 2, *LATENT), torch.zeros(1, 2, 16))


def test_previous_latents_are_those_before_the_block() -> None:
    config = dataclasses.replace(presets.tiny().world, block=2)
    context = torch.arange(5.0).view(1, 5, 1, 1, 1).expand(1, 5, *LATENT)
    parts = previous_latents(config, context)
    assert parts.channels[0, :, 0, 0, 0].tolist() == [0, 0, 0, 2, 2]
    assert parts.base is parts.channels


def test_a_model_has_a_memory_exactly_if_it_is_conditioned_on_one() -> None:
    parts = {
        "name": "tiny",
        "resolution": SIZE,
        "schedule": Schedule((1.0,)),
        "tokenizer": PRESET.tokenizer,
        "image_encoder": PRESET.image_encoder,
    }
    for world, memory in ((PRESET.world, None), (presets.tiny().world, SpatialMemoryConfig())):
        with pytest.raises(CheckpointError, match="exactly if it is conditioned on one"):
            ModelConfig(**parts, world=world, memory=memory)
    assert ModelBundle.new(ModelConfig(**parts, world=PRESET.world, memory=PRESET.memory)).memory is not None
