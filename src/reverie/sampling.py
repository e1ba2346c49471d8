"""Flow matching: noise levels, noise, velocity and clean estimates, and the one sampler.

`x = (1 - sigma) z + sigma eps`, velocity `v = eps - z`.  Engine, evaluation, training and distillation all roll out
with `denoise`; `begin` and `advance` are the loop of a session, `play_block` the same with frames and spatial memory.
Source: Lipman et al., arXiv 2210.02747; step sizes: Dreamer 4, arXiv 2509.24527.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from reverie.errors import ShapeError
from reverie.models.conditioning.next_condition import next_condition, start_condition
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.schedule import Schedule, shifted
from reverie.models.state import Condition, ConditionChannels, TimestepEmbedding, WorldState
from reverie.nn.precision import exact

__all__ = [
    "Schedule",
    "add_noise",
    "advance",
    "advance_with",
    "begin",
    "clean_from_velocity",
    "commit",
    "constant_embeddings",
    "denoise",
    "known_passes",
    "noise_like",
    "passes",
    "shifted",
    "show",
    "velocity_from_clean",
]

Embeddings = Mapping[float, TimestepEmbedding]
"""Embedded noise levels, by level."""
Passes = Callable[[WorldModel, Condition, Schedule, WorldState, Sequence[Tensor]], Tensor]
"""Signature of `passes`."""


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


def clean_estimate(config: WorldModelConfig, x: Tensor, out: Tensor, sigma: Tensor | float) -> Tensor:
    """The clean latent that a network's output `out` means for noisy `x`."""
    if config.predicts == "clean":
        return out
    return clean_from_velocity(exact(x), exact(out), sigma).to(x.dtype)


def velocity_estimate(config: WorldModelConfig, x: Tensor, out: Tensor, sigma: Tensor | float) -> Tensor:
    """The velocity that a network's output `out` means for noisy `x`; noise levels below 0.02 count as 0.02."""
    if config.predicts == "velocity":
        return out
    sigma = sigma.clamp(min=0.02) if isinstance(sigma, Tensor) else max(sigma, 0.02)
    return velocity_from_clean(x, out, sigma)


def _level(sigma: Tensor | float, like: Tensor) -> Tensor | float:
    return sigma if not isinstance(sigma, Tensor) else sigma[..., None, None, None].to(like.dtype)


def denoise(
    model: WorldModel,
    noise: Tensor,
    cond: Condition,
    schedule: Schedule,
    state: WorldState | None = None,
    fresh: Callable[[int], Tensor] | None = None,
    levels: Embeddings | None = None,
) -> Tensor:
    """Noise (b, t, c, h, w) -> clean steps of the block after `state`, which is left uncommitted.

    fresh(i): the noise that is added after pass i, for schedules that renoise.  levels: as `constant_embeddings` gives.
    Gradients, where they are wanted, flow through the last pass only (Self-Forcing, arXiv 2506.08009).
    """
    x = noise
    step_size = None
    if model.config.step_sizes and not schedule.renoise:
        step_size = torch.full(x.shape[:2], 1 / len(schedule.sigmas), device=x.device)
    for i, sigma in enumerate(schedule.sigmas):
        is_last = i + 1 == len(schedule.sigmas)
        with torch.set_grad_enabled(is_last and torch.is_grad_enabled()):
            out = model(x, _embedded(sigma, x, levels), cond, state, step_size=step_size)
        clean = clean_estimate(model.config, x, out, sigma)
        if is_last:
            return clean
        following = schedule.sigmas[i + 1]
        if schedule.renoise:
            if fresh is None:
                raise ShapeError("a schedule that renoises needs a source of fresh noise")
            x = add_noise(clean, fresh(i), following)
        else:
            x = x + (following - sigma) * velocity_estimate(model.config, x, out, sigma)
    raise AssertionError(schedule)


def commit(
    model: WorldModel,
    z: Tensor,
    cond: Condition,
    schedule: Schedule,
    state: WorldState,
    eps: Tensor | None,
    levels: Embeddings | None = None,
) -> None:
    """Let clean steps `z` (b, t, c, h, w) into `state`: for attention noised by `schedule.context_sigma`; the last of
    them as it is, for the condition of the next, where noise would pile up."""
    sigma = schedule.context_sigma
    x = z if eps is None else add_noise(z, eps, sigma)
    model(x, _embedded(sigma, x, levels), cond, state, commit=True, first=x.shape[1])  # nothing is asked of it
    state.last.copy_(z[:, -1])
    state.step += z.shape[1]


def constant_embeddings(model: WorldModel, schedule: Schedule, state: WorldState) -> Embeddings | None:
    """Computes the network's timestep embedding of each noise level of a block once; None where actions have a part in
    it."""
    if model.config.actions.modulation:
        return None
    like, cond = state.last[:, None].expand(-1, model.config.block, -1, -1, -1), start_condition(model, state)
    return {sigma: _embed(model, sigma, like, cond) for sigma in (*schedule.sigmas, schedule.context_sigma)}


def _embed(model: WorldModel, sigma: float, x: Tensor, cond: Condition) -> TimestepEmbedding:
    return model.embed_sigma(torch.full(x.shape[:2], sigma, device=x.device), cond)


def _embedded(sigma: float, x: Tensor, levels: Embeddings | None) -> Tensor | TimestepEmbedding:
    return torch.full(x.shape[:2], sigma, device=x.device) if levels is None else levels[sigma]


def begin(
    model: WorldModel, z0: Tensor, image: Tensor, schedule: Schedule, state: WorldState, generator: torch.Generator
) -> None:
    """Open a world on an image: `state` is reset, and the image becomes step 0, or that is left to the model.

    z0: (b, 1, c, h, w) the image's latent; image: (b, n, image.dim) its tokens.
    """
    state.reset()
    show(model, image, state)
    if not model.config.generates_start:
        commit(model, z0, start_condition(model, state), schedule, state, noise_like(z0, generator))


def show(model: WorldModel, image: Tensor, state: WorldState) -> None:
    """Write the keys and values of the start image's tokens to `state`, (b, n, image.dim)."""
    for (k, v), (new_k, new_v) in zip(state.image, model.image_keys_values(image), strict=True):
        k.copy_(new_k)
        v.copy_(new_v)


def passes(
    model: WorldModel,
    cond: Condition,
    schedule: Schedule,
    state: WorldState,
    noise: Sequence[Tensor],
    levels: Embeddings | None = None,
) -> Tensor:
    """All passes over one block: denoise, then commit.  Nothing in it depends on a tensor's content, and shapes are
    those of every block once the window is full: it can be recorded and played again.

    noise: `schedule.num_draws` times (b, block, c, h, w).  Returns clean latents of that shape.
    """
    z = denoise(model, noise[0], cond, schedule, state, lambda i: noise[i + 1], levels)
    commit(model, z, cond, schedule, state, noise[-1] if schedule.context_sigma else None, levels)
    return z


def known_passes(z: Tensor) -> Passes:
    """Returns a replacement of `passes` for a block whose clean latents `z` (b, block, c, h, w) are known: it only
    commits them."""

    def run(
        model: WorldModel, cond: Condition, schedule: Schedule, state: WorldState, noise: Sequence[Tensor]
    ) -> Tensor:
        commit(model, z, cond, schedule, state, noise[-1] if schedule.context_sigma else None)
        return z

    return run


def advance(
    model: WorldModel,
    actions: Tensor,
    schedule: Schedule,
    state: WorldState,
    generator: torch.Generator,
    parts: ConditionChannels | None = None,
    run: Passes = passes,
) -> Tensor:
    """Generates the next block and commits it.

    actions: (b, model.config.block_rows(state.step), a) of its frames.  parts: as `next_condition` takes them.
    run: something faster that does what `passes` does.
    Returns clean latents (b, block, c, h, w).  All noise comes from `generator`, so the same state, actions and
    generator state give the same block.
    """
    like = state.last[:, None].expand(-1, model.config.block, -1, -1, -1)
    return advance_with(model, actions, schedule, state, lambda: noise_like(like, generator), parts, run)


def advance_with(
    model: WorldModel,
    actions: Tensor,
    schedule: Schedule,
    state: WorldState,
    draw: Callable[[], Tensor],
    parts: ConditionChannels | None = None,
    run: Passes = passes,
) -> Tensor:
    """Advances by a block as `advance` does, with noise (b, block, c, h, w) from `draw`: the block's, then that of each
    pass in turn."""
    expected = (state.actions.shape[0], model.config.block_rows(state.step), model.config.action_space.size)
    if tuple(actions.shape) != expected:
        raise ShapeError(f"a block takes action rows of shape {expected}, got {tuple(actions.shape)}")
    cond = model.with_rotary(next_condition(model, actions, state, parts))
    noise = [draw() for _ in range(schedule.num_draws)]
    z = run(model, cond, schedule, state, noise)
    _keep_last_actions(state, cond, actions)
    return z


def _keep_last_actions(state: WorldState, cond: Condition, actions: Tensor) -> None:
    num_kept = state.actions.shape[1]
    before = cond.actions[:, 0, :num_kept]  # the rows before the block in its first step's action window
    state.actions.copy_(torch.cat([before, actions.to(before)], 1)[:, -num_kept:])


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, type and device of `x`."""
    return torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
