"""Ways in which files are damaged, for property-based tests: cut short, bits flipped, parts moved, lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
"""The same examples in every run: a failure comes back.  For more, `settings(QUICK, max_examples=5000)`."""


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


def lines_of(change: Callable[[list[bytes]], list[bytes]], whole: bytes) -> bytes:
    """`whole` with its lines changed."""
    return b"".join(change(whole.splitlines(keepends=True)))
