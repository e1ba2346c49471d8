import numpy as np
import pytest
from tests.helpers.synthetic_recordings import moving

from reverie.errors import ShapeError
from reverie.vision.optical_flow import camera_turn_deg, estimate_flow, expansion


@pytest.mark.parametrize(("x_px", "y_px"), [(2.0, 0.0), (-3.0, 0.0), (0.0, 1.5), (6.0, 0.0), (-9.0, 2.0), (0.4, -0.3)])
def test_a_shift_is_measured(x_px: float, y_px: float) -> None:
    flow = estimate_flow(moving(4, x_px, y_px))
    middle = flow.uv[:, :, 16:-16, 24:-24].flatten(2).median(2).values.mean(0)
    # The window moves right and down, so the picture moves left and up.
    assert middle.tolist() == pytest.approx([-x_px, -y_px], abs=0.25)


def test_flow_on_a_picture_that_is_shrunk_first_is_in_its_own_pixels() -> None:
    flow = estimate_flow(moving(3, 4.0, size=(256, 448)))
    assert flow.uv.shape[-2:] == (128, 224)
    assert float(flow.uv[:, 0].median()) == pytest.approx(-4.0, abs=0.3)


def test_stride_measures_the_same_motion_per_frame() -> None:
    video = moving(5, 1.5)
    assert float(estimate_flow(video, stride=2).uv[:, 0].median()) == pytest.approx(-1.5, abs=0.2)


@pytest.mark.parametrize("zoom", [1.03, 1.01, 0.98])
def test_a_zoom_is_measured(zoom: float) -> None:
    assert expansion(estimate_flow(moving(4, zoom=zoom))) == pytest.approx([zoom - 1] * 3, abs=0.003)


def test_a_zoom_is_measured_while_the_camera_turns() -> None:
    assert expansion(estimate_flow(moving(4, x_px=3.0, zoom=1.02))).mean() == pytest.approx(0.02, abs=0.004)


def test_a_turn_has_the_right_sign_and_size() -> None:
    # Near the middle of a picture 112 px wide with 90 degrees of view, a degree is 56 * pi / 180 = 0.98 px.
    pitch, yaw = camera_turn_deg(estimate_flow(moving(4, x_px=2.0)), fov_deg=90).mean(0)
    assert abs(pitch) < 0.1
    assert 1.3 < yaw < 2.1
    pitch, yaw = camera_turn_deg(estimate_flow(moving(4, y_px=-2.0)), fov_deg=90).mean(0)
    assert pitch > 1.3
    assert abs(yaw) < 0.1


def test_nothing_moves_in_a_frozen_a_flat_and_a_black_video() -> None:
    frozen = np.repeat(moving(1), 4, 0)
    for video in (frozen, np.full_like(frozen, 90), np.zeros_like(frozen)):
        flow = estimate_flow(video)
        assert np.abs(camera_turn_deg(flow, 90)).max() < 1e-3
        assert np.abs(expansion(flow)).max() < 1e-4


def test_flat_regions_do_not_outvote_the_textured_one() -> None:
    video = moving(4, x_px=2.0)
    video[:, :, :72] = 60
    assert camera_turn_deg(estimate_flow(video), fov_deg=90)[:, 1].mean() > 1.0


def test_a_part_that_moves_on_its_own_is_outvoted() -> None:
    video = moving(4, zoom=1.02)
    video[:, 20:44, 40:72] = moving(4, x_px=5.0)[:, 20:44, 40:72]
    assert expansion(estimate_flow(video)).mean() == pytest.approx(0.02, abs=0.006)


def test_noise_shows_no_steady_motion() -> None:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (12, 64, 112, 3), dtype=np.uint8)
    flow = estimate_flow(video)
    assert abs(camera_turn_deg(flow, 90).mean(0)).max() < 0.3


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (4, 64, 64), (4, 64, 64, 1)])
def test_what_is_no_video_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="motion needs frames"):
        estimate_flow(np.zeros(shape, np.uint8))
