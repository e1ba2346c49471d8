"""Scenes from recordings: frames that show most are chosen, what moves is hidden, and coverage is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers.rendered_room import FOCAL, around, keyframes

from reverie.errors import DataError
from reverie.scenes.keyframes import Keyframes
from reverie.scenes.scene_keyframes import choose_scene_keyframes, hide_moving, measure_coverage, render_from


@pytest.fixture(scope="module")
def frames() -> Keyframes:
    return keyframes(np.concatenate([around(24), around(24, radius=1.2)]), (128, 224))


@pytest.fixture(scope="module")
def held_out() -> Keyframes:
    poses = around(5, radius=0.5)
    poses[:, 3] += 7
    return keyframes(poses, (128, 224))


def test_chosen_frames_are_few_distinct_and_in_order(frames: Keyframes) -> None:
    index = choose_scene_keyframes(frames, 10)
    assert len(index) == 10
    assert index.tolist() == sorted(set(index.tolist()))
    assert index.max() < len(frames)
    assert torch.equal(index, choose_scene_keyframes(frames, 10)), "the same frames are chosen again"
    assert choose_scene_keyframes(frames, 1000).tolist() == list(range(len(frames)))


def test_more_keyframes_cover_more_and_chosen_ones_more_than_the_first(frames: Keyframes, held_out: Keyframes) -> None:
    few, many = (measure_coverage(frames.select(choose_scene_keyframes(frames, n)), held_out, FOCAL) for n in (3, 16))
    assert many.cover > few.cover
    assert many.cover > 0.8
    first = measure_coverage(frames.select(torch.arange(8)), held_out, FOCAL)
    assert many.cover > first.cover
    assert many.psnr_db > first.psnr_db
    assert many.views == len(held_out)


def test_a_scene_shows_its_own_frames_nearly_as_they_are(frames: Keyframes) -> None:
    figures = measure_coverage(frames, frames, FOCAL, limit=4)
    assert figures.cover > 0.999
    assert figures.psnr_db > 30


def test_views_of_a_scene_are_independent(frames: Keyframes) -> None:
    poses = frames.pose[[5, 40]]
    both = render_from(frames, poses, FOCAL)
    for i in range(2):
        alone = render_from(frames, poses[i : i + 1], FOCAL)
        torch.testing.assert_close(both.colour[i : i + 1], alone.colour, atol=1e-5, rtol=0)


def test_choice_spreads_over_places_and_directions() -> None:
    """Of twenty frames of one view, one: the rest looks elsewhere, or from elsewhere."""
    poses = np.concatenate([np.repeat(around(1), 20, 0), around(4), around(1)])
    poses[-1, 1] = 3.0
    frames = keyframes(poses)
    assert choose_scene_keyframes(frames, 100).tolist() == [0, 21, 22, 23, 24]
    up = around(1)
    up[:, 4] = 40
    assert choose_scene_keyframes(keyframes(np.concatenate([around(1), up])), 2).tolist() == [0, 1]


def test_frames_of_nothing_but_sky_make_no_scene() -> None:
    frames = keyframes(around(3))
    sky = Keyframes.new(frames.colour, torch.full_like(frames.depth, 500.0), frames.hidden, frames.pose, FOCAL)
    with pytest.raises(DataError, match="nothing nearer than the sky"):
        choose_scene_keyframes(sky, 3)


def test_what_moves_is_hidden_and_what_stands_is_not() -> None:
    """A cat sits before one camera alone; the others see through where it was."""
    poses = np.concatenate([around(1), around(1), around(1), around(1)])
    poses[:, 0] = [0, 0.2, -0.2, 0.3]
    frames = keyframes(poses)
    assert not hide_moving(frames, frames, FOCAL).any(), "nothing has moved"
    depth = frames.depth.clone()
    cat = (slice(24, 40), slice(48, 64))
    depth[0][cat] = 1.5
    with_cat = Keyframes.new(frames.colour, depth, frames.hidden, frames.pose, FOCAL)
    hidden = hide_moving(with_cat, with_cat, FOCAL)
    assert hidden[0][cat].float().mean() > 0.9
    hidden[0][cat] = False
    assert hidden.float().mean() < 0.01
    # one witness is not enough, nor is one whose own pixel is hidden
    pair = with_cat.select(torch.tensor([0, 1]))
    assert not hide_moving(pair, pair, FOCAL).any()
    blind = with_cat.hidden.clone()
    blind[1:] = True
    blind_frames = Keyframes.new(with_cat.colour, depth, blind, with_cat.pose, FOCAL)
    assert not hide_moving(blind_frames, blind_frames, FOCAL).any()
