"""Conditions of whole clips and of a session's next block, from the same parts.

A conditioner contributes `ConditionChannels`; these functions add what all models have: action windows and time.
`previous_latent` is the simplest conditioner: each step is a residual to the latent before its block.

Legend: b batch, t latent steps, (c h w) a latent step, f frames, a numbers in an action row.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from reverie.errors import ShapeError
from reverie.models.actions import WINDOW_FRAMES, action_windows, rows_before_start
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.state import Condition, ConditionChannels, WorldState
from reverie.types import STEP_FRAMES

NO_CHANNELS = "a model that is conditioned on {} needs its condition channels for each step"


def clip_condition(
    model: WorldModel, actions: Tensor, context: Tensor, image: Tensor, parts: ConditionChannels | None = None
) -> Condition:
    """The condition of a whole clip: what `next_condition` gives block after block.

    actions: (b, 4 (t - 1), a); context: (b, t, c, h, w) latents that the condition may look back at; image: (b, n,
    image.dim) tokens; parts: of a model that is conditioned on more than the previous latent.
    """
    config, t = model.config, context.shape[1]
    if parts is None:
        parts = previous_latents(config, context)
    windows = action_windows(actions, t, config.before_start)
    return Condition(parts.channels, windows, torch.arange(t, device=context.device), parts.base, image)


def next_condition(
    model: WorldModel, actions: Tensor, state: WorldState, parts: ConditionChannels | None = None
) -> Condition:
    """The condition of the next block after `state`, which is left alone.

    actions: (b, config.block_rows(state.step), a); parts: as `clip_condition`, of the block's steps.
    """
    config, t = model.config, model.config.block
    is_start = config.generates_start and state.step == 0
    before = rows_before_start(actions, config.before_start) if is_start else state.actions
    taken = actions if t > 1 or not is_start else actions[:, :0]
    joined = torch.cat([before, taken], 1).to(state.actions)
    # Contiguous: an overlapping view has other strides than the copy that a CUDA graph is captured with.
    windows = rearrange(joined.unfold(1, WINDOW_FRAMES, STEP_FRAMES), "b t a f -> b t f a").contiguous()
    time = state.next_times(t)
    if parts is None:
        _check_previous_latent(config)
        last = state.last[:, None].expand(-1, t, -1, -1, -1)
        parts = ConditionChannels(last, last)
    return Condition(parts.channels, windows, time, parts.base)


def start_condition(model: WorldModel, state: WorldState) -> Condition:
    """The condition of the start image's own step: no actions, nothing before it."""
    config, b = model.config, state.actions.shape[0]
    channels = state.last.new_zeros(b, 1, config.cond_channels, *config.latent[1:])
    base = None if config.generates_start else state.last.new_zeros(b, 1, *config.latent)
    windows = state.actions.new_zeros(b, 1, WINDOW_FRAMES, config.action_space.size)
    return Condition(channels, windows, torch.arange(1, device=state.actions.device), base)


def previous_latents(config: WorldModelConfig, context: Tensor) -> ConditionChannels:
    """For each step of a clip the latent before its block; zeros for the first.  context: (b, t, c, h, w)."""
    _check_previous_latent(config)
    t = context.shape[1]
    steps = torch.arange(t, device=context.device)
    before = torch.where(steps > 0, (steps - 1) // config.block * config.block, -1)
    latents = torch.where((before >= 0).view(-1, 1, 1, 1), context[:, before.clamp(min=0)], 0)
    return ConditionChannels(latents, latents)


def _check_previous_latent(config: WorldModelConfig) -> None:
    if config.conditioning != "previous_latent":
        raise ShapeError(NO_CHANNELS.format(config.conditioning.replace("_", " ")))
