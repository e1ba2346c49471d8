"""Settings that every test of the games shares: no network, and threads that do not spin on shared cores."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch is imported
