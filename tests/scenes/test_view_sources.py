"""Which keyframes a view is rendered from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers.rendered_room import FOCAL, around, keyframes, walk
from torch import Tensor

from reverie.scenes.keyframes import Candidates, Keyframes
from reverie.scenes.view_sources import (
    CELLS,
    NUM_PROBES,
    choose_keyframes,
    median_reach,
    pick_keyframes,
    probe_points,
    view_promise,
)
from reverie.vision.projection import SKY, VIEW_SIZE
from reverie.vision.rendering import render_views


def choose(frames: Keyframes, pose: Tensor, k: int, preference: Tensor | None = None) -> tuple[Tensor, Tensor]:
    b = len(pose)
    return choose_keyframes(
        frames.probes.expand(b, -1, -1, -1),
        frames.seen.expand(b, -1, -1),
        frames.pose.expand(b, -1, -1),
        torch.ones(b, len(frames)) if preference is None else preference,
        pose,
        FOCAL.expand(b, 2),
        frames.reach.nanmedian().expand(b),
        k,
    )


def test_the_frame_that_was_taken_there_is_the_first() -> None:
    frames = keyframes(around(8))
    index, valid = choose(frames, frames.pose, 3)
    assert index[:, 0].tolist() == list(range(8))
    assert valid[:, 0].all()


def test_choice_is_greedy_and_covers_both_sides() -> None:
    """A view between two cameras needs both; a third that shows the same as the first adds nothing."""
    poses = around(4)
    frames = keyframes(np.concatenate([poses, poses[:1]]))
    view = torch.tensor([[0.0, 0, 0, 45, 0, 0]])
    index, valid = choose(frames, view, 5)
    chosen = set(index[valid].tolist())
    assert len(chosen & {0, 4}) == 1
    assert 1 in chosen
    assert not chosen & {2, 3}, "what lies behind promises nothing"


def test_what_is_chosen_covers_the_view() -> None:
    frames = keyframes(around(8, radius=0.5), (128, 224))
    pose = torch.tensor([[0.2, -0.3, 0.0, 70, 0, 0]])
    index, valid = choose(frames, pose, 4)
    view = render_views(
        frames.colour[index], frames.depth[index], frames.hidden[index], frames.pose[index], valid, pose[:, None],
        FOCAL[None],
    )  # fmt: skip
    assert view.cover.mean() > 0.9


def test_a_keyframe_without_preference_is_never_chosen() -> None:
    frames = keyframes(around(8))
    preference = torch.ones(8, 8) - torch.eye(8)
    index, valid = choose(frames, frames.pose, 3, preference)
    for i in range(8):
        assert i not in index[i][valid[i]].tolist()
    _, none = choose(frames, frames.pose, 3, torch.zeros(8, 8))
    assert not none.any()


def test_what_was_recorded_is_picked_before_what_was_generated() -> None:
    recorded = torch.tensor([[0.05, 0.0, 0.0], [0.0, 0.04, 0.0], [0.05, 0.03, 0.0]])
    generated = torch.tensor([[0.6, 0.6, 0.0], [0.6, 0.0, 0.5], [0.0, 0.6, 0.6]])
    promise = torch.cat([recorded, generated])[None]
    assert set(pick_keyframes(promise, 2)[0][0].tolist()) < {3, 4, 5}
    index, valid = pick_keyframes(promise, 4, leading=2, first=3)
    assert valid.all()
    assert {1, 2} < set(index[0].tolist()), "the two that show most together, though others promise more"
    assert len(set(index[0].tolist()) & {3, 4, 5}) == 2


def test_where_nothing_was_recorded_all_picks_are_of_what_was_generated() -> None:
    far, near = torch.full((3, 3), 1e-5), torch.eye(3) * 0.6
    batch = torch.stack([torch.cat([far, near]), torch.cat([near, far])])
    index, valid = pick_keyframes(batch, 3, leading=2, first=3)
    assert sorted(index[0].tolist()) == [3, 4, 5], "this session has left what was recorded"
    assert sorted(index[1].tolist()) == [0, 1, 2]
    assert valid.all()


def test_more_wanted_than_there_are() -> None:
    frames = keyframes(around(2))
    index, valid = choose(frames, frames.pose, 5)
    assert index.shape == valid.shape == (2, 5)
    assert not valid[:, 2:].any()


def test_rows_of_a_batch_are_independent() -> None:
    frames = keyframes(walk(20))
    both = choose(frames, frames.pose[[3, 17]], 4)
    for i, at in enumerate((3, 17)):
        alone = choose(frames, frames.pose[[at]], 4)
        assert torch.equal(both[0][i][both[1][i]], alone[0][0][alone[1][0]])


def test_promises_are_shares() -> None:
    frames = keyframes(walk(12))
    promise = view_promise(
        frames.probes[None], frames.seen[None], frames.pose[None], frames.pose[:1], FOCAL[None], frames.reach[:1]
    )
    assert promise.shape == (1, 12, CELLS[0] * CELLS[1])
    assert 0 <= promise.min() <= promise.max() <= 1
    assert promise[0, 0].mean() > 0.8, "a camera promises its own view, nearly in full"
    hidden = view_promise(
        frames.probes[None], torch.zeros_like(frames.seen[None]), frames.pose[None], frames.pose[:1], FOCAL[None],
        frames.reach[:1],
    )  # fmt: skip
    assert hidden.max() == 0


def test_probes_are_points_of_the_scene_and_hidden_pixels_are_not_seen() -> None:
    depth = torch.full((1, 1, *VIEW_SIZE), 3.0)
    hidden = torch.zeros(1, 1, *VIEW_SIZE, dtype=torch.bool)
    hidden[..., VIEW_SIZE[1] // 2 :] = True
    points, seen = probe_points(depth, hidden, torch.zeros(1, 1, 6), FOCAL[None])
    assert points.shape == (1, 1, NUM_PROBES, 3)
    torch.testing.assert_close(points[..., 1], torch.full((1, 1, NUM_PROBES), 3.0))  # north is ahead
    assert torch.equal(seen, points[..., 0] < 0)


def test_reach_is_the_typical_distance_and_sky_has_none() -> None:
    frames = keyframes(around(4))
    assert ((frames.reach > 1) & (frames.reach < 6)).all()
    points = torch.full((1, NUM_PROBES, 3), SKY)
    reach = median_reach(points, torch.ones(1, NUM_PROBES, dtype=torch.bool), torch.zeros(1, 6))
    assert reach.isnan().all()


def test_candidates_of_a_scene_are_all_its_keyframes() -> None:
    frames = keyframes(around(3))
    candidates = Candidates.of_scene(frames, 2)
    assert candidates.members.tolist() == [[0, 1, 2]] * 2
    assert candidates.usable.all()
    joined = Keyframes.join([frames, frames.select(torch.tensor([2]))])
    assert len(joined) == 4
    assert torch.equal(joined.pose[3], frames.pose[2])


@pytest.mark.parametrize("count", [1, 5])
def test_keyframes_do_not_depend_on_how_many_are_made_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = walk(7)
    whole = keyframes(poses)
    monkeypatch.setattr("reverie.scenes.keyframes.PROBED_AT_ONCE", count)
    parts = keyframes(poses)
    torch.testing.assert_close(parts.probes, whole.probes)
    assert torch.equal(parts.seen, whole.seen)
