"""View synthesis, against what a pinhole camera says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reverie.vision.projection import VIEW_SIZE, focal_lengths, project, unproject
from reverie.vision.rendering import View, push_pull, render_views, sample_colour, splat

H, W = VIEW_SIZE
FOCAL = focal_lengths(torch.tensor([90.0]))  # (1, 2): 56 pixels
ORIGIN = torch.zeros(1, 1, 6)


def texture(seed: int = 0, size: tuple[int, int] = (128, 224)) -> Tensor:
    """A smooth random image (1, 1, 3, H, W) uint8."""
    coarse = torch.rand(1, 3, 9, 15, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).byte()[None]


def half(colour: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(colour[:, 0].float() / 127.5 - 1, 2)[:, None]


def render(
    colour: Tensor,
    depth: Tensor,
    pose: Tensor,
    keyframe_pose: Tensor = ORIGIN,
    hidden: Tensor | None = None,
    valid: Tensor | None = None,
    focal: Tensor = FOCAL,
) -> View:
    b, k = depth.shape[:2]
    hidden = torch.zeros(b, k, H, W, dtype=torch.bool) if hidden is None else hidden
    valid = torch.ones(b, k, dtype=torch.bool) if valid is None else valid
    keyframe_pose = keyframe_pose.expand(b, k, 6)
    return render_views(colour, depth, hidden, keyframe_pose, valid, pose, focal.expand(b, 2))


def pose(**changes: float) -> Tensor:
    names = ("x", "y", "z", "yaw", "pitch", "roll")
    return torch.tensor([[[changes.get(name, 0.0) for name in names]]])


def flat(depth: float) -> Tensor:
    return torch.full((1, 1, H, W), depth)


def plain(*greys: int) -> Tensor:
    """Keyframes of one grey each, (1, k, 3, H, W)."""
    return torch.stack([torch.full((3, 128, 224), grey, dtype=torch.uint8) for grey in greys])[None]


def test_the_same_camera_sees_the_keyframe_itself() -> None:
    colour = texture()
    view = render(colour, flat(5.0), pose())
    assert view.colour.shape == (1, 1, 3, H, W)
    assert view.cover.min() == 1
    torch.testing.assert_close(view.inverse_depth, torch.full((1, 1, H, W), 0.2))
    assert (view.colour - half(colour)).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("camera", "shift"),
    [  # a wall 4 m away, 56 pixels of focal length: 0.5 m is 7 pixels
        (pose(x=0.5), (-7, 0)),
        (pose(x=-0.5), (7, 0)),
        (pose(z=0.5), (0, 7)),
    ],
)
def test_a_step_aside_moves_a_wall_as_a_pinhole_says(camera: Tensor, shift: tuple[int, int]) -> None:
    colour = texture()
    view, expected = render(colour, flat(4.0), camera).colour, half(colour)
    moved = torch.roll(expected, (shift[1], shift[0]), (-2, -1))
    inside = (slice(None), slice(None), slice(None), slice(10, H - 10), slice(10, W - 10))
    assert (view[inside] - moved[inside]).abs().mean() < 0.02
    assert (view[inside] - expected[inside]).abs().mean() > 0.08
    # what has come into view is a hole, with something plausible in it
    cover = render(colour, flat(4.0), camera).cover
    assert cover.mean() == pytest.approx(1 - abs(shift[0]) / W - abs(shift[1]) / H, abs=0.01)
    assert torch.isfinite(view).all()


def test_a_turn_moves_everything_alike_near_and_far() -> None:
    """The centre of a view that is turned by 20 degrees shows what was F tan(20) to the right; sky turns too."""
    colour = texture()
    place = (W - 1) / 2 + 56 * math.tan(math.radians(20) + math.atan(0.5 / 56))  # the centre pixel is half a one off
    centre = []
    for depth in (2.0, 20.0, 500.0):
        view = render(colour, flat(depth), pose(yaw=20))
        centre.append(view.colour[0, 0, :, H // 2, W // 2])
    row, x = half(colour)[0, 0, :, H // 2], int(place)
    expected = row[:, x] + (place - x) * (row[:, x + 1] - row[:, x])
    for one in centre:
        assert (one - expected).abs().max() < 0.03
    assert (row[:, W // 2] - expected).abs().max() > 0.3
    assert render(colour, flat(500.0), pose(yaw=20)).inverse_depth.max() == 0
    walked = render(colour, flat(500.0), pose(y=5))  # sky does not move when one walks
    assert (walked.colour - half(colour))[..., 4:-4, 4:-4].abs().mean() < 0.02


def test_walking_towards_a_wall_enlarges_it_without_cracks() -> None:
    colour = texture()
    view = render(colour, flat(4.0), pose(y=1.9))
    inside = view.cover[..., 1:-1, 1:-1]  # a crack at the very border has only one neighbour
    assert inside.min() == 1, "a surface that has come twice as near has no holes"
    torch.testing.assert_close(view.inverse_depth[..., 1:-1, 1:-1], inside / 2.1, atol=1e-3, rtol=0)
    enlarged = torch.nn.functional.interpolate(half(colour)[:, 0], (122, 214), mode="bilinear")  # by 4 / 2.1
    middle = enlarged[:, :, 29 : 29 + H, 51 : 51 + W]
    assert (view.colour[:, 0] - middle).abs().mean() < 0.02


def test_what_is_near_hides_what_is_far_and_leaves_a_hole() -> None:
    """A bright post 2 m away before a dark wall 8 m away, seen from half a metre to the right."""
    depth, colour = flat(8.0), torch.full((1, 1, 3, 128, 224), 40, dtype=torch.uint8)
    depth[..., 50:62] = 2.0
    colour[..., 100:124] = 220
    view = render(colour, depth, pose(x=0.5))
    # the post moves by 56 * 0.5 / 2 = 14 pixels, the wall by 3.5
    bright = view.colour[0, 0, 0, H // 2] > 0
    assert bright[36:48].all()
    assert not bright[:35].any()
    assert not bright[60:].any()
    hole = view.cover[0, 0, H // 2] == 0
    assert hole[49:57].all(), "what the post hid is not known"
    assert not hole[:48].any()
    # from behind the post's left edge: the wall in front of which the post now stands is not seen through it
    assert (view.inverse_depth[0, 0, H // 2, 37:47] == 0.5).all()


def test_the_first_of_several_keyframes_wins_and_invalid_ones_never() -> None:
    colour, depth = plain(50, 200), flat(5.0).expand(1, 2, H, W)
    first = render(colour, depth, pose()).colour
    torch.testing.assert_close(first, torch.full_like(first, 50 / 127.5 - 1), atol=1e-4, rtol=0)
    swapped = render(colour.flip(1), depth, pose()).colour
    torch.testing.assert_close(swapped, torch.full_like(swapped, 200 / 127.5 - 1), atol=1e-4, rtol=0)
    second = render(colour, depth, pose(), valid=torch.tensor([[False, True]]))
    torch.testing.assert_close(second.colour, swapped)
    nothing = render(colour, depth, pose(), valid=torch.zeros(1, 2, dtype=torch.bool))
    assert nothing.cover.max() == 0
    assert nothing.inverse_depth.max() == 0
    assert torch.isfinite(nothing.colour).all()


def test_a_nearer_surface_of_a_later_keyframe_hides_an_earlier_ones() -> None:
    colour = plain(50, 200)
    depth = torch.stack([flat(9.0)[0, 0], flat(3.0)[0, 0]])[None]
    view = render(colour, depth, pose())
    torch.testing.assert_close(view.colour, torch.full_like(view.colour, 200 / 127.5 - 1), atol=1e-4, rtol=0)


def test_a_second_keyframe_fills_what_the_first_does_not_show() -> None:
    colour, depth = plain(50, 200), flat(5.0).expand(1, 2, H, W)
    hidden = torch.zeros(1, 2, H, W, dtype=torch.bool)
    hidden[0, 0, :, W // 2 :] = True
    view = render(colour, depth, pose(), hidden=hidden)
    assert view.cover.min() == 1
    assert (view.colour[..., : W // 2] < 0).all()
    assert (view.colour[..., W // 2 :] > 0).all()


def test_hidden_pixels_are_not_drawn() -> None:
    hidden = torch.zeros(1, 1, H, W, dtype=torch.bool)
    hidden[..., 20:40, 30:60] = True
    colour = torch.full((1, 1, 3, 128, 224), 200, dtype=torch.uint8)
    colour[..., 40:80, 60:120] = 0
    view = render(colour, flat(5.0), pose(), hidden=hidden)
    hole = view.cover[0, 0] == 0
    assert not (hole & ~hidden[0, 0]).any()
    assert hole[21:39, 31:59].all()  # its corners may be closed as cracks are
    around = (view.colour > 0.4).float().mean()
    assert around > 0.99, "holes are filled from around, not from what is hidden"


@pytest.mark.parametrize("camera", [pose(), pose(y=1.5), pose(x=0.3, z=-0.2), pose(y=-4.0), pose(yaw=3, roll=4)])
def test_no_colour_of_hidden_pixels_gets_into_a_view(camera: Tensor) -> None:
    """Neither through cracks that are closed beside them nor through samples between two pixels."""
    hidden = torch.zeros(1, 1, H, W, dtype=torch.bool)
    hidden[..., 20:40, 30:60] = True
    hidden[..., 10, 80] = hidden[..., 50:52, 90:93] = True
    colour = torch.full((1, 1, 3, 128, 224), 200, dtype=torch.uint8)
    inside = hidden[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1)
    colour[..., inside] = 0
    view = render(colour, flat(5.0), camera, hidden=hidden)
    shown = view.colour.movedim(2, -1)[view.cover > 0]
    torch.testing.assert_close(shown, torch.full_like(shown, 200 / 127.5 - 1), atol=1e-4, rtol=0)


def test_known_is_what_was_seen_from_at_most_twice_as_far() -> None:
    for y, known in ((0.0, 1.0), (3.8, 1.0), (4.2, 0.0)):  # a wall at 8 m
        view = render(texture(), flat(8.0), pose(y=y))
        middle = view.known[..., 20:44, 36:76]
        cover = view.cover[..., 20:44, 36:76]
        assert cover.mean() > 0.5
        torch.testing.assert_close(middle, cover * known)
    assert (render(texture(), flat(500.0), pose(y=50.0)).known == 1).all(), "sky is as far from everywhere"
    second = render(plain(50, 200), flat(5.0).expand(1, 2, H, W), pose(), valid=torch.tensor([[False, True]]))
    assert (second.keyframe == 1).all()


def test_splatting_is_projecting() -> None:
    generator = torch.Generator().manual_seed(3)
    depth = 1 + 20 * torch.rand(2, 3, H, W, generator=generator)
    spread = torch.tensor([5.0, 5, 1, 90, 20, 5])
    theirs, views = (torch.randn(2, n, 6, generator=generator) * spread for n in (3, 4))
    focal = focal_lengths(torch.tensor([70.0, 100.0]), torch.tensor([1.0, 1.2]))
    x, y, z = splat(depth, theirs, views, focal)
    xy, far = project(unproject(depth, theirs, focal), views, focal)
    front = far > 0.5
    torch.testing.assert_close(z.flatten(3), far, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(x.flatten(3)[front], xy[..., 0][front], atol=0.02, rtol=1e-3)
    torch.testing.assert_close(y.flatten(3)[front], xy[..., 1][front], atol=0.02, rtol=1e-3)


def test_what_lies_behind_the_camera_is_not_drawn() -> None:
    assert render(texture(), flat(2.0), pose(y=2.5)).cover.max() == 0
    assert render(texture(), flat(2.0), pose(yaw=180)).cover.max() == 0


def test_push_pull_keeps_what_is_known_and_fills_with_what_is_near() -> None:
    image = torch.zeros(1, 3, H, W)
    image[..., W // 2 :] = 1.0
    weight = torch.ones(1, 1, H, W)
    weight[..., 10:20, 10:20] = 0
    weight[..., 10:20, 90:100] = 0
    damaged = torch.where(weight > 0, image, torch.full_like(image, 77.0))
    filled = push_pull(damaged, weight)
    torch.testing.assert_close(filled[..., 30:, :], image[..., 30:, :])
    assert filled[..., 10:20, 10:20].abs().max() < 0.05
    assert (filled[..., 10:20, 90:100] - 1).abs().max() < 0.05
    assert push_pull(damaged, torch.zeros_like(weight)).abs().max() == 0


def test_at_full_size_a_view_from_where_it_was_taken_is_the_keyframe() -> None:
    colour = torch.randint(0, 256, (1, 1, 3, 2 * H, 2 * W), dtype=torch.uint8)
    view = render(colour, flat(3.0), pose())
    hidden = torch.zeros(1, 1, H, W, dtype=torch.bool)
    detail = sample_colour(colour, hidden, view.points.divided())
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(detail[0][inside], (colour[0] / 127.5 - 1)[inside].float(), atol=0.02, rtol=0)


def test_rows_of_a_batch_are_independent() -> None:
    colour = torch.cat([texture(0), texture(1)])
    depth = torch.cat([flat(3.0), flat(7.0)])
    cameras = torch.cat([pose(x=0.3), pose(yaw=15, y=1)])
    focal = focal_lengths(torch.tensor([90.0, 60.0]))
    both = render(colour, depth, cameras, focal=focal)
    for i in range(2):
        row = slice(i, i + 1)
        alone = render(colour[row], depth[row], cameras[row], focal=focal[row])
        for one, other in zip(both[:5], alone[:5], strict=True):
            torch.testing.assert_close(one[row], other, atol=1e-5, rtol=0)
        for one, other in zip(both.points, alone.points, strict=True):
            torch.testing.assert_close(one[row], other, atol=1e-5, rtol=1e-5)


def test_views_of_one_batch_are_independent() -> None:
    colour, cameras = texture(), torch.cat([pose(), pose(x=0.4), pose(yaw=-10)], 1)
    together = render(colour, flat(3.0), cameras)
    for i in range(3):
        alone = render(colour, flat(3.0), cameras[:, i : i + 1])
        torch.testing.assert_close(together.colour[:, i : i + 1], alone.colour, atol=1e-5, rtol=0)


def test_pixel_aspect_stretches_downwards() -> None:
    """The focal length down, in pixels, is the one across times the aspect."""
    square, tall = focal_lengths(torch.tensor([90.0]))[0], focal_lengths(torch.tensor([90.0]), 1.2)[0]
    assert square.tolist() == pytest.approx([56.0, 56.0])
    assert tall.tolist() == pytest.approx([56.0, 67.2])
    xy, _ = project(torch.tensor([[[1.0, 4.0, 1.0]]]), ORIGIN, tall[None])
    assert xy[0, 0, 0].tolist() == pytest.approx([(W - 1) / 2 + 14, (H - 1) / 2 - 16.8], abs=1e-4)
    colour = texture()
    view = render(colour, flat(4.0), pose(z=0.5), focal=tall[None]).colour
    moved = torch.roll(half(colour), 8, -2)  # 67.2 * 0.5 / 4 = 8.4
    assert (view - moved)[..., 12:-4, :].abs().mean() < 0.05


@pytest.mark.parametrize("place", [float("nan"), float("inf"), 1e30, -3e38])
def test_a_pose_beyond_all_numbers_shows_nothing_and_raises_nothing(place: float) -> None:
    lost = pose()
    lost[0, 0] = place
    for keyframe, camera in ((lost, pose()), (pose(), lost)):
        view = render(plain(90), flat(4.0), camera, keyframe)
        assert torch.isfinite(view.colour).all()
        assert (view.cover == 0).all()


def test_what_fills_never_hides_what_it_is_nearer_than() -> None:
    """A keyframe that only fills is drawn where the other leaves holes, however near it is, and not at their rims."""
    hidden = torch.zeros(1, 2, H, W, dtype=torch.bool)
    hidden[:, 0, :, 56:] = True  # the first keyframe shows the left half alone
    depth = torch.cat([flat(6.0), flat(2.0)], 1)
    poses, valid = torch.zeros(1, 2, 6), torch.ones(1, 2, dtype=torch.bool)
    arguments = (plain(200, 50), depth, hidden, poses, valid, pose(), FOCAL)
    hides, fills = (render_views(*arguments, fills=x) for x in (None, torch.tensor([[False, True]])))
    left, right = (slice(None),) * 4 + (slice(0, 50),), (slice(None),) * 4 + (slice(62, None),)
    assert (hides.colour[left] < 0).all(), "without the rule the nearer one hides the other"
    assert (fills.colour[left] > 0.4).all()
    assert (fills.colour[right] < 0).all()


def test_a_wall_right_before_the_camera_is_a_wall() -> None:
    """Seven times as near its points are seven pixels apart, and what lies behind does not show between them."""
    colour = texture()
    view = render(colour, flat(4.2), pose(y=3.6))
    assert view.cover[..., 8:-8, 8:-8].min() == 1
    torch.testing.assert_close(view.inverse_depth[..., 8:-8, 8:-8], torch.full((1, 1, H - 16, W - 16), 1 / 0.6))
    enlarged = torch.nn.functional.interpolate(half(colour)[:, 0], scale_factor=7, mode="bilinear")
    middle = enlarged[:, :, 3 * H : 4 * H, 3 * W : 4 * W]
    assert (view.colour[:, 0] - middle)[..., 8:-8, 8:-8].abs().mean() < 0.05
    behind = torch.cat([flat(4.2), flat(12.0)], 1)
    both = torch.cat([colour, torch.zeros_like(colour)], 1)
    view = render(both, behind, pose(y=3.6))
    assert (view.keyframe[..., 8:-8, 8:-8] == 0).all()


def test_what_lies_between_two_things_is_no_gap() -> None:
    """Two posts four metres away, six pixels apart, nothing between them, seen from a step nearer."""
    depth, hidden = flat(4.0), torch.ones(1, 1, H, W, dtype=torch.bool)
    hidden[..., 48:52] = hidden[..., 58:62] = False
    row = render(texture(), depth, pose(y=0.2), hidden=hidden).cover[0, 0, H // 2]
    assert row[48:51].all()
    assert row[59:62].all()
    assert not row[52:58].any()
