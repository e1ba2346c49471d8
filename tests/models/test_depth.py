"""The depth network: shapes, refusals, and that it can learn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reverie.errors import ShapeError
from reverie.models.depth import MEAN_LOG_DEPTH, DepthNet


def test_shapes_and_a_sensible_start() -> None:
    torch.manual_seed(0)
    log_depth, body = DepthNet()(torch.rand(2, 3, 64, 112) * 2 - 1)
    assert log_depth.shape == body.shape == (2, 64, 112)
    assert log_depth.dtype == torch.float32
    assert abs(log_depth.mean() - MEAN_LOG_DEPTH) < 1
    half = DepthNet().bfloat16()
    assert half(torch.zeros(1, 3, 16, 24, dtype=torch.bfloat16))[0].dtype == torch.float32


def test_rows_of_a_batch_are_independent() -> None:
    torch.manual_seed(0)
    network, frames = DepthNet(), torch.rand(3, 3, 16, 24) * 2 - 1
    both, alone = network(frames), network(frames[1:2])
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one[1:2], other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 110), (60, 112), (7, 8)])
def test_sizes_that_do_not_halve_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=f"multiples of 8 pixels, got {size[0]}x{size[1]}"):
        DepthNet()(torch.zeros(1, 3, *size))


def test_it_learns_depth_from_place_and_colour() -> None:
    """A floor that is nearer at the bottom, and bright things that are twice as near."""
    torch.manual_seed(0)
    network = DepthNet()
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    losses = []
    for _ in range(25):
        bright = (F.interpolate(torch.rand(2, 1, 4, 6), (16, 24)) > 0.6).float()
        target = 2.5 - torch.linspace(0, 1, 16)[:, None] - 0.7 * bright[:, 0]
        log_depth, body = network((bright * 2 - 1).expand(-1, 3, -1, -1))
        loss = (log_depth - target).abs().mean() + F.binary_cross_entropy_with_logits(body, bright[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
