"""Grouping of players' blocks into batches: pure arithmetic on times that the caller passes in.

A block is begun at the last moment at which its frames still arrive in time (`reverie.engine.sessions.pace`), because
it then answers the newest input.  Blocks that would become due while the first is being made would have to wait for
it: they join it.  Those that come later join the next batch.
"""

from __future__ import annotations

from collections.abc import Sequence

_SMOOTHING = 0.125


def gather(begin_by_s: Sequence[float], now_s: float, cost_s: float, limit: int) -> list[int]:
    """Indices of the blocks that are made now, the most urgent first; none while no block is due.

    begin_by_s: when each block has to be begun; cost_s: how long a batch takes; limit: blocks of a batch.
    """
    if not begin_by_s or min(begin_by_s) > now_s:
        return []
    joining = [i for i, begin_s in enumerate(begin_by_s) if begin_s <= now_s + cost_s]
    return sorted(joining, key=lambda i: begin_by_s[i])[:limit]


def learn(cost_s: float, took_s: float) -> float:
    """The expected cost of a batch after one that took `took_s`."""
    return cost_s + _SMOOTHING * (took_s - cost_s)
