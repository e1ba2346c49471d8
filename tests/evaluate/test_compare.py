import numpy as np
import pytest

from reverie.evaluate.compare import bootstrap, compare


def test_the_interval_of_equal_differences_is_a_point() -> None:
    assert bootstrap([0.5] * 10) == (0.5, 0.5)
    assert bootstrap([0.5]) == (float("-inf"), float("inf"))


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    low, high = bootstrap(values)
    half = 1.96 * 2.0 / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert low < values.mean() < high


def test_verdicts_follow_the_direction_of_the_metric() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, 24)
    ours = [{"psnr_db_4s": 20 + n, "turn_error_deg": 2.0 + n, "mouse": 0.5 + n, "frame_change": 1.0} for n in noise]
    against = [{"psnr_db_4s": 19.0, "turn_error_deg": 1.0, "mouse": 0.5} for _ in noise]
    rows = compare(ours, against)
    assert {name: row["verdict"] for name, row in rows.items()} == {"psnr_db_4s": 1, "turn_error_deg": -1, "mouse": 0}
    assert rows["psnr_db_4s"]["difference"] == pytest.approx(1 + noise.mean())
    assert rows["psnr_db_4s"]["starts"] == 24
