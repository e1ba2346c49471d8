"""Clips that the world model is trained on, and its estimates of their steps as sampling would make them.

Legend: b batch, t steps of a clip, k noisy copies of steps 1 .. t - 1, (c u v) a latent step, a numbers in an action
row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.models.dit import WorldModel
from reverie.models.state import Condition, ConditionChannels
from reverie.train.forcing import teacher_forced
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.spatial.views import ViewSet


@dataclass(frozen=True, slots=True)
class Clips:
    """context, target, recorded: latents (b, t, c, u, v) of the context, to be estimated, and of the game; parts:
    conditions; windows: (b, t, 12, a) actions; image: tokens (b, n, e); weight: of squared errors (b, t - 1, u, v);
    is_own: whether the contexts are the model's own."""

    context: Tensor
    target: Tensor
    recorded: Tensor
    parts: ConditionChannels
    windows: Tensor
    image: Tensor
    weight: Tensor
    is_own: bool


def action_windows(store: Store, first: Tensor, start: Tensor, count: int) -> Tensor:
    """Action windows of steps first .. first + count - 1: (b, count, 12, a); idle before a session's start.

    first, start: (b,) steps of the store.
    """
    steps = first[:, None] + torch.arange(count, device=first.device)
    parts = []
    for back in (2, 1, 0):
        at = steps - back
        alive = at > start[:, None]
        parts.append(store.actions[at.clamp(0, store.count - 1)] * alive[..., None, None])
    return torch.cat(parts, 2)


def recorded_clip(view: ViewSet, index: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Clips of `count` steps from steps `index` (b,): latents, parts and drawn as `ViewSet` has them, action windows,
    and the steps at which their sessions begin."""
    store = view.store
    start = view.start_on_device[index]
    steps = index[:, None] + torch.arange(count, device=index.device)
    z = store.z[steps].float()
    opens = (index == start).view(-1, 1, 1, 1)
    z[:, 0] = torch.where(opens, store.still[index].float(), z[:, 0])
    return z, view.parts[steps], view.drawn[steps], action_windows(store, index, start, count), start


def estimate(
    world: WorldModel,
    clips: Clips,
    seen: Tensor,
    levels: Tensor,
    noisy: Tensor,
    sigma: Tensor,
    step_size: Tensor,
) -> Tensor:
    """Clean estimates of noisy copies (b, k (t - 1), c, u, v) of steps 1 .. t - 1, each given the steps before it.

    seen: (b, t, c, u, v) noised contexts; levels: their noise (b, t); sigma, step_size: (b, k (t - 1)) of the copies.
    """
    steps = torch.arange(seen.shape[1], device=seen.device)
    cond = Condition(clips.parts.channels, clips.windows, steps, clips.parts.base, clips.image)
    d = torch.cat([torch.full_like(levels[:, 1:], smallest_step(world)), step_size], 1)
    return teacher_forced(world, cond, seen, levels, noisy, sigma, d)


def smallest_step(world: WorldModel) -> float:
    """The smallest step size that a model is trained for."""
    return 0.5 ** max(0, world.config.step_sizes - 1)
