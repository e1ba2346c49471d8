"""The map of a page: what the world's memory holds, from above, at most once a second and only when asked for."""

from __future__ import annotations

import base64
import io
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.serve.protocol import MemoryMap
from reverie.types import World

EVERY_S = 1.0
SIZE_PX = 192


@runtime_checkable
class HasMemoryMap(Protocol):
    """A World that can draw its spatial memory."""

    def memory_map(self, size: int = SIZE_PX) -> npt.NDArray[np.uint8] | None:
        """(size, size, 3) RGB, or None for a world without a memory."""
        ...


class MapRequests:
    """Requests of one client; those that come too soon are answered together, when it is time."""

    def __init__(self) -> None:
        self._is_wanted = False
        self._next_s = 0.0

    def ask(self) -> None:
        self._is_wanted = True

    def take(self, now_s: float) -> bool:
        """Returns whether a map is due now, and clears the request if so."""
        if not self._is_wanted or now_s < self._next_s:
            return False
        self._is_wanted, self._next_s = False, now_s + EVERY_S
        return True


def draw_map(world: World) -> MemoryMap:
    """The map of a world as a message, without an image if it has no memory.  On the generation thread."""
    image = world.memory_map(SIZE_PX) if isinstance(world, HasMemoryMap) else None
    if image is None:
        return MemoryMap(None)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return MemoryMap("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
