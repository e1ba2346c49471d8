"""Flow matching: noise levels, noise, velocity and clean estimates, and the one sampler.

`x = (1 - sigma) z + sigma eps`, velocity `v = eps - z`.  Engine, evaluation, training and distillation all roll out
with `denoise`; `begin` and `advance` are the loop of a session.  Source: Lipman et al., arXiv 2210.02747.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reverie.errors import ShapeError
from reverie.models.dit import WorldModel
from reverie.models.schedule import Schedule, shifted
from reverie.models.state import Condition, WorldState

__all__ = [
    "Schedule",
    "add_noise",
    "advance",
    "advance_with",
    "begin",
    "clean_from_velocity",
    "commit",
    "denoise",
    "shifted",
    "show",
    "velocity_from_clean",
]


def add_noise(z: Tensor, eps: Tensor, sigma: Tensor | float) -> Tensor:
    """Clean (b, t, c, h, w) -> noisy; sigma: (b, t) or a number."""
    level = _level(sigma, z)
    return (1 - level) * z + level * eps


def clean_from_velocity(x: Tensor, v: Tensor, sigma: Tensor | float) -> Tensor:
    """The clean estimate `x - sigma v`."""
    return x - _level(sigma, x) * v


def velocity_from_clean(x: Tensor, z: Tensor, sigma: Tensor | float) -> Tensor:
    """The velocity that leads from `x` to `z`; sigma above 0."""
    return (x - z) / _level(sigma, x)


def _level(sigma: Tensor | float, like: Tensor) -> Tensor | float:
    return sigma if not isinstance(sigma, Tensor) else sigma[..., None, None, None].to(like.dtype)


def denoise(
    model: WorldModel,
    noise: Tensor,
    cond: Condition,
    schedule: Schedule,
    state: WorldState | None = None,
    fresh: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Noise (b, t, c, h, w) -> clean steps of the block after `state`, which is left uncommitted.

    fresh(i): the noise that is added after pass i, for schedules that renoise.
    """
    x = noise
    for i, sigma in enumerate(schedule.sigmas):
        levels = torch.full(x.shape[:2], sigma, device=x.device)
        v = model(x, levels, cond, state)
        clean = clean_from_velocity(x.double(), v.double(), sigma).to(x.dtype)
        if i + 1 == len(schedule.sigmas):
            return clean
        following = schedule.sigmas[i + 1]
        if schedule.renoise:
            if fresh is None:
                raise ShapeError("a schedule that renoises needs a source of fresh noise")
            x = add_noise(clean, fresh(i), following)
        else:
            x = x + (following - sigma) * v
    raise AssertionError(schedule)


def commit(
    model: WorldModel, z: Tensor, cond: Condition, schedule: Schedule, state: WorldState, eps: Tensor | None
) -> None:
    """Let clean steps `z` (b, t, c, h, w) into `state` as context, noised by `schedule.context_sigma`."""
    sigma = schedule.context_sigma
    x = z if eps is None else add_noise(z, eps, sigma)
    model(x, torch.full(z.shape[:2], sigma, device=z.device), cond, state, commit=True)
    state.last.copy_(x[:, -1])
    state.step += z.shape[1]


def begin(
    model: WorldModel, z0: Tensor, image: Tensor, schedule: Schedule, state: WorldState, generator: torch.Generator
) -> None:
    """Open a world on a picture: `state` is reset, and the picture becomes step 0, or that is left to the model.

    z0: (b, 1, c, h, w) the picture's latent; image: (b, n, image_dim) its tokens.
    """
    state.reset()
    show(model, image, state)
    if not model.config.generates_start:
        commit(model, z0, model.start_condition(state), schedule, state, _noise_like(z0, generator))


def show(model: WorldModel, image: Tensor, state: WorldState) -> None:
    """Let `state` know the start picture's tokens, (b, n, image_dim)."""
    for (k, v), (new_k, new_v) in zip(state.image, model.image_keys_values(image), strict=True):
        k.copy_(new_k)
        v.copy_(new_v)


def advance(
    model: WorldModel,
    rows: Tensor,
    schedule: Schedule,
    state: WorldState,
    generator: torch.Generator,
    extra: Tensor | None = None,
) -> Tensor:
    """Dream the next block and commit it.

    rows: (b, model.config.block_rows(state.step), a) the actions of its frames.  extra: as `next_condition` takes it.
    Returns clean latents (b, block, c, h, w).  All noise comes from `generator`, so the same state, actions and
    generator state give the same block.
    """
    like = state.last[:, None].expand(-1, model.config.block, -1, -1, -1)
    return advance_with(model, rows, schedule, state, lambda: _noise_like(like, generator), extra)


def advance_with(
    model: WorldModel,
    rows: Tensor,
    schedule: Schedule,
    state: WorldState,
    draw: Callable[[], Tensor],
    extra: Tensor | None = None,
) -> Tensor:
    """As `advance`, with noise (b, block, c, h, w) from `draw`: the block's, then that of each pass in turn."""
    expected = (state.rows.shape[0], model.config.block_rows(state.step), model.config.action_space.size)
    if tuple(rows.shape) != expected:
        raise ShapeError(f"a block takes action rows of shape {expected}, got {tuple(rows.shape)}")
    cond = model.next_condition(rows, state, extra)
    z = denoise(model, draw(), cond, schedule, state, lambda _: draw())
    commit(model, z, cond, schedule, state, draw() if schedule.context_sigma else None)
    turned = model._turns(rows)  # pyright: ignore[reportPrivateUsage]
    state.turn += turned[:, -1]
    num_kept = state.rows.shape[1]
    before = cond.rows[:, 0, :num_kept]  # what the block's first step saw of the time before the block
    state.rows.copy_(torch.cat([before, rows.to(before)], 1)[:, -num_kept:])
    return z


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
