"""Frames as they travel, the protocol's binary messages.

    offset  0  u8   version          12  u32  action   the latest input that this frame obeys
            1  u8   kind (1: frame)  16  u16  width, u16 height (20: u32 payload bytes)
            2  u8   format           24  f64  sampled_ms, when its input was taken
            3  u8   flags            32  f64  sent_ms, both on the server's clock
            4  u32  epoch            40       payload: a JPEG, or RGB bytes
            8  u32  index

all little-endian.  A frame that shows a game and the dream of it has them side by side, and is twice as wide.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from reverie.errors import ProtocolError

VERSION = 1

_HEADER = struct.Struct("<BBBBIIIHHIdd")


class Kind(IntEnum):
    FRAME = 1


class Format(IntEnum):
    """Encoding of a frame's payload."""

    JPEG = 1
    RGB = 2


class Flags(IntFlag):
    NONE = 0
    FIRST = 1
    """The first frame of an epoch."""
    BLOCK = 2
    """The first frame of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMessage:
    """One frame on the wire; see the module's docstring for the layout."""

    format: Format
    flags: Flags
    epoch: int
    index: int
    action: int
    width: int
    height: int
    sampled_ms: float
    sent_ms: float
    payload: bytes

    def encode(self) -> bytes:
        header = _HEADER.pack(
            VERSION, Kind.FRAME, self.format, self.flags, self.epoch, self.index, self.action,
            self.width, self.height, len(self.payload), self.sampled_ms, self.sent_ms,
        )  # fmt: skip
        return header + self.payload

    @classmethod
    def decode(cls, message: bytes) -> FrameMessage:
        """Raises ProtocolError for another version or kind, or a wrong length."""
        if len(message) < _HEADER.size:
            raise ProtocolError(f"a frame has at least {_HEADER.size} bytes, got {len(message)}")
        fields = _HEADER.unpack_from(message)
        version, kind, fmt, flags, epoch, index, action, width, height, size, sampled_ms, sent_ms = fields
        if version != VERSION or kind != Kind.FRAME:
            raise ProtocolError(f"expected version {VERSION} kind {Kind.FRAME:d}, got version {version} kind {kind}")
        if fmt not in list(Format):
            raise ProtocolError(f"expected a frame format among {[int(f) for f in Format]}, got {fmt}")
        payload = message[_HEADER.size :]
        if len(payload) != size:
            raise ProtocolError(f"the header promises {size} payload bytes, got {len(payload)}")
        return cls(
            format=Format(fmt), flags=Flags(flags), epoch=epoch, index=index, action=action, width=width,
            height=height, sampled_ms=sampled_ms, sent_ms=sent_ms, payload=payload,
        )  # fmt: skip
