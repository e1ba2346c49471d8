"""The player's body in play: which recorded frames are shown, and how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers.player_body import BOTTOM, CYCLE, SIZE, TOP, columns, recorded, walk
from torch import Tensor

from reverie.scenes.body_matching import Body, BodyLayer
from reverie.vision.pixels import to_pixels
from reverie.vision.projection import VIEW_SIZE
from reverie.vision.rendering import Points, View

MODEL_ACTIONS = 5
COLUMNS = [3, 1]
"""Where left and right are in the actions of a model that has other keys too."""


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.of(recorded(), COLUMNS, MODEL_ACTIONS)


def past(key: str | None, frames: int = 24) -> tuple[Tensor, Tensor]:
    """A second's actions, a key held in the last so many frames, and motions."""
    actions, motions = torch.zeros(1, 24, MODEL_ACTIONS), torch.zeros(1, 24, 6)
    if key is not None:
        actions[0, 24 - frames :, COLUMNS[("left", "right").index(key)]] = 1
    motions[..., 0] = 0.2
    return actions, motions


def shown_columns(layer: BodyLayer) -> list[int]:
    """The columns of a view that the last frame's body is in."""
    return layer.hides[0].any(0).nonzero().flatten().tolist()


@pytest.mark.parametrize("key", [None, "left", "right"])
def test_the_body_leans_as_it_did_under_these_keys(body: Body, key: str | None) -> None:
    layer = body.show(*past(key), torch.zeros(1, dtype=torch.int64), SIZE)
    wanted = list(range(*columns(key).indices(VIEW_SIZE[1])))
    assert set(wanted) <= set(shown_columns(layer)) <= {wanted[0] - 1, *wanted, wanted[-1] + 1}
    rows = layer.hides[0].any(1).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1])) == (TOP, BOTTOM - 1)


def test_other_keys_of_a_model_do_nothing(body: Body) -> None:
    nobody = torch.zeros(1, dtype=torch.int64)
    actions, motions = past("left")
    others = actions.clone()
    others[..., [0, 2, 4]] = 1
    assert torch.equal(body.show(actions, motions, nobody, SIZE).rows, body.show(others, motions, nobody, SIZE).rows)


def test_a_block_goes_on_from_what_was_shown(body: Body) -> None:
    """The colour goes round as it did, though the past says nothing of it."""
    shown, phases = body.find(*seen(walk(["right"] * 2), 30)), []
    for _ in range(12):
        layer = body.show(*past("right"), shown, SIZE)
        shown = layer.rows[:, -1] + 1
        at = columns("right").start + 3
        for one in layer.image[0, :, :, 2 * TOP + 8, 2 * at + 2]:
            assert one[3] == 1
            phases.append(float(torch.atan2(one[0], one[1])))
    steps = (np.diff(phases) + np.pi) % (2 * np.pi) - np.pi
    assert np.median(steps) == pytest.approx(2 * np.pi / CYCLE, abs=0.1)
    assert (np.abs(steps - 2 * np.pi / CYCLE) < 0.6).mean() > 0.8


def seen(recording, number: int) -> tuple[Tensor, Tensor]:
    """A frame of a walk as a session has it, and its body."""
    frame = to_pixels(torch.from_numpy(recording.frames[number : number + 1]).permute(0, 3, 1, 2))
    return frame, torch.from_numpy(recording.body[number : number + 1])


@pytest.mark.parametrize("key", [None, "left", "right"])
def test_a_start_image_shows_what_looks_most_like_it(body: Body, key: str | None) -> None:
    row = body.find(*seen(walk([key] * 2), 30))
    found = body.image[row - 1, 3].float().mean(1)[0].nonzero().flatten() + body.corner[1]
    middle = columns(key).start + columns(key).stop
    assert float(found.float().mean()) == pytest.approx(middle - 0.5, abs=2)


def test_sessions_of_a_batch_have_bodies_of_their_own(body: Body) -> None:
    both = [torch.cat(parts) for parts in zip(past("left"), past("right"), strict=True)]
    shown = torch.cat([body.find(*seen(walk([key] * 2), 30)) for key in ("left", "right")])
    layer = body.show(*both, shown, SIZE)
    for i, key in enumerate(("left", "right")):
        alone = body.show(*past(key), shown[i : i + 1], SIZE)
        assert torch.equal(layer.rows[i], alone.rows[0])
        torch.testing.assert_close(layer.image[i], alone.image[0])


def test_it_is_drawn_before_frames_and_views(body: Body) -> None:
    layer = body.show(*past(None), torch.zeros(1, dtype=torch.int64), SIZE)
    frames = torch.full((1, 4, 3, *SIZE), -0.5)
    drawn = layer.draw(frames)
    opacity = layer.image[:, :, 3:].expand_as(drawn)
    assert torch.equal(drawn[opacity == 0], frames[opacity == 0])
    torch.testing.assert_close(drawn[opacity == 1], layer.image[:, :, :3][opacity == 1])
    planes = torch.zeros(1, 4, *VIEW_SIZE)
    points = Points(planes.long(), *[planes] * 5)
    view = layer.draw_view(View(torch.full((1, 4, 3, *VIEW_SIZE), -0.5), planes, planes, planes, planes.long(), points))
    assert torch.equal(view.cover[0, -1] > 0, layer.hides[0])
    assert view.cover.max() == 1
    assert view.points.found.max() == 0, "what is behind it is not known"
    assert view.colour[0, -1, 2, TOP + 3, columns(None).start + 3] == pytest.approx(220 / 127.5 - 1, abs=0.02)
    assert view.colour[0, -1, 2, 0, 0] == -0.5
