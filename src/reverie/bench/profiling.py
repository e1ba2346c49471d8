"""Profile of run time by kind of operation: kernels on a GPU, torch's operations on a CPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

KERNELS = (
    ("compiled", r"triton"),
    ("attention", r"flash|fmha|attention|sdpa|\bmha"),
    ("convolutions", r"conv|fprop|wgrad|dgrad|implicit|winograd|im2col"),
    ("matrix products", r"gemm|gemv|nvjet|cutlass|cublas|splitk|xmma"),
    ("copies and casts", r"copy|memcpy|memset|fill|catarray|cat_|transpose"),
    ("norms and softmax", r"norm|softmax"),
    ("element-wise", r"elementwise|vectorized|reduce|index|gather|scatter"),
)
"""Kinds of CUDA kernels, by their names; the first that fits."""

OPERATIONS = (
    ("matrix products", r"::(mm|addmm|bmm|baddbmm|linear|mkldnn_linear|_addmm_activation|matmul)$"),
    ("attention", r"attention"),
    ("convolutions", r"conv"),
    ("compiled", r"graph_|cpp_fused|kernel"),
    ("copies and casts", r"::(copy_|cat|clone|contiguous|_to_copy|fill_|zero_|index|stack)$"),
    ("activations", r"gelu|silu|sigmoid|tanh"),
    ("norms and softmax", r"norm|softmax"),
    ("multiply and add", r"::(mul|mul_|add|add_|sub|div|div_|addcmul|addcmul_|lerp_|pow|sum|mean|rsqrt|neg|_foreach)"),
)
"""Kinds of torch's operations on a CPU, by their names; the first that fits."""


@dataclass(frozen=True, slots=True)
class Share:
    """One kind of operation.  ms: of one run; part: of all that was found, 0..1; calls: in one run."""

    kind: str
    ms: float
    part: float
    calls: float


@dataclass(frozen=True, slots=True)
class Profile:
    """By kind, and the most expensive single ones; both by falling time."""

    kinds: list[Share]
    largest: list[Share]


def profile_of(work: Callable[[], object], device: torch.device, runs: int = 1, largest: int = 12) -> Profile:
    """Run `work` (which is `runs` runs of the measured code) and report its time by operation."""
    is_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if is_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        work()
        if is_gpu:
            torch.cuda.synchronize(device)
    spent: dict[str, tuple[float, int]] = {}
    for event in found.key_averages():
        us = event.self_device_time_total if is_gpu else event.self_cpu_time_total
        if us > 0 and (is_gpu or "::" in event.key or "graph" in event.key or "fused" in event.key):
            spent[event.key] = (us / 1000, event.count)
    total = sum(ms for ms, _ in spent.values()) or 1.0
    rules = [(kind, re.compile(rule, re.IGNORECASE)) for kind, rule in (KERNELS if is_gpu else OPERATIONS)]
    kinds: dict[str, tuple[float, int]] = {}
    for name, (ms, count) in spent.items():
        kind = next((kind for kind, rule in rules if rule.search(name)), "other")
        before = kinds.get(kind, (0.0, 0))
        kinds[kind] = (before[0] + ms, before[1] + count)

    def shares(of: dict[str, tuple[float, int]]) -> list[Share]:
        rows = [Share(n, round(ms / runs, 3), round(ms / total, 4), round(c / runs, 1)) for n, (ms, c) in of.items()]
        return sorted(rows, key=lambda row: -row.ms)

    return Profile(shares(kinds), shares(spent)[:largest])


def profile_lines(found: Profile, width: int = 70) -> list[str]:
    """For people: one line each."""
    lines = [f"{'kind':<{width}} {'ms':>9} {'share':>7} {'calls':>8}"]
    for rows in (found.kinds, found.largest):
        lines += [f"{row.kind[:width]:<{width}} {row.ms:>9.2f} {row.part:>7.1%} {row.calls:>8.0f}" for row in rows]
        lines.append("")
    return lines[:-1]
