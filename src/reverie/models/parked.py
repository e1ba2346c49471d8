"""Networks that are needed for a moment now and then: read when they are called, forgotten when they are done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Parked:
    """A network on the disk.  read: makes it, ready to be called."""

    read: Callable[[], nn.Module]

    def __call__(self, x: Tensor) -> Tensor:
        return self.read()(x)
