from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reverie.models.camera import Camera, Moves, TurnedStep, covered, sample, screen

CAMERA = Camera(fov_deg=90.0)


def scene(yaw_deg: float, height: int = 32, width: int = 64) -> torch.Tensor:
    """What a camera turned by `yaw_deg` sees of a smooth cylinder of colours: a known answer to any turn."""
    focal = CAMERA.focal(width)
    x = torch.arange(width) + 0.5 - width / 2
    angle = torch.atan(x / focal) + np.deg2rad(yaw_deg)
    rows = torch.stack([torch.sin(3 * angle), torch.cos(2 * angle), torch.sin(5 * angle + 1)])
    return rows[:, None, :].expand(3, height, width).contiguous()


def turn(picture: torch.Tensor, pitch: float, yaw: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, c, H, W) -> what a camera that has turned sees (1, 1, c, H, W), and where that is known (1, 1, H, W)."""
    height, width = picture.shape[-2:]
    around = CAMERA.around(screen(height, width, picture.device), torch.tensor([[[pitch, yaw]]]), height / width)
    places = CAMERA.on_screen(around, height / width)
    return sample(picture, places), covered(places)


@pytest.mark.parametrize("yaw", [-8.0, -2.0, 0.0, 3.0, 10.0])
def test_turning_a_picture_shows_what_the_turned_camera_sees(yaw: float) -> None:
    turned, known = turn(scene(0.0)[None], 0.0, yaw)
    error = ((turned[0, 0] - scene(yaw)).abs() * known[0, 0]).max()
    assert error < 0.02
    assert known.mean() > 0.7
    assert yaw == 0 or known.mean() < 1


def test_looking_up_moves_the_picture_down() -> None:
    picture = torch.zeros(1, 1, 32, 64)
    picture[0, 0, 10] = 1
    turned, _ = turn(picture, 4.0, 0.0)
    assert turned[0, 0, 0, :, 32].argmax() > 10


def test_what_is_seen_at_an_angle_is_found_at_that_angle() -> None:
    """A cell right of the centre looks where the centre looks once the camera has turned there."""
    still, turned = CAMERA.directions(8, 14, torch.tensor([[0.0, 0.0], [0.0, 12.0]])).unflatten(1, (8, 14))
    focal = CAMERA.focal(14)
    unit = np.rad2deg(np.arctan(1 / focal))
    torch.testing.assert_close(turned[..., 1] - still[..., 1], torch.full((8, 14), 12.0 / unit, dtype=torch.float64))
    assert (still[:, 1:, 1] > still[:, :-1, 1]).all()
    up = CAMERA.directions(8, 14, torch.tensor([5.0, 0.0])).unflatten(0, (8, 14))
    assert (up[..., 0] < still[..., 0]).all()


def test_the_cylinder_is_mirrored_at_the_sides_of_the_picture() -> None:
    places = screen(8, 14, torch.device("cpu"))
    around = CAMERA.around(places, torch.zeros(2), 8 / 14)
    torch.testing.assert_close(CAMERA.on_screen(around, 8 / 14), places)
    torch.testing.assert_close(CAMERA.mirrored(around), around)
    quarter = CAMERA.mirrored(CAMERA.around(places, torch.tensor([0.0, 90.0]), 8 / 14))  # the field of view
    torch.testing.assert_close(quarter[..., 0], around[..., 0].flip(-1))
    whole = CAMERA.mirrored(CAMERA.around(places, torch.tensor([0.0, 360.0]), 8 / 14))
    torch.testing.assert_close(whole, around, atol=1e-5, rtol=0)


def fitted() -> tuple[TurnedStep, torch.Tensor]:
    """A turned step for latents that are a linear code of the pixels, and 48 such latents (48, 16, 8, 14)."""
    generator = torch.Generator().manual_seed(0)
    frame = F.interpolate(torch.randn(48, 3, 4, 7, generator=generator), (32, 56), mode="bicubic")
    code = torch.randn(16, 48, generator=generator) / 7
    z = torch.einsum("kc,rchw->rkhw", code, F.pixel_unshuffle(frame, 4))
    step = TurnedStep(CAMERA, 16)
    step.fit(z, frame, frame[:, None].expand(-1, 4, -1, -1, -1))
    return step, z


def test_the_canvas_shows_again_what_was_turned_away_from() -> None:
    """Six steps to the right and six back: the start once more, where moving from step to step has lost it."""
    step, start = fitted()
    there = torch.tensor([0.0, 1.0]) * torch.tensor([2.0, 4.0, 6.0, 8.0])[:, None].expand(48, 4, 1)
    canvas, before, rows = step.open(start), torch.zeros(48, 2), torch.zeros(48, 12, 0)
    z = stepwise = start
    for turned in [there] * 6 + [-there] * 6 + [0 * there]:
        told, canvas = step.retrace(z, turned, rows, canvas, before)
        z, before = told[:, 4:20], before + turned[:, -1]
        stepwise = step(stepwise, turned, rows)[:, 4:20]
    error, lost = ((x - step(start, 0 * there, rows)[:, 4:20]).square().mean() for x in (z, stepwise))
    assert error < 0.01 * start.square().mean()
    assert lost > 0.2 * start.square().mean()


def test_what_was_added_moves_on_from_step_to_step() -> None:
    step, start = fitted()
    canvas, still, rows = step.open(start), torch.zeros(48, 4, 2), torch.zeros(48, 12, 0)
    told, canvas = step.retrace(start, still, rows, canvas, torch.zeros(48, 2))
    changed = told[:, 4:20] + 0.5 * start.flip(0)
    after, _ = step.retrace(changed, still, rows, canvas, torch.zeros(48, 2))
    without, whole = (step(z, still, rows)[:, 4:20] for z in (told[:, 4:20], changed))
    torch.testing.assert_close(after[:, 4:20], without.lerp(whole, TurnedStep.KEPT), atol=0.1, rtol=0)


class Walk(torch.nn.Module):
    """Everything comes nearer, a 20th a step, or goes away."""

    towards = 1

    def forward(self, z: torch.Tensor, rows: torch.Tensor) -> Moves:
        y, x = (torch.linspace(-1, 1, n) for n in z.shape[-2:])
        to_middle = -torch.stack(torch.meshgrid(x, y, indexing="xy"))
        part = self.towards * 0.0125 * torch.arange(1, 5.0)[:, None, None, None]
        none = torch.zeros_like(z[:, :1])
        return Moves((part * to_middle).expand(len(z), -1, -1, -1, -1), none, none)


class Dashboard(torch.nn.Module):
    """The lower half is fixed to the screen."""

    def forward(self, z: torch.Tensor, rows: torch.Tensor) -> Moves:
        fixed = torch.zeros_like(z[:, :1])
        fixed[..., z.shape[-2] // 2 :, :] = 1
        return Moves(z.new_zeros(len(z), 4, 2, *z.shape[-2:]), fixed, torch.zeros_like(fixed))


def test_what_is_fixed_to_the_screen_does_not_turn() -> None:
    step, start = fitted()
    step.motion = Dashboard()  # type: ignore[assignment]
    there = torch.tensor([0.0, 1.0]) * torch.tensor([2.0, 4.0, 6.0, 8.0])[:, None].expand(48, 4, 1)
    canvas, before, z, rows = step.open(start), torch.zeros(48, 2), start, torch.zeros(48, 12, 0)
    first = canvas.written
    for _ in range(3):
        told, canvas = step.retrace(z, there, rows, canvas, before)
        z, before = told[:, 4:20], before + there[:, -1]
    changed = (canvas.written - first).square().mean((0, 1, 3)) / first.square().mean()
    assert changed[: len(changed) // 2 - 1].min() > 0.2
    assert changed[len(changed) // 2 + 1 :].max() < 1e-3


def walked(ways: list[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What is written of the canvas at the start, and after every step of a walk."""
    step, start = fitted()
    step.motion = walk = Walk()  # type: ignore[assignment]
    canvas, still, rows = step.open(start), torch.zeros(48, 4, 2), torch.zeros(48, 12, 0)
    first, z, seen = canvas.written, start, []
    for walk.towards in ways:
        told, canvas = step.retrace(z, still, rows, canvas, torch.zeros(48, 2))
        z = told[:, 4:20]
        seen.append(canvas.written)
    return first, seen


def detail(z: torch.Tensor) -> float:
    return (z[..., 1:] - z[..., :-1]).square().mean().item()


def test_a_long_walk_does_not_smear_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    first, seen = walked([1] * 60)
    assert min(map(detail, seen)) > 0.1 * detail(first)
    assert sum(map(detail, seen)) / 60 > 0.3 * detail(first)
    leaps = [(b - a).square().mean().item() for a, b in pairwise([first, *seen])]
    assert max(leaps) < 3 * max(leaps[:10])  # one picture becomes the other, it does not jump
    monkeypatch.setattr("reverie.models.camera.WORN", (100.0, 101.0))
    _, smeared = walked([1] * 60)
    assert detail(smeared[-1]) < 0.1 * detail(first)


def test_a_few_steps_there_and_back_show_the_start_again() -> None:
    first, seen = walked([1] * 5 + [-1] * 5 + [0])
    assert (seen[-1] - first).square().mean() < 0.05 * (seen[4] - first).square().mean()


def test_the_turned_step_learns_to_read_and_write_latents() -> None:
    """With latents that are a linear code of the pixels, the turned step is the code of the turned frames."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(48, 3, 4, 7, generator=generator)
    frame = F.interpolate(coarse, (32, 56), mode="bicubic")
    frames = frame[:, None].expand(-1, 4, -1, -1, -1)
    code = torch.randn(16, 48, generator=generator) / 7
    z = torch.einsum("kc,rchw->rkhw", code, F.pixel_unshuffle(frame, 4))
    step = TurnedStep(CAMERA, 16)
    explained = step.fit(z, frame, frames)
    assert explained["read"] > 0.9
    assert explained["written"] > 0.9
    rows = torch.zeros(48, 12, 0)
    still = step(z, torch.zeros(48, 4, 2), rows)
    assert torch.equal(still[:, :4], torch.ones(48, 4, 8, 14))
    assert torch.equal(still[:, 20:], z)
    assert (still[:, 4:20] - z).square().mean() < 0.2 * z.square().mean()
    turned = step(
        z, torch.tensor([2.0, 4.0, 6.0, 8.0])[None, :, None].expand(48, 4, 2) * torch.tensor([0.0, 1.0]), rows
    )
    assert turned[:, :4, :, -1].mean() < 1
