"""A discriminator of latent steps: what squared error blurs, it asks to be one of the things that could be there.

Relativistic pairs with penalties on both gradients (R3GAN, arXiv 2501.05441): the score of a generated step against
that of the recorded one at the same place.  Patches of a step are judged, given what the network was given.

Legend: b steps, (c u v) a latent step, k channels of its condition, p patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, LEAK)), LEAK))


class Discriminator(nn.Module):
    """Scores (b, p) of latent steps (b, c, u, v), given conditions (b, k, u, v): patches of two sizes."""

    def __init__(self, channels: int, condition: int, width: int = 128) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels + condition, width, 3, padding=1)
        self.fine = _Residual(width)
        self.halve = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.middle = _Residual(2 * width)
        self.halve_again = nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1)
        self.coarse = _Residual(2 * width)
        self.scores = nn.ModuleList(nn.Conv2d(2 * width, 1, 1) for _ in range(2))

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        x = self.fine(self.entry(torch.cat([z, condition], 1)))
        x = self.middle(self.halve(F.leaky_relu(x, LEAK)))
        small = self.scores[0](F.leaky_relu(x, LEAK))
        x = self.coarse(self.halve_again(F.leaky_relu(x, LEAK)))
        return torch.cat([small.flatten(1), self.scores[1](F.leaky_relu(x, LEAK)).flatten(1)], 1)


def discriminator_loss(
    model: Discriminator, real: Tensor, fake: Tensor, condition: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """The loss of the discriminator's own weights, and the mean lead of real over fake (detached).

    real, fake: (b, c, u, v), paired; penalty: of the squared gradients of patch scores at both.
    """
    with torch.autocast(real.device.type, enabled=False):
        both = torch.cat([real.detach().float(), fake.detach().float()]).requires_grad_()
        scores = model(both, torch.cat([condition, condition]).float())
        (slope,) = torch.autograd.grad(scores.sum(), both, create_graph=True)
        steepness = slope.square().sum((1, 2, 3)).mean() / scores.shape[1]
        on_real, on_fake = scores.chunk(2)
        lead = on_real - on_fake
        # both halves in one mean: R1 and R2 together
        return F.softplus(-lead).mean() + penalty * steepness, lead.detach().mean()


def towards_real(model: Discriminator, real: Tensor, fake: Tensor, condition: Tensor) -> Tensor:
    """The gradient at `fake` of the generator's loss: (b, c, u, v), without touching the discriminator's weights."""
    with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
        at = fake.detach().float().requires_grad_()
        condition = condition.detach().float()
        with torch.no_grad():
            on_real = model(real.float(), condition)
        loss = F.softplus(on_real - model(at, condition)).mean()
        (slope,) = torch.autograd.grad(loss, at)
    return slope
