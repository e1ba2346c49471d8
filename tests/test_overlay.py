"""Keys drawn under frames, and contact sheets."""

from __future__ import annotations

import numpy as np

from reverie.engine.media.render import sheet_frames
from reverie.overlay import add_keys, contact_sheet, strip_height
from reverie.types import Action, ActionSpace


def test_keys_light_up() -> None:
    space = ActionSpace(("forward", "back", "left", "right"))
    frame = np.zeros((128, 224, 3), np.uint8)
    idle = add_keys(frame, Action(), space)
    held = add_keys(frame, Action(frozenset({"forward"}), (0.0, 4.0)), space)
    assert idle.shape == held.shape == (128 + strip_height(224), 224, 3)
    assert held.shape[0] % 2 == 0
    assert not idle[:128].any()
    changed = (idle != held).any(axis=(0, 2))
    assert changed[:50].any()
    assert not changed[85:195].any()  # a long word has a wide key
    assert changed[205:].any()


def test_sheets_have_a_place_for_every_picture() -> None:
    assert sheet_frames(51) == [0, 25, 50]
    assert len(sheet_frames(100_000)) <= 24
    pictures = [np.full((32, 64, 3), 50 * i, np.uint8) for i in range(5)]
    sheet = np.asarray(contact_sheet(pictures, ["a very long caption indeed"] * 5))
    for i in range(1, 5):
        assert (sheet == 50 * i).all(axis=2).sum() >= 32 * 64
