"""Walks with a player who is seen: a box that leans to the side whose key is held, and whose colour goes round."""

from __future__ import annotations

import numpy as np

from reverie.scenes.recorded_body import BodyWalk, RecordedBody, record_body
from reverie.vision.projection import VIEW_SIZE

SIZE = (2 * VIEW_SIZE[0], 2 * VIEW_SIZE[1])
KEYS = ("left", "right")
CYCLE = 12
"""Frames after which the colour is the same again."""
CENTRE, LEAN, HALF, TOP, BOTTOM = 56, 20, 6, 30, 54
"""Columns and rows of the box in a view; by how many columns it leans."""


def columns(key: str | None) -> slice:
    """Columns of the body while a key is held."""
    at = CENTRE + {"left": -LEAN, "right": LEAN, None: 0}[key]
    return slice(at - HALF, at + HALF)


def walk(keys: list[str | None], every: int = 24) -> BodyWalk:
    """Each key, or none, held for so many frames; the body leans from the frame on in which the key first shows."""
    held = [key for key in keys for _ in range(every)]
    frames = np.full((len(held), *SIZE, 3), 90, np.uint8)
    body = np.zeros((len(held), *VIEW_SIZE), np.bool_)
    actions = np.zeros((len(held), len(KEYS)), np.float32)
    for i, key in enumerate(held):
        before = held[i - 1] if i else None
        body[i, TOP:BOTTOM, columns(before)] = True
        phase = 2 * np.pi * (i % CYCLE) / CYCLE
        colour = (128 + 100 * np.sin(phase), 128 + 100 * np.cos(phase), 220)
        frames[i][np.kron(body[i], np.ones((2, 2), np.bool_))] = colour
        if key is not None:
            actions[i, KEYS.index(key)] = 1
    poses = np.zeros((len(held), 6), np.float32)
    poses[:, 1] = 0.2 * np.arange(len(held))
    return BodyWalk(frames, body, actions, poses)


def recorded(count: int = 240) -> RecordedBody:
    """The body of three walks."""
    walks = [walk([None, "left", None, "right"], 60), walk(["left", "right", None]), walk([None] * 4)]
    found = record_body(walks, count)
    assert found is not None
    return found
