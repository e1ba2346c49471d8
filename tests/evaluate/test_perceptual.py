import numpy as np
import pytest
import torch
from tests.helpers.synthetic_recordings import moving

from reverie.evaluate import perceptual
from reverie.evaluate.perceptual import BACKBONE, open_lpips


@pytest.fixture
def cache(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_nothing_is_opened_without_the_weights_or_the_packages(cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "PACKAGES", ("json",))
    assert open_lpips() is None
    (cache / BACKBONE).write_bytes(b"weights")
    monkeypatch.setattr(perceptual, "PACKAGES", ("json", "no_such_package"))
    assert open_lpips() is None


def test_frames_reach_the_network_in_its_range() -> None:
    seen = []

    def network(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        seen.extend((first, second))
        return (first - second).abs().mean()

    black, white = np.zeros((2, 4, 6, 3), np.uint8), np.full((2, 4, 6, 3), 255, np.uint8)
    assert perceptual.LPIPS(network, "").distance(black, white) == 2
    assert [tuple(x.shape) for x in seen] == [(2, 3, 4, 6)] * 2


def test_the_distance_grows_with_noise(cache) -> None:
    """On an AlexNet of random weights in place of the published ones, which are no part of the package."""
    pytest.importorskip("torchmetrics")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    torch.save(models.alexnet(weights=None).state_dict(), cache / BACKBONE)
    lpips = open_lpips()
    assert lpips is not None
    assert len(lpips.fingerprint) == 12
    video = moving(4, size=(64, 112))
    rng = np.random.default_rng(0)
    noisy = [np.clip(video + rng.normal(0, level, video.shape), 0, 255).astype(np.uint8) for level in (8, 80)]
    assert lpips.distance(video, video) == pytest.approx(0, abs=1e-6)
    assert 0 < lpips.distance(noisy[0], video) < lpips.distance(noisy[1], video)
