"""What is seen through is deleted, and nothing else is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.errors import ShapeError
from reverie.models.conditioning.erasure import GONE, ROW_BYTES, _pack, _unpack, count_seen_through, gone, match_scale
from reverie.scenes.keyframes import Candidates, Choice, Keyframes
from reverie.vision.projection import VIEW_SIZE, focal_lengths
from reverie.vision.rendering import View

FOCAL = focal_lengths(torch.tensor([80.0]))
WALL, BLOCK = 6.0, 2.0
HOLE = (slice(20, 40), slice(40, 70))
"""Rows and columns of a block before the wall."""


def scene() -> Choice:
    """One keyframe of a wall with a block before it, chosen among two, beside one of the session's own."""
    depth = torch.full((2, *VIEW_SIZE), WALL)
    depth[:, HOLE[0], HOLE[1]] = BLOCK
    frames = Keyframes.new(
        torch.zeros(2, 3, *VIEW_SIZE, dtype=torch.uint8), depth, torch.zeros(2, *VIEW_SIZE, dtype=torch.bool),
        torch.zeros(2, 6), FOCAL[0],
    )  # fmt: skip
    own = frames.select(torch.tensor([0]))
    return Choice(
        (Candidates.of_scene(frames), Candidates.of_scene(own)),
        torch.tensor([[1, 0]]),
        torch.tensor([[True, False]]),
    )


def counters(scene_rows: int = 2) -> Tensor:
    return torch.zeros(1, scene_rows + 1 + 1, ROW_BYTES, dtype=torch.uint8)


def look(counts: Tensor, choice: Choice, depth: Tensor, hidden: Tensor | None = None) -> Tensor:
    """A frame of this depth, (h, w), from where the keyframes are; what is then gone of the first of them."""
    hidden = torch.zeros(1, *VIEW_SIZE, dtype=torch.bool) if hidden is None else hidden
    count_seen_through(counts, choice, depth[None], hidden, torch.zeros(1, 6), FOCAL)
    return gone(counts, choice)[0, 0]


def noisy(depth: Tensor, error: float, generator: torch.Generator) -> Tensor:
    """Depth with errors that are alike in neighbouring places, as a network makes them, anew in every frame."""
    field = F.interpolate(torch.randn(1, 1, 5, 8, generator=generator), VIEW_SIZE, mode="bicubic")[0, 0]
    return depth * torch.exp(error * field)


def test_a_block_that_was_dug_goes_after_a_few_frames_and_the_wall_stays() -> None:
    counts, choice = counters(), scene()
    generator = torch.Generator().manual_seed(0)
    for i in range(8):
        left = look(counts, choice, noisy(torch.full(VIEW_SIZE, WALL), 0.15, generator))
        if i < GONE - 1:
            assert not left.any(), "one frame is not enough"
    inner = left[HOLE[0], HOLE[1]]
    assert inner.float().mean() > 0.98
    left[HOLE[0], HOLE[1]] = False
    assert not left.any()


def test_a_wall_stays_however_often_it_is_seen_with_noise() -> None:
    counts, choice = counters(), scene()
    generator = torch.Generator().manual_seed(1)
    true = choice.gather("depth")[0, 0]
    for _ in range(200):
        left = look(counts, choice, noisy(true, 0.15, generator))
    assert left.float().mean() < 1e-3


def test_only_successive_frames_count() -> None:
    counts, choice = counters(), scene()
    true, empty = choice.gather("depth")[0, 0], torch.full(VIEW_SIZE, WALL)
    for _ in range(6):
        look(counts, choice, empty)
        look(counts, choice, empty)
        assert not look(counts, choice, true).any()
    for _ in range(GONE):
        look(counts, choice, empty)
    assert look(counts, choice, true)[HOLE[0], HOLE[1]].any(), "what is gone does not come back"


def test_hidden_pixels_of_a_frame_say_nothing() -> None:
    counts, choice = counters(), scene()
    for _ in range(5):
        left = look(counts, choice, torch.full(VIEW_SIZE, WALL), torch.ones(1, *VIEW_SIZE, dtype=torch.bool))
    assert not left.any()
    assert not counts.any()


def test_only_the_rows_of_chosen_keyframes_change() -> None:
    counts, choice = counters(), scene()
    look(counts, choice, torch.full(VIEW_SIZE, WALL))
    assert counts[0].any(1).tolist() == [False, True, False, False]


def test_without_rows_for_a_scene_its_keyframes_stay() -> None:
    counts, choice = counters(0), scene()
    swapped = choice._replace(chosen=choice.chosen.flip(1), valid=choice.valid.flip(1))
    for _ in range(5):  # the spare row is shared, in either order
        for one in (choice, swapped):
            look(counts, one, torch.full(VIEW_SIZE, WALL))
            assert not gone(counts, one).any()
    assert not counts.any()


def test_a_memory_of_another_scene_is_refused() -> None:
    with pytest.raises(ShapeError, match="made for a scene of 5 keyframes, got one of 2"):
        gone(counters(5), scene())


def test_counters_are_two_bits() -> None:
    values = torch.randint(0, 4, (2, 3, *VIEW_SIZE), dtype=torch.uint8)
    assert torch.equal(_unpack(_pack(values)), values)
    assert _pack(values).shape == (2, 3, ROW_BYTES)


def test_depth_is_brought_to_the_memorys_scale() -> None:
    shown = torch.full((1, 1, *VIEW_SIZE), 1 / WALL)
    shown[..., :20] = 0  # a hole
    view = View(*[torch.zeros(1)] * 2, shown, *[torch.zeros(1)] * 3)
    hidden = torch.zeros(1, *VIEW_SIZE, dtype=torch.bool)
    for error, left in ((1.2, 1.0), (0.85, 1.0), (3.0, 3.0 / 1.25)):  # a whole view may have changed
        depth = match_scale(torch.full((1, *VIEW_SIZE), WALL * error), hidden, view)
        torch.testing.assert_close(depth, torch.full_like(depth, WALL * left))
    nothing = View(*[torch.zeros(1)] * 2, torch.zeros_like(shown), *[torch.zeros(1)] * 3)
    depth = torch.full((1, *VIEW_SIZE), 3.0)
    assert torch.equal(match_scale(depth, hidden, nothing), depth)
