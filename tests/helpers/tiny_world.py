"""A tiny world whose weights all matter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.models import presets
from reverie.models.dit import WorldModel
from reverie.train.forcing import Past, clean_estimates


def tiny_world(remat: bool = False) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A world with weights that all matter, and a teacher-forced loss of it, the same every time."""
    config = presets.tiny().world
    torch.manual_seed(0)
    world = WorldModel(config)
    for parameter in world.parameters():
        nn.init.normal_(parameter, std=0.1)
    world.remat = remat
    z, noisy = torch.randn(2, 4, *config.latent), torch.randn(2, 3, *config.latent)
    image = torch.randn(2, config.image.tokens, config.image.dim)
    rows = torch.ones(2, 12, config.action_space.size)
    given = (Past(z, z, torch.zeros(2, 4)), noisy, torch.full((2, 3), 0.7), rows, image)
    return world, lambda: clean_estimates(world, *given).square().mean()
