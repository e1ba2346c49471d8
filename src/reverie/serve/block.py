"""Frames that are ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass

from reverie.serve.host import jpeg
from reverie.serve.protocol import Format
from reverie.types import Frames


@dataclass(frozen=True, slots=True)
class Block:
    """Frames ready to send, encoded, with the input they obey and when it was sampled."""

    payloads: list[bytes]
    width: int
    height: int
    action: int
    sampled_s: float


def make_block(frames: Frames, format: Format, action: int, sampled_s: float) -> Block:
    """Encodes frames (f, H, W, 3).  action: number of the latest input that they obey."""
    payloads = [frame.tobytes() if format is Format.RGB else jpeg(frame) for frame in frames]
    return Block(payloads, frames.shape[2], frames.shape[1], action, sampled_s)
