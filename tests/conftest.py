"""Settings that every test shares: small thread counts (the machine's cores are few) and no network."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# before torch is imported: threads that wait must not spin on cores that they share
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# a training command that finds it set does not start itself again, which here would be the tests, ended with 0
os.environ.setdefault("MALLOC_TOP_PAD_", "131072")

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Each test starts from the same torch seed, so that a failure comes back when it is run alone."""
    torch.manual_seed(0)
