import numpy as np
import pytest
from tests.evaluate.synthetic import moving

from reverie.evaluate import long
from reverie.evaluate.collapse import Detector
from reverie.evaluate.store import Unit
from reverie.evaluate.summary import curves
from reverie.evaluate.tables import DREAM
from reverie.types import FPS


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    return moving(6 * FPS, x_px=0.7)


def watched(*videos: np.ndarray) -> Unit:
    return long.watch(long.seconds_of(videos), None)


def test_a_stream_of_blocks_becomes_seconds(walk: np.ndarray) -> None:
    blocks = [walk[i : i + 4] for i in range(0, len(walk), 4)]
    seconds = list(long.seconds_of(blocks))
    assert [len(second) for second in seconds] == [FPS] * 6
    assert np.array_equal(np.concatenate(seconds), walk)
    assert len(list(long.seconds_of([walk[:30]]))) == 1, "what is left is dropped"


def test_drift_of_the_real_thing_is_one_and_fog_shows(walk: np.ndarray) -> None:
    bank, fog = watched(walk), (walk.astype(np.float32) * 0.5 + 60).astype(np.uint8)
    same = long.drift_figures([watched(walk)], bank, None)
    assert same["sharpness_5s"] == pytest.approx(1.0, abs=0.1)
    assert same["contrast_5s"] == pytest.approx(1.0, abs=0.1)
    assert "contrast_20s" not in same, "the run ends before"
    assert long.drift_figures([watched(fog)], bank, None)["contrast_5s"] == pytest.approx(0.5, abs=0.05)
    assert long.drift_figures([watched(walk[:1].repeat(125, 0))], bank, None)["frame_change"] == 0


def test_the_share_that_has_collapsed_grows(walk: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    lit = [np.clip(walk * rng.uniform(0.7, 1.1), 0, 255).astype(np.uint8) for _ in range(8)]
    bank = watched(*lit)
    detector = Detector.of([bank.arrays["looks"]])
    black = np.concatenate([walk[: 3 * FPS], np.zeros_like(walk[: 3 * FPS])])
    runs = [watched(walk), watched(black)]
    assert long.collapse_figures(runs, [detector]) == {"collapsed_5s": 0.5}
    lines = curves({DREAM: runs}, bank, [detector])
    assert lines["collapsed"][DREAM] == [0, 0, 0, 0.5, 0.5, 0.5]
    assert lines["contrast"][DREAM][5] == pytest.approx(lines["contrast"][DREAM][0] / 2, rel=0.1)


def test_standing_still_keeps_the_start_or_not() -> None:
    still = moving(1, 0.0).repeat(150, 0)
    fades = (still * np.linspace(1, 0, 150)[:, None, None, None]).astype(np.uint8)
    bank = watched(still)
    kept, faded = (long.watch(long.seconds_of([video]), None, still[0]) for video in (still, fades))
    assert long.drift_figures([kept], bank, None)["kept_5s"] == 60
    assert long.drift_figures([faded], bank, None)["kept_5s"] < 12
    assert "kept_5s" not in long.drift_figures([bank], bank, None)
