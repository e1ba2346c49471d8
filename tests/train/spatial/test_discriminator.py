"""The discriminator tells steps apart, and its pull makes steps that it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie.train.spatial.discriminator import Discriminator, discriminator_loss, towards_real


@pytest.fixture
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(4, 6, width=16)


def steps(count: int, sharp: bool, generator: torch.Generator) -> Tensor:
    """Latent steps with stripes of either sign, or what is between them."""
    sign = torch.randint(0, 2, (count, 1, 1, 1), generator=generator).float() * 2 - 1
    stripes = torch.arange(8).remainder(2).float().mul(2).sub(1).expand(count, 4, 8, 8)
    return stripes * (sign if sharp else 0.05 * sign) + 0.1 * torch.randn(count, 4, 8, 8, generator=generator)


def test_it_learns_to_tell_recorded_steps_from_means(discriminator: Discriminator) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3)
    condition = torch.zeros(16, 6, 8, 8)
    leads = []
    for _ in range(60):
        real, fake = steps(16, True, generator), steps(16, False, generator)
        loss, lead = discriminator_loss(discriminator, real, fake, condition, 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        leads.append(lead.item())
    assert abs(leads[0]) < 0.1
    assert leads[-1] > 1.0
    fake = steps(16, False, generator)
    slope = towards_real(discriminator, steps(16, True, generator), fake, condition)
    with torch.no_grad():
        before = discriminator(fake, condition).mean()
        after = discriminator(fake - slope / slope.norm() * 4.0, condition).mean()
    assert after > before, "downhill is towards the recorded ones"


def test_the_pull_leaves_the_discriminators_weights_alone(discriminator: Discriminator) -> None:
    z, condition = torch.randn(3, 4, 8, 12), torch.randn(3, 6, 8, 12)
    slope = towards_real(discriminator, z, z + 0.1, condition)
    assert slope.shape == z.shape
    assert all(weight.grad is None for weight in discriminator.parameters())
    loss, _ = discriminator_loss(discriminator, z, z + 0.1, condition, 1.0)
    loss.backward()
    assert all(weight.grad is not None for weight in discriminator.parameters())


def test_its_loss_reaches_no_network_before_it(discriminator: Discriminator) -> None:
    fake = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss, _ = discriminator_loss(discriminator, torch.randn(2, 4, 8, 8), fake, torch.zeros(2, 6, 8, 8), 1.0)
    loss.backward()
    assert fake.grad is None
