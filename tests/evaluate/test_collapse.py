import dataclasses

import cv2
import numpy as np
import pytest
from tests.helpers.synthetic_recordings import moving

from reverie.errors import DataError
from reverie.evaluate.collapse import SIGNS, Detector, collapse_kind, collapse_of, detectors_of, look, looks
from reverie.evaluate.folds import fold_score, mirror_score, small_grey
from reverie.types import FPS


def fit(clips: list[np.ndarray]) -> Detector:
    return Detector.of([looks(frames, frames[0]) for frames in clips])


def collapsed_at_s(detector: Detector, frames: np.ndarray) -> float | None:
    return collapse_of([detector], looks(frames, frames[0]))


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
    detector = fit(real)
    assert [collapsed_at_s(detector, clip) for clip in real] == [None] * len(real)
    assert looks(real[0]).shape == (4, SIGNS)


@pytest.mark.parametrize("ruin", ["haze", "noise", "black", "colour", "stripes", "edges"])
def test_ruined_pictures_are(real, ruin) -> None:
    detector = fit(real)
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
    assert collapsed_at_s(detector, bad) == 0
    assert collapsed_at_s(detector, np.concatenate([good, bad])) == 4, "where it begins"
    assert collapsed_at_s(detector, np.concatenate([good, bad[:FPS], good])) is None, "one odd second is forgiven"


def test_a_dream_is_not_blamed_for_the_blur_of_its_tokenizer(real) -> None:
    blurred = [clip // 3 + 60 for clip in real]
    detectors = [fit(real), fit(blurred)]
    assert collapsed_at_s(detectors[0], blurred[0]) == 0
    assert collapse_of(detectors, looks(blurred[0], blurred[0][0])) is None
    assert collapse_of(detectors, looks(np.zeros_like(blurred[0]), blurred[0][0])) == 0


def test_a_view_that_the_scene_shows_is_no_other_place(real) -> None:
    """Beside the way that was recorded the game is lit otherwise; a scene that looked round has seen it."""
    beside = np.clip(real[0].astype(np.float32) * 0.5 + [0, 20, 60], 0, 255).astype(np.uint8)
    seen = looks(beside, beside[0])
    real_looks = [looks(clip, clip[0]) for clip in real]
    frames = [real[0][i : i + 1] for i in range(60)] + [beside[i : i + 1] for i in range(60)]
    views = np.stack([look(frame) for frame in frames])
    walked, looked_round = (detectors_of(real_looks, [], [], given) for given in (None, views))
    assert (len(walked), len(looked_round)) == (1, 2)
    assert collapse_kind(walked, seen) == (0.0, "look")
    assert collapse_kind(looked_round, seen) is None
    haze = np.broadcast_to(beside.mean((1, 2), keepdims=True), beside.shape).astype(np.uint8)
    assert collapse_kind(looked_round, looks(haze, beside[0])) is not None, "a ruined one is found all the same"
    assert len(detectors_of(real_looks, [], [], views[:20])) == 1, "too few to tell"


def test_a_short_recording_is_refused(real) -> None:
    with pytest.raises(DataError, match="40 s of real recording, got 4 s"):
        fit(real[:1])


def softened(frames: np.ndarray, times: float) -> np.ndarray:
    """Frames of the same colours, with `times` as much detail."""
    smooth = np.stack([cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 8) for frame in frames])
    return (smooth + times * (frames - smooth)).clip(0, 255).round().astype(np.uint8)


def kind_of(detector: Detector, video: np.ndarray, start: np.ndarray, moved: bool = True) -> str | None:
    found = collapse_kind([detector], looks(video, start, np.full(len(video) // FPS, moved)))
    return None if found is None else found[1]


def crisp(x_px: float, y_px: float) -> np.ndarray:
    """4 s over a texture with as much detail as games have: less is lost in rounding."""
    return np.ascontiguousarray(moving(4 * FPS, 2 * x_px, 2 * y_px, size=(128, 224))[:, ::2, ::2])


@pytest.fixture(scope="module")
def crisp_detector() -> Detector:
    """A detector that has every limit but that of looks, which most of these leave as they are."""
    walks = [crisp(x / 10, 0.1) for x in range(-5, 5)]
    fitted = Detector.of([looks(walk, walk[0], np.ones(4, np.bool_)) for walk in walks])
    detector = dataclasses.replace(fitted, limit=np.inf)
    assert [kind_of(detector, walk, walk[0]) for walk in walks] == [None] * len(walks)
    return detector


def test_worlds_that_fail_and_keep_their_colours_are_found(crisp_detector) -> None:
    detector, good = crisp_detector, crisp(0.2, 0.15)
    for clip in (good, crisp(0.7, -0.3)):
        assert kind_of(detector, clip, clip[0]) is None
    assert kind_of(detector, good[:, ::-1], good[0]) == "mirror", "upside down"
    assert kind_of(detector, good[:, :, ::-1], good[0]) == "mirror"
    folded = good.copy()
    folded[:, 32:] = folded[:, :32][:, ::-1]
    assert kind_of(detector, folded, good[0]) == "fold"
    folded = good.copy()
    folded[:, :, 40:80] = folded[:, :, :40][:, :, ::-1]
    assert kind_of(detector, folded, good[0]) == "fold", "a part of the frame"
    assert kind_of(detector, softened(good, 0.25), good[0]) == "haze"
    assert kind_of(detector, softened(good, 0.7), good[0]) is None, "a little softer is no haze"
    frozen = np.broadcast_to(good[:1], good.shape)
    assert kind_of(detector, frozen, good[0]) == "frozen"
    assert kind_of(detector, frozen, good[0], moved=False) is None, "whoever stands still sees one picture"


def test_haze_must_last_for_four_seconds(crisp_detector) -> None:
    detector, good = crisp_detector, crisp(0.2, 0.15)
    hazy = softened(good, 0.25)
    assert collapsed_at_s(detector, np.concatenate([good, hazy])) == 4
    assert collapsed_at_s(detector, np.concatenate([good, hazy[: 3 * FPS], good])) is None


def test_folds_score_one_at_any_axis_and_real_frames_far_less() -> None:
    frames = moving(30, 1.0, 0.5)[::10]
    assert fold_score(small_grey(frames)).max() < 0.75
    for axis in (16, 28, 36):
        folded = frames.copy()
        width = min(axis * 2, 112 - axis * 2)
        folded[:, :, axis * 2 : axis * 2 + width] = folded[:, :, axis * 2 - width : axis * 2][:, :, ::-1]
        assert fold_score(small_grey(folded)).min() > 0.85, axis


def test_the_start_is_known_mirrored_and_moved() -> None:
    frames = moving(30, 1.0, 0.5)
    start = small_grey(frames[:1])[0]
    moved = frames[[25]]
    assert mirror_score(small_grey(moved), start).max() < 0.75
    assert mirror_score(small_grey(moved[:, :, ::-1]), start).min() > 0.8
    assert mirror_score(small_grey(moved[:, ::-1]), start).min() > 0.8


def test_flat_frames_fold_nowhere() -> None:
    flat = np.full((2, 64, 112, 3), 90, np.uint8)
    assert fold_score(small_grey(flat)).max() < 0.1


def test_a_limit_that_the_game_crosses_itself_is_moved() -> None:
    """A game of mirrored halls: folds are no sign there, and its own walks have not collapsed."""
    halls = []
    for seed in range(12):
        clip = moving(4 * FPS, 0.3 + 0.1 * seed, size=(64, 56))
        halls.append(np.concatenate([clip, clip[:, :, ::-1]], 2))
    detector = fit(halls)
    assert detector.fold > 0.95
    assert [collapsed_at_s(detector, clip) for clip in halls] == [None] * len(halls)
