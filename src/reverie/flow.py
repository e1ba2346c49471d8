"""Flow matching: noise levels, noise, velocity and clean estimates, and the one sampler.

`x = (1 - sigma) z + sigma eps`, velocity `v = eps - z`.  Engine, evaluation, training and distillation all roll out
with `denoise`; `begin` and `advance` are the loop of a session.  Source: Lipman et al., arXiv 2210.02747.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from reverie.errors import ShapeError
from reverie.models.dit import WorldModel
from reverie.models.schedule import Schedule, shifted
from reverie.models.state import Condition, Level, WorldState

__all__ = [
    "Schedule",
    "add_noise",
    "advance",
    "advance_with",
    "begin",
    "clean_from_velocity",
    "commit",
    "constant_levels",
    "denoise",
    "passes",
    "shifted",
    "show",
    "velocity_from_clean",
]

Levels = Mapping[float, Level]
"""What a model is told of noise levels, by level."""
Passes = Callable[[WorldModel, Condition, Schedule, WorldState, Sequence[Tensor]], Tensor]
"""What `passes` does."""


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
    levels: Levels | None = None,
) -> Tensor:
    """Noise (b, t, c, h, w) -> clean steps of the block after `state`, which is left uncommitted.

    fresh(i): the noise that is added after pass i, for schedules that renoise.  levels: as `constant_levels` gives.
    Gradients, where they are wanted, flow through the last pass only (Self-Forcing, arXiv 2506.08009).
    """
    x = noise
    for i, sigma in enumerate(schedule.sigmas):
        is_last = i + 1 == len(schedule.sigmas)
        with torch.set_grad_enabled(is_last and torch.is_grad_enabled()):
            v = model(x, _told(sigma, x, levels), cond, state)
        clean = clean_from_velocity(x.double(), v.double(), sigma).to(x.dtype)
        if is_last:
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
    model: WorldModel,
    z: Tensor,
    cond: Condition,
    schedule: Schedule,
    state: WorldState,
    eps: Tensor | None,
    levels: Levels | None = None,
) -> None:
    """Let clean steps `z` (b, t, c, h, w) into `state`: for attention noised by `schedule.context_sigma`; the last of
    them as it is, for the condition of the next, where noise would pile up."""
    sigma = schedule.context_sigma
    x = z if eps is None else add_noise(z, eps, sigma)
    model(x, _told(sigma, x, levels), cond, state, commit=True)
    state.last.copy_(z[:, -1])
    state.step += z.shape[1]


def constant_levels(model: WorldModel, schedule: Schedule, state: WorldState) -> Levels | None:
    """What the model is told of each noise level of a block, worked out once; None where actions have a part in it."""
    if model.config.action_modulation:
        return None
    like, cond = state.last[:, None].expand(-1, model.config.block, -1, -1, -1), model.start_condition(state)
    return {sigma: _level_of(model, sigma, like, cond) for sigma in (*schedule.sigmas, schedule.context_sigma)}


def _level_of(model: WorldModel, sigma: float, x: Tensor, cond: Condition) -> Level:
    return model.level(torch.full(x.shape[:2], sigma, device=x.device), cond)


def _told(sigma: float, x: Tensor, levels: Levels | None) -> Tensor | Level:
    return torch.full(x.shape[:2], sigma, device=x.device) if levels is None else levels[sigma]


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
    if state.canvas is not None and model.turned_step is not None:
        state.canvas.copy_(model.turned_step.open(z0[:, -1]))


def show(model: WorldModel, image: Tensor, state: WorldState) -> None:
    """Let `state` know the start picture's tokens, (b, n, image_dim)."""
    for (k, v), (new_k, new_v) in zip(state.image, model.image_keys_values(image), strict=True):
        k.copy_(new_k)
        v.copy_(new_v)


def passes(
    model: WorldModel,
    cond: Condition,
    schedule: Schedule,
    state: WorldState,
    noise: Sequence[Tensor],
    levels: Levels | None = None,
) -> Tensor:
    """All passes over one block: denoise, then commit.  Nothing in it depends on a tensor's content, and shapes are
    those of every block once the window is full: it can be recorded and played again.

    noise: `schedule.num_draws` times (b, block, c, h, w).  Returns clean latents of that shape.
    """
    z = denoise(model, noise[0], cond, schedule, state, lambda i: noise[i + 1], levels)
    commit(model, z, cond, schedule, state, noise[-1] if schedule.context_sigma else None, levels)
    return z


def advance(
    model: WorldModel,
    rows: Tensor,
    schedule: Schedule,
    state: WorldState,
    generator: torch.Generator,
    extra: Tensor | None = None,
    run: Passes = passes,
) -> Tensor:
    """Dream the next block and commit it.

    rows: (b, model.config.block_rows(state.step), a) the actions of its frames.  extra: as `next_condition` takes it.
    run: something faster that does what `passes` does.
    Returns clean latents (b, block, c, h, w).  All noise comes from `generator`, so the same state, actions and
    generator state give the same block.
    """
    like = state.last[:, None].expand(-1, model.config.block, -1, -1, -1)
    return advance_with(model, rows, schedule, state, lambda: _noise_like(like, generator), extra, run)


def advance_with(
    model: WorldModel,
    rows: Tensor,
    schedule: Schedule,
    state: WorldState,
    draw: Callable[[], Tensor],
    extra: Tensor | None = None,
    run: Passes = passes,
) -> Tensor:
    """As `advance`, with noise (b, block, c, h, w) from `draw`: the block's, then that of each pass in turn."""
    expected = (state.rows.shape[0], model.config.block_rows(state.step), model.config.action_space.size)
    if tuple(rows.shape) != expected:
        raise ShapeError(f"a block takes action rows of shape {expected}, got {tuple(rows.shape)}")
    cond = model.placed(model.next_condition(rows, state, extra))
    noise = [draw() for _ in range(schedule.num_draws)]
    z = run(model, cond, schedule, state, noise)
    turned = model._turns(rows)  # pyright: ignore[reportPrivateUsage]
    state.turn += turned[:, -1]
    if state.canvas is not None and cond.canvas is not None:
        state.canvas.copy_(cond.canvas)
    num_kept = state.rows.shape[1]
    before = cond.rows[:, 0, :num_kept]  # what the block's first step saw of the time before the block
    state.rows.copy_(torch.cat([before, rows.to(before)], 1)[:, -num_kept:])
    return z


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
