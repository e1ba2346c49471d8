"""Recordings of a made-up game, as the inverse-dynamics model sees them."""

from __future__ import annotations

import numpy as np

from reverie.train.idm import Looks
from reverie.types import ActionSpace

SPACE = ActionSpace(("left", "right", "jump"))


def made_up(clips: int, seed: int, steps: int = 24) -> Looks:
    """Turning right moves the picture to the left; a jump brightens it two frames later; left and right shear it."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((clips, steps, SPACE.size), np.float32)
    flow = rng.normal(0, 0.2, (clips, steps, 3, 16, 28)).astype(np.float16)
    pictures = rng.integers(90, 110, (clips, steps + 1, 3, 32, 56)).astype(np.uint8)
    for c in range(clips):
        for first in range(0, steps, 6):
            part = slice(first, first + 6)
            yaw, pitch = rng.choice([-3.0, 0.0, 3.0], 2)
            side, jump = rng.integers(3), rng.random() < 0.4
            rows[c, part, 3:] = pitch, yaw
            flow[c, part, 0] -= yaw
            flow[c, part, 1] += pitch
            if side < 2:
                rows[c, part, side] = 1
                flow[c, part, 0, :8] += 4 * (0.5 - side)
                flow[c, part, 0, 8:] -= 4 * (0.5 - side)
            if jump:
                rows[c, part, 2] = 1
                pictures[c, first + 2 : first + 8] += 80
    return Looks(flow, pictures, rows)
