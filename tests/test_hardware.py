import math
import os

import pytest
import torch

from reverie import hardware


def test_the_machine_can_be_measured() -> None:
    assert hardware.measure_matmul_gflops(torch.float32, torch.device("cpu"), size=64) > 0
    assert hardware.cpu_name()
    assert hardware.rss_mib() > 0
    assert math.isnan(hardware.memory_free_mib()) or hardware.memory_free_mib() <= hardware.memory_total_mib()


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 3), (2.5, 2), (0.5, 1)])
def test_cores_are_cut_to_a_containers_quota(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(hardware, "_cpu_quota", lambda: quota)
    assert hardware.num_cores() == cores
