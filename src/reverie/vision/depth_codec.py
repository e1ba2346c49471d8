"""Depth images as 8 bits of their logarithm: 3 % steps from 0.08 m to 390 m."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LEVELS_PER_E, ONE_METRE = 30.0, 76.0
"""Levels a factor of e, and the level of one metre."""


def encode_depth(depth: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Metres to levels."""
    levels = np.log(np.maximum(depth.astype(np.float32), 0.05)) * LEVELS_PER_E + ONE_METRE
    return levels.clip(0, 255).round().astype(np.uint8)


def decode_depth(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Levels to metres."""
    return np.exp((levels.astype(np.float32) - ONE_METRE) / LEVELS_PER_E)
