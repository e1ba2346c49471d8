import numpy as np
import pytest
import torch
from tests.helpers.synthetic_recordings import moving

from reverie.errors import ShapeError
from reverie.evaluate import idm_scorer
from reverie.models.idm import IDMConfig, InverseDynamics
from reverie.types import ActionSpace


@pytest.fixture(scope="module")
def idm() -> InverseDynamics:
    torch.manual_seed(0)
    return InverseDynamics(IDMConfig(action_space=ActionSpace(("forward",)), width=32)).eval()


def test_equal_pictures_are_at_no_distance_and_noise_is_further_than_a_little_noise(idm) -> None:
    video = moving(3, size=(64, 112))
    rng = np.random.default_rng(0)
    noisy = [np.clip(video + rng.normal(0, level, video.shape), 0, 255).astype(np.uint8) for level in (8, 80)]
    assert idm_scorer.image_distance(idm, video, video) == pytest.approx([0, 0, 0], abs=1e-6)
    little, much = (idm_scorer.image_distance(idm, other, video).mean() for other in noisy)
    assert 0 < little < much
    assert idm_scorer.image_distance(idm, video[:1], video[:1]).shape == (1,)
    with pytest.raises(ShapeError):
        idm_scorer.image_distance(idm, video, video[:2])


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    same = rng.normal(size=(4000, 3))
    assert idm_scorer.frechet_distance(same, same) == pytest.approx(0, abs=1e-9)
    assert idm_scorer.frechet_distance(same, same + np.array([3.0, 0, 4.0])) == pytest.approx(25, rel=1e-6)
    # N(0, 1) against N(0, 4) in each of three axes: 3 (1 + 4 - 2 * 2) = 3
    assert idm_scorer.frechet_distance(same, 2 * rng.normal(size=(4000, 3))) == pytest.approx(3, rel=0.1)
    with pytest.raises(ShapeError):
        idm_scorer.frechet_distance(same[:1], same)


def play_distance(idm, videos: list[np.ndarray], real: list[np.ndarray]) -> float:
    """Fréchet distance of the features of all steps of all videos."""
    sides = ([idm_scorer.play_features(idm, video) for video in side] for side in (videos, real))
    return idm_scorer.frechet_distance(*map(np.concatenate, sides))


def test_play_that_moves_is_far_from_play_that_is_frozen(idm) -> None:
    right = [moving(12, 3.0, size=(64, 112)), moving(12, 3.0, zoom=1.02, size=(64, 112))]
    frozen = [np.broadcast_to(video[:1], video.shape) for video in right]
    assert play_distance(idm, right, right) == pytest.approx(0, abs=1e-6)
    faster = [moving(12, 3.4, size=(64, 112)), moving(12, 3.4, zoom=1.02, size=(64, 112))]
    assert play_distance(idm, frozen, right) > play_distance(idm, faster, right) > 0
