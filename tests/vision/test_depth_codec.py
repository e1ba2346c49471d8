"""Depth as bytes."""

from __future__ import annotations

import math

import torch

from reverie.vision.depth_codec import decode_depth, encode_depth


def test_depth_as_bytes_is_within_two_percent() -> None:
    metres = torch.logspace(math.log10(0.085), math.log10(350), 500).numpy()
    levels = encode_depth(metres)
    assert levels.dtype == "uint8"
    assert abs(decode_depth(levels) / metres - 1).max() < 0.018
    assert (encode_depth(decode_depth(levels)) == levels).all()
    assert encode_depth(metres[:1] * 0)[0] < encode_depth(metres[:1])[0]  # nothing is nearer than the nearest
    assert encode_depth(metres[-1:] * 1e6)[0] == 255
