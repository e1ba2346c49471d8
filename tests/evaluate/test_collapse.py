import numpy as np
import pytest
from tests.evaluate.synthetic import moving

from reverie.errors import DataError
from reverie.evaluate.collapse import LOOK_SIZE, Detector, collapse_of, looks
from reverie.types import FPS


@pytest.fixture(scope="module")
def real() -> list[np.ndarray]:
    """Walks over a texture in different light: 48 s."""
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(12):
        clip = moving(4 * FPS, *rng.uniform(-1, 1, 2)).astype(np.float32)
        clips.append(np.clip(clip * rng.uniform(0.7, 1.1) + rng.uniform(-10, 10), 0, 255).astype(np.uint8))
    return clips


def test_real_seconds_are_not_collapsed(real) -> None:
    detector = Detector.fit(real)
    assert [detector.collapsed_at_s(clip) for clip in real] == [None] * len(real)
    assert looks(real[0]).shape == (4, LOOK_SIZE)


@pytest.mark.parametrize("ruin", ["haze", "noise", "black", "colour", "stripes", "edges"])
def test_ruined_pictures_are(real, ruin) -> None:
    detector = Detector.fit(real)
    good, rng = real[0], np.random.default_rng(1)
    bad = (
        {
            "haze": np.broadcast_to(good.mean((1, 2), keepdims=True), good.shape),
            "noise": np.clip(good + rng.normal(0, 60, good.shape), 0, 255),
            "black": np.zeros_like(good),
            "stripes": good.mean(2, keepdims=True) + 0 * good,
            "edges": 128 + 2.5 * (good.astype(np.float32) - np.roll(good, 3, 1)),
            "colour": np.stack([np.full(good.shape[:3], 255), good[..., 0], np.zeros(good.shape[:3])], -1),
        }[ruin]
        .clip(0, 255)
        .astype(np.uint8)
    )
    assert detector.collapsed_at_s(bad) == 0
    assert detector.collapsed_at_s(np.concatenate([good, bad])) == 4, "where it begins"
    assert detector.collapsed_at_s(np.concatenate([good, bad[:FPS], good])) is None, "one odd second is forgiven"


def test_a_dream_is_not_blamed_for_the_blur_of_its_tokenizer(real) -> None:
    blurred = [clip // 3 + 60 for clip in real]
    detectors = [Detector.fit(real), Detector.fit(blurred)]
    assert detectors[0].collapsed_at_s(blurred[0]) == 0
    assert collapse_of(detectors, looks(blurred[0])) is None
    assert collapse_of(detectors, looks(np.zeros_like(blurred[0]))) == 0


def test_a_short_recording_is_refused(real) -> None:
    with pytest.raises(DataError, match="40 s of real recording, got 4 s"):
        Detector.fit(real[:1])
