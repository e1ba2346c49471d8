"""Settings of a training that cannot be are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers.line_task import config

from reverie.errors import TrainError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "above zero"),
        ({"accumulate": 0}, "at least 1"),
        ({"ema": 1.0}, "0 <= ema < 1"),
        ({"lr": 0.0}, "lr > 0"),
    ],
)
def test_odd_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        config(tmp_path, **changes)
