"""Fine detail of views in generated frames."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.models.conditioning.detail import add_detail, show_behind
from reverie.vision.projection import VIEW_SIZE

SIZE = (2 * VIEW_SIZE[0], 2 * VIEW_SIZE[1])
NOBODY = torch.zeros(1, *VIEW_SIZE)
INSIDE = (..., slice(8, -8), slice(8, -8))


@pytest.fixture
def sharp() -> Tensor:
    """A texture of one pixel on a slope of colours, (1, 4, 3, H, W)."""
    slope = torch.linspace(-0.6, 0.6, SIZE[1]).expand(1, 4, 3, *SIZE)
    return slope + 0.3 * (torch.rand(1, 4, 3, *SIZE, generator=torch.Generator().manual_seed(1)) - 0.5)


def decoded(sharp: Tensor) -> Tensor:
    """What a tokenizer leaves of it."""
    return F.avg_pool2d(F.pad(sharp.flatten(0, 1), (3, 3, 3, 3), "reflect"), 7, 1).view_as(sharp)


def planes(value: float) -> Tensor:
    return torch.full((1, 4, *VIEW_SIZE), value)


def test_what_is_fine_is_the_view_s_and_what_is_coarse_the_mean_of_both(sharp: Tensor) -> None:
    darker = decoded(sharp) - 0.05
    out = add_detail(darker, sharp, planes(1.0), planes(0.2), NOBODY)
    fine, brighter = sharp - decoded(sharp), 0.05 / 2
    assert ((out - darker) - fine - brighter)[INSIDE].abs().mean() < 0.3 * fine[INSIDE].abs().mean()
    assert (out - darker)[INSIDE].mean() == pytest.approx(brighter, abs=0.005)


def test_what_the_view_does_not_show_stays_as_it_was_generated(sharp: Tensor) -> None:
    frames = decoded(sharp)
    frames[..., 40:80, 60:120] = 0.9  # a body, or a car
    out = add_detail(frames, sharp, planes(1.0), planes(0.2), NOBODY)
    assert (out - frames)[..., 48:72, 68:112].abs().max() < 0.02
    assert (out - frames)[..., 90:, 8:-8].abs().mean() > 0.04


def test_the_player_s_body_stays_as_it_was_generated(sharp: Tensor) -> None:
    frames, body = decoded(sharp), torch.zeros(1, *VIEW_SIZE)
    body[:, 30:50, 50:60] = 1
    changed = (add_detail(frames, sharp, planes(1.0), planes(0.2), body) - frames).abs()
    assert changed[..., 58:102, 98:122].max() == 0, "and a little around it"
    assert changed[..., 60:100, 140:].mean() > 0.04


def test_holes_rims_and_stray_points_stay_as_they_were_generated(sharp: Tensor) -> None:
    frames, cover, inverse_depth = decoded(sharp), planes(1.0), planes(0.2)
    cover[..., 20:30, 20:40] = 0
    inverse_depth[..., 40, 60] = 1.0
    inverse_depth[..., 50, 60:62] = 1.0
    changed = (add_detail(frames, sharp, cover, inverse_depth, NOBODY) - frames).abs().amax(2)
    assert changed[..., 39:61, 39:81].max() == 0
    everywhere = (add_detail(frames, sharp, planes(1.0), planes(0.2), NOBODY) - frames).abs().amax(2)
    for stray in ((..., slice(80, 82), slice(120, 122)), (..., slice(100, 102), slice(120, 124))):
        assert (changed[stray] < 0.6 * everywhere[stray]).all()
    torch.testing.assert_close(changed[..., 70:, 90:110], everywhere[..., 70:, 90:110])
    assert everywhere[..., 70:, 90:110].mean() > 0.04


def test_what_the_view_has_in_its_holes_does_not_matter(sharp: Tensor) -> None:
    cover = planes(1.0)
    cover[..., 20:30, 20:40] = 0
    garbled = sharp.clone()
    garbled[..., 40:60, 40:80] = 9.0
    out, wanted = (add_detail(decoded(sharp), x, cover, planes(0.2), NOBODY) for x in (garbled, sharp))
    torch.testing.assert_close(out, wanted)


def test_sky_is_a_surface_and_sessions_are_independent(sharp: Tensor) -> None:
    frames = decoded(sharp)
    alone = add_detail(frames, sharp, planes(1.0), planes(0.0), NOBODY)
    assert (alone - frames)[INSIDE].abs().mean() > 0.04
    two = [torch.cat([x, torch.zeros_like(x)]) for x in (frames, sharp, planes(1.0), planes(0.0), NOBODY)]
    together = add_detail(*two)
    torch.testing.assert_close(together[:1], alone)
    assert together[1].abs().max() == 0


def test_behind_a_painted_body_the_view_is_seen(sharp: Tensor) -> None:
    painted = NOBODY.clone()
    painted[0, 20:40, 40:60] = 1
    found = planes(1.0)
    found[..., :25, :] = 0
    out = show_behind(decoded(sharp), sharp, found, painted)
    assert torch.equal(out[..., 54:76, 84:116], sharp[..., 54:76, 84:116])
    assert torch.equal(out[..., :46, :], decoded(sharp)[..., :46, :]), "a hole of the view shows nothing"
    assert torch.equal(out[..., 140:], decoded(sharp)[..., 140:])
    small = show_behind(torch.zeros(1, 4, 3, 32, 64), sharp, planes(1.0), torch.ones(1, *VIEW_SIZE))
    torch.testing.assert_close(small, F.interpolate(sharp.flatten(0, 1), (32, 64), mode="area")[None])


def test_frames_of_another_size(sharp: Tensor) -> None:
    small = F.interpolate(decoded(sharp).flatten(0, 1), (32, 64), mode="area").unflatten(0, (1, 4))
    out = add_detail(small, sharp, planes(1.0), planes(0.2), NOBODY)
    assert out.shape == small.shape
    assert torch.isfinite(out).all()
