"""Ways in which files are damaged, for property-based tests: cut short, bits flipped, parts moved, lost or doubled."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCALE = int(os.environ.get("REVERIE_FUZZ", "1"))
"""How many times as many examples as usual, drawn anew: `REVERIE_FUZZ=50 pytest tests/data/importers`, by hand."""


def examples(count: int) -> settings:
    """Settings for `count` examples, the same in every run, so that a failure comes back."""
    return settings(
        max_examples=count * SCALE,
        deadline=None,
        derandomize=SCALE == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Damage:
    """A change of bytes.  kind: cut, flip, lose, double, swap or fill; at, other: places as shares of the length."""

    kind: str
    at: float
    other: float
    bit: int

    def apply(self, whole: bytes) -> bytes:
        size = len(whole)
        a = min(int(self.at * size), size - 1)
        b = min(int(self.other * size), size - 1)
        low, high = min(a, b), max(a, b) + 1
        if self.kind == "cut":
            return whole[:a]
        if self.kind == "flip":
            return whole[:a] + bytes([whole[a] ^ (1 << self.bit)]) + whole[a + 1 :]
        if self.kind == "lose":
            return whole[:low] + whole[min(high, low + 40) :]
        if self.kind == "double":
            return whole[:high] + whole[max(low, high - 40) :]
        if self.kind == "swap":
            middle = (low + high) // 2
            return whole[:low] + whole[middle:high] + whole[low:middle] + whole[high:]
        return whole[:low] + b"\0" * (min(high, low + 40) - low) + whole[min(high, low + 40) :]


SHARE = st.floats(0, 1, exclude_max=True)
ANY = st.builds(
    Damage, st.sampled_from(["cut", "flip", "lose", "double", "swap", "fill"]), SHARE, SHARE, st.integers(0, 7)
)
CUT = st.builds(Damage, st.just("cut"), SHARE, SHARE, st.just(0))
FLIP = st.builds(Damage, st.just("flip"), SHARE, SHARE, st.integers(0, 7))
