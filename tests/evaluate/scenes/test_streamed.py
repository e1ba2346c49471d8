"""Streamed against whole, past the window."""

from __future__ import annotations

import numpy as np
import pytest

from reverie.engine.engine import Engine
from reverie.evaluate.scenes.streamed import MORE_STEPS, streaming_differences
from reverie.evaluate.scenes.walks import Place


def test_streamed_equals_whole_past_the_window_and_a_broken_law_is_seen(
    engine: Engine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = place.walks[0]
    steps = engine.bundle.config.world.window + MORE_STEPS
    actions = place.play_actions(0, 4 * steps)
    frames = np.concatenate([walk.clip.frames] * 2)[: 4 * steps + 1]
    found = streaming_differences(engine, frames, actions, place.scene, walk.poses[0])
    assert max(found.values()) < 1e-3
    true = engine.bundle.model.forward
    monkeypatch.setattr(engine.bundle.model, "forward", lambda x, *a, **k: true(x, *a, **k) + 0.1 * (x.shape[1] == 1))
    assert streaming_differences(engine, frames, actions)["network"] > 0.05
