"""Arithmetic of a training step, and the rates that follow from it."""

from __future__ import annotations

import pytest
import torch
from tests.helpers.tiny_world import tiny_world
from torch import nn

from reverie.models import presets
from reverie.nn.attention import Visibility, attend_steps
from reverie.train.throughput import FlopCount, Work, peak_flops


def test_arithmetic_is_counted_forward_and_backward() -> None:
    """Also that of our own attention, whose backward is written by hand."""
    x = torch.randn(2, 3, requires_grad=True)
    with FlopCount() as count:
        nn.Linear(3, 4)(x).sum().backward()
    assert count.flops == 3 * 2 * (2 * 3 * 4)

    steps, tokens, d = 3, 16, 8
    q, k, v = (torch.randn(1, 2, steps * tokens, d, requires_grad=True) for _ in range(3))
    pairs = tokens**2 * (1 + 2 + 2)  # of a window of two steps
    with FlopCount() as own:
        attend_steps(q, k, v, Visibility.windowed(steps, 2, 1)).sum().backward()
    assert own.flops == 6 * 2 * (2 * pairs * d)  # two products forward, four backward
    with FlopCount() as fused:
        torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    assert fused.flops == 7 * 2 * (2 * (steps * tokens) ** 2 * d)  # one is made again


def test_masked_attention_counts_as_what_is_seen() -> None:
    """Sixteen tokens a step go step by step; one goes under a mask, written out, and counts as what is computed."""
    visibility, d = Visibility.teacher_forced(6, 3, copies=2), 8
    seen = sum(stop - start for ranges in visibility.ranges for start, stop in ranges)
    for tokens, pairs in ((1, len(visibility) ** 2), (16, seen)):
        q, k, v = (torch.randn(1, 2, len(visibility) * tokens, d, requires_grad=True) for _ in range(3))
        with FlopCount() as count:
            attend_steps(q, k, v, visibility).sum().backward()
        assert count.flops == pytest.approx(6 * 2 * 2 * pairs * tokens**2 * d)


def test_a_world_costs_what_its_layers_say() -> None:
    world, loss_of = tiny_world()
    with FlopCount() as count:
        loss_of().backward()
    config = presets.tiny().world
    matrices = sum(p.numel() for p in world.blocks.parameters() if p.ndim == 2)  # type: ignore[union-attr]
    tokens = 2 * 6 * config.tokens_per_step
    assert 0.5 < count.flops / (6 * tokens * matrices) < 2


def test_rates_are_of_what_is_known() -> None:
    done = Work(tokens=100, flops=2e12, seconds=1) + Work(tokens=100, flops=2e12, seconds=1)
    assert done.rates(peak=4e12) == {"tokens_per_s": 100, "tflops": 2, "mfu": 0.5}
    assert Work(flops=float("nan"), seconds=1).rates(peak=float("nan")) == {}
    assert peak_flops(torch.device("cpu"), torch.float32) > 1e8
