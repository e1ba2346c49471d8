"""Teacher forcing as sampling does it: for every step of a clip at once, the estimate of a noisy step after nearly
clean context.  Shared by the training of worlds and by distillation.

Legend: b batch, t steps of a clip, k noisy copies of it, (c h w) a latent step, a numbers in an action row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import TrainError
from reverie.models.conditioning.next_condition import clip_condition
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.state import Condition, ConditionChannels
from reverie.nn.attention import Visibility
from reverie.sampling import add_noise, clean_estimate
from reverie.types import STEP_FRAMES

OLDEST_STEPS = 100_000
"""Age of the first step up to which training goes: about four hours of play."""

UNKNOWN_KEY = -1.0
"""Value of every key in a hidden action: neither held nor free."""


class Past(NamedTuple):
    """The steps of clips as what came before: z (b, t, c, h, w) themselves, of which conditions are made; seen, the
    same with a little noise, as attention sees them; levels (b, t) of that noise."""

    z: Tensor
    seen: Tensor
    levels: Tensor


def noise_like(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device)


def sink_age(world: WorldModel, generator: torch.Generator) -> int:
    """Draws the extra age of a clip's first step: log-uniform for a model with an attention sink, else 0.

    In play the sink grows as old as the session.
    """
    if not world.config.sink:
        return 0
    share = torch.rand((), generator=generator, device=generator.device).item()
    return int(OLDEST_STEPS**share) - 1


def noised_context(z: Tensor, most: float, generator: torch.Generator) -> Past:
    """Clips (b, t, c, h, w) as context, each step with a little noise, up to `most`."""
    levels = most * torch.rand(z.shape[:2], generator=generator, device=z.device)
    return Past(z, add_noise(z, noise_like(z, generator), levels), levels)


def hidden_rows(rows: Tensor, num_keys: int) -> Tensor:
    """Action rows (b, f, a) of hidden actions."""
    unknown = torch.zeros_like(rows)
    unknown[..., :num_keys] = UNKNOWN_KEY
    return unknown


def given_steps(config: WorldModelConfig) -> int:
    """Steps of a clip that are not the model's to make: the start image's own, unless it makes that too."""
    return 0 if config.generates_start else 1


def check_clip_steps(config: WorldModelConfig, num_steps: int) -> None:
    """Raises TrainError for a clip that is not a number of whole blocks."""
    given, block = given_steps(config), config.block
    if num_steps <= given or (num_steps - given) % block:
        after = " after the first step" if given else ""
        lengths = ", ".join(str(given + block * n) for n in (1, 2, 3, 4, 5))
        raise TrainError(
            f"the model makes blocks of {block} steps{after}, so a clip has {lengths}, ... steps; got {num_steps}"
        )


def start_channels(latents: Tensor, channels: int) -> Tensor:
    """The condition channels (b, t, channels, h, w) of a model that generates its start, as a session gives them: a
    mask, 1 at the start image's own step alone, then `latents` (b, t, c, h, w) of that image and of the grey that
    follows it."""
    b, t, c, h, w = latents.shape
    mask = latents.new_zeros(b, t, channels - c, h, w)
    mask[:, 0] = 1
    return torch.cat([mask, latents], 2)


def clean_estimates(
    world: WorldModel,
    past: Past,
    noisy: Tensor,
    sigma: Tensor,
    rows: Tensor,
    image: Tensor,
    age: int = 0,
    extra: Tensor | None = None,
) -> Tensor:
    """Clean estimates of noisy steps g .. t - 1, given the steps of `past` before the block of each.  g is 0 for a
    model that generates its start, else 1; t - g is a number of whole blocks.

    past: of t steps; noisy: (b, k (t - g), c, h, w), k copies one after another, with levels sigma (b, k (t - g)),
    which a block's steps share; rows: (b, 4 (t - 1), a); image: tokens; age: steps that the first step is older than it
    stands in the clip, for models that keep it for good; extra: what `start_channels` makes, for a model that generates
    its start.  Returns the shape of `noisy`.
    """
    parts = None if extra is None else ConditionChannels(extra)
    cond = clip_condition(world, rows, past.z, image, parts)
    if age:
        cond = replace(cond, time=torch.cat([cond.time[:1] - age, cond.time[1:]]))
    out = teacher_forced(world, cond, past.seen, past.levels, noisy, sigma)
    return clean_estimate(world.config, noisy, out, sigma)


def teacher_forced(
    world: WorldModel,
    cond: Condition,
    seen: Tensor,
    levels: Tensor,
    noisy: Tensor,
    sigma: Tensor,
    step_size: Tensor | None = None,
) -> Tensor:
    """The network's output for noisy copies of a clip's steps, each after its own clean context, in one pass.

    cond: of the t steps; seen: (b, t, c, h, w) context with noise of `levels` (b, t); noisy, sigma: as
    `clean_estimates` takes them; step_size: of all steps that go through the network, those of context first.
    """
    config, t, given = world.config, seen.shape[1], given_steps(world.config)
    copies, clean = noisy.shape[1] // (t - given), t - config.block
    steps = torch.arange(t, device=noisy.device)
    cond = cond.select(torch.cat([steps[:clean], steps[given:].repeat(copies)]))
    visibility = Visibility.teacher_forced(
        t, config.window, given=given, copies=copies, sink=config.sink, block=config.block
    )
    x, s = torch.cat([seen[:, :clean], noisy], 1), torch.cat([levels[:, :clean], sigma], 1)
    return world(x, s, cond, visibility=visibility, step_size=step_size, first=clean)


def count_tokens(world: WorldModel, rows: Tensor) -> int:
    """Tokens of the steps that action rows (b, f, a) lead to, once each."""
    return rows.shape[0] * rows.shape[1] // STEP_FRAMES * world.config.tokens_per_step


class Guided:
    """A frozen model's clean estimates, guided away from its estimates with hidden actions.

    scale: 1 is the model itself; above, actions count for more (classifier-free guidance, arXiv 2207.12598).
    """

    def __init__(self, world: WorldModel, scale: float = 1.0) -> None:
        self.world, self.scale = world, scale

    @torch.no_grad()
    def __call__(self, past: Past, noisy: Tensor, sigma: Tensor, rows: Tensor, image: Tensor) -> Tensor:
        """Estimates clean latents as `clean_estimates` does, with guidance if `scale` is not 1."""
        told = clean_estimates(self.world, past, noisy, sigma, rows, image)
        if self.scale == 1.0:
            return told
        hidden = hidden_rows(rows, len(self.world.config.action_space.keys))
        untold = clean_estimates(self.world, past, noisy, sigma, hidden, image)
        return untold + self.scale * (told - untold)


def follow(
    guided: Guided,
    noise: Tensor,
    sigmas: Sequence[float],
    kept: Sequence[float],
    past: Past,
    rows: Tensor,
    image: Tensor,
) -> list[Tensor]:
    """The straight-path (Euler) solution from noise at `sigmas[0]` down to 0, every step of a clip at once.

    past, rows, image: as `clean_estimates` takes them.  Returns x at the levels `kept`, of `sigmas`, and at 0.
    """
    x, found = noise, []
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        if sigma in kept:
            found.append(x)
        clean = guided(past, x, torch.full(x.shape[:2], sigma, device=x.device), rows, image)
        x = clean + (following / sigma) * (x - clean)
    return [*found, x]
