"""Rate limits of one client: messages, and worlds that are opened."""

from __future__ import annotations


class Allowance:
    """A token bucket: `rate` messages a second, `burst` at once."""

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate, self._burst, self._left, self._at_s = rate, burst, burst, now_s

    def spend(self, now_s: float) -> bool:
        """Take one; False if there is none left."""
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def wait_s(self, now_s: float) -> float:
        """Seconds until `spend` succeeds."""
        left = min(self._burst, self._left + (now_s - self._at_s) * self._rate)
        return max(0.0, (1 - left) / self._rate)
