"""The messages of `shim/protocol.h`, which defines them.  Everything in the machine's byte order."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError

MAGIC = 0x4C4F434B
VERSION = 3
MAX_EVENTS = 32

FLAG_MATRICES = 1
FLAG_PRESENT = 2

ACTION_BLIND = 1
ACTION_DEPTH = 2

KEY, BUTTON, POINTER = range(3)

SHARED = struct.Struct("=12I")
HELLO = struct.Struct("=4I")
FRAME = struct.Struct("=4Iq2I32f")
ACTION = struct.Struct(f"=2I2iq2I{3 * MAX_EVENTS}I")
PIXELS_OFFSET = 64

Matrix = npt.NDArray[np.float32]
Event = tuple[int, int, int]
"""(KEY, keysym, down), (BUTTON, number, down) or (POINTER, x, y)."""


class FrameMessage(NamedTuple):
    """Camera data of one frame from the shim.  The matrices are `(4, 4)` for column vectors; None without a camera."""

    number: int
    window: tuple[int, int]
    time_ns: int
    modelview: Matrix | None
    projection: Matrix | None


def depth_offset(size: tuple[int, int]) -> int:
    """Bytes from the start of the shared memory to the depth buffer, behind a frame of `size` (width, height)."""
    return (PIXELS_OFFSET + 3 * size[0] * size[1] + 63) // 64 * 64


def pack_shared(render_size: tuple[int, int], size: tuple[int, int], flags: int) -> bytes:
    """The head of the shared memory; sizes are (width, height)."""
    offsets = (PIXELS_OFFSET, depth_offset(size))
    return SHARED.pack(MAGIC, VERSION, *render_size, *size, flags, *offsets, 0, 0, 0)


def check_hello(message: bytes) -> int:
    """The process id of the game.  Raises WorldError if another protocol is spoken."""
    if len(message) != HELLO.size:
        raise WorldError(f"the game's shim said hello in {len(message)} bytes, expected {HELLO.size}; rebuild the shim")
    magic, version, pid, _ = HELLO.unpack(message)
    if (magic, version) != (MAGIC, VERSION):
        raise WorldError(f"the game's shim speaks protocol {magic:#x}/{version}, expected {MAGIC:#x}/{VERSION}")
    return pid


def unpack_frame(message: bytes) -> FrameMessage:
    """Raises WorldError for a malformed message."""
    if len(message) != FRAME.size:
        raise WorldError(f"a frame's message of the game has {len(message)} bytes, expected {FRAME.size}")
    magic, number, width, height, time_ns, has_camera, _, *floats = FRAME.unpack(message)
    if magic != MAGIC:
        raise WorldError(f"a frame's message of the game has magic {magic:#x}, expected {MAGIC:#x}")
    if not has_camera:
        return FrameMessage(number, (width, height), time_ns, None, None)
    modelview, projection = np.array(floats, np.float32).reshape(2, 4, 4).transpose(0, 2, 1)
    return FrameMessage(number, (width, height), time_ns, modelview, projection)


def pack_action(events: Sequence[Event], mouse_px: tuple[int, int], step_ns: int, flags: int = 0) -> bytes:
    """Raises WorldError for more events than a message holds."""
    if len(events) > MAX_EVENTS:
        raise WorldError(f"at most {MAX_EVENTS} keys and buttons can change in a frame, got {len(events)}")
    flat = [number for event in events for number in event]
    flat += [0] * (3 * MAX_EVENTS - len(flat))
    return ACTION.pack(MAGIC, len(events), *mouse_px, step_ns, flags, 0, *flat)


@lru_cache(maxsize=256)
def keysym(name: str) -> int:
    """The number of an X11 key name such as `w`, `Up`, `space`, `Shift_L`.  Raises WorldError for an unknown one."""
    number = _x11().XStringToKeysym(name.encode())
    if not number:
        raise WorldError(f"unknown X11 key name {name!r}; names are like w, Up, space, Shift_L")
    return number


@lru_cache(maxsize=1)
def _x11() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libX11.so.6")
    except OSError as error:
        raise WorldError("libX11.so.6 is not installed; sudo apt install libx11-6") from error
    library.XStringToKeysym.restype = ctypes.c_ulong
    library.XStringToKeysym.argtypes = [ctypes.c_char_p]
    return library
