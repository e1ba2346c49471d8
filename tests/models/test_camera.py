import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reverie.models.camera import Camera, TurnedStep

CAMERA = Camera(fov_deg=90.0)


def scene(yaw_deg: float, height: int = 32, width: int = 64) -> torch.Tensor:
    """What a camera turned by `yaw_deg` sees of a smooth cylinder of colours: a known answer to any turn."""
    focal = CAMERA.focal(width)
    x = torch.arange(width) + 0.5 - width / 2
    angle = torch.atan(x / focal) + np.deg2rad(yaw_deg)
    rows = torch.stack([torch.sin(3 * angle), torch.cos(2 * angle), torch.sin(5 * angle + 1)])
    return rows[:, None, :].expand(3, height, width).contiguous()


@pytest.mark.parametrize("yaw", [-8.0, -2.0, 0.0, 3.0, 10.0])
def test_turning_a_picture_shows_what_the_turned_camera_sees(yaw: float) -> None:
    turned, known = CAMERA.turn(scene(0.0)[None], torch.tensor([[[0.0, yaw]]]))
    error = ((turned[0, 0] - scene(yaw)).abs() * known[0, 0]).max()
    assert error < 0.02
    assert known.mean() > 0.7
    assert yaw == 0 or known.mean() < 1


def test_looking_up_moves_the_picture_down() -> None:
    picture = torch.zeros(1, 1, 32, 64)
    picture[0, 0, 10] = 1
    turned, _ = CAMERA.turn(picture, torch.tensor([[[4.0, 0.0]]]))
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
