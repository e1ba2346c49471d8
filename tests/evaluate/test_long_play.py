import numpy as np
import pytest
from tests.helpers.synthetic_recordings import moving

from reverie.evaluate import long_play
from reverie.evaluate.collapse import Detector
from reverie.evaluate.long_play import LongResult, ReferenceResult, drift_curves, drift_metrics, split_seconds, watch
from reverie.evaluate.tables import DREAM
from reverie.types import FPS


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    return moving(6 * FPS, x_px=0.7)


def reference(*clips: np.ndarray) -> ReferenceResult:
    return ReferenceResult(watched(*clips).signs)


def watched(*videos: np.ndarray) -> LongResult:
    return watch(split_seconds(videos), None)


def test_a_stream_of_blocks_becomes_seconds(walk: np.ndarray) -> None:
    blocks = [walk[i : i + 4] for i in range(0, len(walk), 4)]
    seconds = list(split_seconds(blocks))
    assert [len(second) for second in seconds] == [FPS] * 6
    assert np.array_equal(np.concatenate(seconds), walk)
    assert len(list(split_seconds([walk[:30]]))) == 1, "what is left is dropped"


def test_drift_of_the_real_thing_is_one_and_fog_shows(walk: np.ndarray) -> None:
    bank, fog = reference(walk), (walk.astype(np.float32) * 0.5 + 60).astype(np.uint8)
    same = drift_metrics([watched(walk)], bank)
    assert same["sharpness_5s"] == pytest.approx(1.0, abs=0.1)
    assert same["contrast_5s"] == pytest.approx(1.0, abs=0.1)
    assert "contrast_20s" not in same, "the run ends before"
    assert drift_metrics([watched(fog)], bank)["contrast_5s"] == pytest.approx(0.5, abs=0.05)
    assert drift_metrics([watched(walk[:1].repeat(125, 0))], bank)["frame_change"] == 0


def test_the_share_that_has_collapsed_grows(walk: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    lit = [np.clip(walk * rng.uniform(0.7, 1.1), 0, 255).astype(np.uint8) for _ in range(8)]
    bank = reference(*lit)
    detector = Detector.of([bank.signs])
    black = np.concatenate([walk[: 3 * FPS], np.zeros_like(walk[: 3 * FPS])])
    runs = [watched(walk), watched(black)]
    assert long_play.collapse_metrics(runs, [detector]) == {"collapsed_5s": 0.5}
    lines = drift_curves({DREAM: runs}, bank, [detector])
    assert lines["collapsed"][DREAM] == [0, 0, 0, 0.5, 0.5, 0.5]
    assert lines["contrast"][DREAM][5] == pytest.approx(lines["contrast"][DREAM][0] / 2, rel=0.1)


def test_standing_still_keeps_the_start_or_not() -> None:
    still = moving(1, 0.0).repeat(150, 0)
    fades = (still * np.linspace(1, 0, 150)[:, None, None, None]).astype(np.uint8)
    bank = reference(still)
    kept, faded = (watch(split_seconds([video]), None, still[0]) for video in (still, fades))
    assert drift_metrics([kept], bank)["kept_5s"] == 60
    assert drift_metrics([faded], bank)["kept_5s"] < 12
    assert "kept_5s" not in drift_metrics([watched(still)], bank)
