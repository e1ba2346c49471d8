"""Who is in a batch."""

from __future__ import annotations

import pytest

from reverie.engine.sessions.gather import gather, learn


def test_nobody_is_due() -> None:
    assert gather([], 1.0, 0.1, 4) == []
    assert gather([1.2, 1.1], 1.0, 0.5, 4) == []


def test_those_that_would_have_to_wait_join() -> None:
    assert gather([1.0, 1.09, 1.11, 0.9], 1.0, 0.1, 4) == [3, 0, 1]


def test_a_full_batch_takes_the_most_urgent() -> None:
    assert gather([1.0, 0.8, 0.9], 1.0, 0.1, 2) == [1, 2]


def test_the_cost_follows_what_batches_take() -> None:
    cost_s = 0.0
    for _ in range(60):
        cost_s = learn(cost_s, 0.2)
    assert cost_s == pytest.approx(0.2, abs=1e-3)
