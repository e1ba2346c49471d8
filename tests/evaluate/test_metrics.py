import numpy as np
import pytest
from tests.helpers.synthetic_recordings import moving

from reverie.errors import ShapeError
from reverie.evaluate import metrics


def test_psnr_of_a_known_error() -> None:
    black = np.zeros((2, 8, 8, 3), np.uint8)
    assert metrics.psnr_db(black + np.uint8(16), black) == pytest.approx([24.05] * 2, abs=0.01)
    assert metrics.psnr_db(black + np.uint8(255), black) == pytest.approx([0.0] * 2, abs=1e-4)
    assert metrics.psnr_db(black, black) == pytest.approx([metrics.PSNR_CAP_DB] * 2)


def test_ssim_of_equal_inverted_and_noisy_pictures() -> None:
    video = moving(2)
    noisy = np.clip(video + np.random.default_rng(0).normal(0, 40, video.shape), 0, 255).astype(np.uint8)
    assert metrics.ssim(video, video) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert metrics.ssim(255 - video, video).max() < 0
    assert 0 < metrics.ssim(noisy, video).mean() < 0.7


def test_ssim_of_flat_pictures_is_the_formula() -> None:
    x, y = np.full((1, 9, 9, 3), 100, np.uint8), np.full((1, 9, 9, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert metrics.ssim(x, y) == pytest.approx([expected], abs=1e-4)


@pytest.mark.parametrize("measure", [metrics.psnr_db, metrics.ssim])
def test_a_shuffled_video_is_less_like_the_truth(measure) -> None:
    video = moving(6, x_px=4.0)
    assert measure(video[[3, 5, 0, 1, 2, 4]], video).mean() < measure(video, video).mean() - 0.3


def test_videos_of_other_shapes_are_not_compared() -> None:
    with pytest.raises(ShapeError, match="same shape"):
        metrics.psnr_db(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(ShapeError, match="at least 7x7"):
        metrics.ssim(np.zeros((2, 4, 8, 3), np.uint8), np.zeros((2, 4, 8, 3), np.uint8))


def test_sharpness_of_a_checkerboard_a_blur_and_a_flat_picture() -> None:
    board = (np.indices((16, 16)).sum(0) % 2 * 100).astype(np.uint8)
    board = np.repeat(board[None, :, :, None], 3, 3)
    # Inside, the Laplacian of a board of 0 and 100 is +-400.
    assert metrics.sharpness(board) == pytest.approx([400.0], rel=1e-3)
    assert metrics.sharpness(np.full_like(board, 90)) == pytest.approx([0.0], abs=1e-6)
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    blurred = (noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2) + np.roll(noise, (1, 1), (1, 2))) / 4
    assert metrics.sharpness(blurred.astype(np.uint8))[0] < 0.6 * metrics.sharpness(noise.astype(np.uint8))[0]


def test_contrast_and_saturation_of_known_pictures() -> None:
    halves = np.zeros((1, 8, 8, 3), np.uint8)
    halves[:, :, 4:] = 100
    assert metrics.contrast(halves) == pytest.approx([50.0], abs=0.01)
    assert metrics.saturation(halves) == pytest.approx([0.0])
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert metrics.saturation(red) == pytest.approx([200.0])
    assert metrics.contrast(red) == pytest.approx([0.0], abs=1e-6)


def test_frame_change_of_a_frozen_and_a_blinking_video() -> None:
    blink = np.zeros((4, 8, 8, 3), np.uint8)
    blink[1::2] = 30
    assert metrics.frame_change(blink) == pytest.approx([30.0] * 3)
    assert metrics.frame_change(blink[[0, 0, 0]]) == pytest.approx([0.0] * 2)


@pytest.mark.parametrize("degrees", [-2.0, 2.0])
def test_turning_and_its_sign(degrees: float) -> None:
    pitch, yaw = metrics.turn_deg(moving(4, x_px=degrees), fov_deg=90)
    assert metrics.turns_towards(yaw, degrees)
    assert not metrics.turns_towards(yaw, -degrees)
    assert abs(pitch) < 0.1


def test_a_still_picture_neither_turns_nor_zooms() -> None:
    still = np.repeat(moving(1), 4, 0)
    _, yaw = metrics.turn_deg(still, fov_deg=90)
    rate = metrics.zoom_rate(still)
    assert not metrics.turns_towards(yaw, 1)
    assert not metrics.turns_towards(yaw, -1)
    assert not metrics.zooms_towards(rate, 1)
    assert not metrics.zooms_towards(rate, -1)


def test_forward_expands_and_its_reverse_contracts() -> None:
    video = moving(5, zoom=1.02)
    assert metrics.zooms_towards(metrics.zoom_rate(video), 1)
    assert metrics.zooms_towards(metrics.zoom_rate(video[::-1]), -1)
