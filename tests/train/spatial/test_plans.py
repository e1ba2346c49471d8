"""Recipes that are named by their budgets."""

from __future__ import annotations

import pytest

from reverie.errors import TrainError
from reverie.train.spatial.plans import (
    cpu_hours,
    gpu_minutes,
    gpu_refining_minutes,
    recipe_named,
)


def test_recipes_are_named_by_their_budgets() -> None:
    assert recipe_named("cpu-12h") == cpu_hours(12)
    assert recipe_named("cpu-90min") == cpu_hours(1.5)
    assert recipe_named("gpu-10min", memory_gib=24, cores=8) == gpu_minutes(10, 24, 8)
    assert recipe_named("gpu-10min", refine=True, cores=4) == gpu_refining_minutes(10, cores=4)
    batches = [gpu_minutes(10, memory).plan.batch for memory in (16, 24, 80)]
    assert batches == sorted(set(batches))
    for name in ("cpu", "gpu-0min", "tpu-3h", "gpu-10", ""):
        with pytest.raises(TrainError, match=r"unknown recipe .* expected cpu-12h, gpu-10min"):
            recipe_named(name)
