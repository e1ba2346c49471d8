"""The KV cache: a ring of the last steps.  That it equals a windowed mask is one of `test_laws.py`."""

from __future__ import annotations

import pytest
import torch

from reverie.nn.cache import KVCache


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_ring_read_by_copies_holds_the_same(step: int, steps: int) -> None:
    ring = KVCache.empty(1, 2, 3, window=4, tokens=5, device=torch.device("cpu"), dtype=torch.float32)
    for _ in range(step):
        ring.commit(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 3))
    k, v = torch.randn(1, 2, 5 * steps, 3), torch.randn(1, 2, 5 * steps, 3)
    before = ring.k.clone()
    joined = ring.joined(k, v)
    assert torch.equal(ring.k, before)
    for mine, read in zip(joined, ring.read(k, v), strict=True):
        assert mine.shape == read.shape
        assert torch.equal(mine.sort(2).values, read.sort(2).values)  # attention does not care about order
