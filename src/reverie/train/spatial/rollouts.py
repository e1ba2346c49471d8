"""Rollouts of a model with a spatial memory along recorded actions.

Legend: s sessions, t steps, (c u v) a latent step, f frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie import sampling
from reverie.models.checkpoint import ModelBundle
from reverie.models.conditioning.spatial_memory import is_recorded
from reverie.models.schedule import Schedule
from reverie.scenes.keyframes import Candidates
from reverie.train.device import pick_dtype
from reverie.train.spatial.encoded_recordings import Store
from reverie.vision.pixels import to_bytes, to_pixels


@dataclass(frozen=True, slots=True)
class Rollouts:
    """first: (s,) steps of the store at which they begin; z: latents (s, t, c, u, v); parts: of their conditions
    (s, t, 8 + c, u, v), as `ViewSet` has them; drawn: (s, t), whether the memory showed anything; recorded: the share
    of each cell (s, t, u, v) that the memory shows as it was recorded, in a scene or the start image; frames:
    (s, f, 3, H, W) uint8 or None."""

    first: Tensor
    z: Tensor
    parts: Tensor
    drawn: Tensor
    recorded: Tensor
    frames: Tensor | None


def image_tokens(encoder: nn.Module, store: Store, start: Tensor) -> Tensor:
    """Tokens of the images on which sessions open, which are the last frames of steps `start` (b,)."""
    return encoder(to_pixels(store.views[start, 3]))


@torch.no_grad()
def roll_out(
    bundle: ModelBundle,
    store: Store,
    first: np.ndarray,
    steps: int,
    schedule: Schedule,
    scene: Candidates | None,
    own_camera: bool = False,
    keep_frames: bool = False,
    seed: int = 3,
) -> Rollouts:
    """Generates along recorded actions from the still frames of steps `first`.

    scene: keyframes that the sessions have, None to open on the images alone; own_camera: poses from the ego-motion
    network, not the recording's.
    """
    device, count = store.device, len(first)
    begin = torch.from_numpy(first).to(device)
    tokenizer, memory, world, encoder = bundle.tokenizer, bundle.memory, bundle.model, bundle.image_encoder
    assert memory is not None
    assert isinstance(encoder, nn.Module)
    size = (store.last.shape[-2], store.last.shape[-1])
    state = world.new_state(count, device, pick_dtype("auto", device))
    decoder = tokenizer.new_decoder_state(count, *size, device)
    keyframes = memory.init_state(count, size, device)
    generator = torch.Generator(device).manual_seed(seed)
    z = store.still[begin].float()
    latents, packed, drawn, recorded, frames = [z], [], [], [], []
    c = z.shape[1]
    with store.autocast():
        sampling.begin(world, z[:, None], image_tokens(encoder, store, begin), schedule, state, generator)
        shown = tokenizer.decode(z[:, None], decoder).float()
        memory.open(keyframes, shown[:, -1], store.pose[begin, 3], store.fov_deg[begin], store.pixel_aspect[begin])
        packed.append(torch.zeros(count, 8 + c, *z.shape[2:], device=device))
        drawn.append(torch.zeros(count, dtype=torch.bool, device=device))
        recorded.append(torch.zeros(count, *z.shape[2:], device=device))
        frames.append(shown)
        for t in range(1, steps):
            rows = store.actions[begin + t]
            poses = None if own_camera else store.pose[begin + t]
            step = memory.next(keyframes, state.last, rows, scene, poses)
            z = sampling.advance(world, rows, schedule, state, generator, step.parts).float()[:, 0].clamp(-8, 8)
            shown = tokenizer.decode(z[:, None], decoder).float()
            memory.commit(keyframes, step, shown)
            channels = step.parts.channels[:, 0].float()
            packed.append(torch.cat([channels[:, : 4 + c], channels[:, 4 + 2 * c :]], 1))
            drawn.append((step.view.cover > 0).flatten(1).any(1))
            from_recorded = is_recorded(step.choice).gather(1, step.view.keyframe.flatten(1)).view_as(step.view.cover)
            recorded.append(F.adaptive_avg_pool2d(step.view.cover * from_recorded, memory.latent[1:]).mean(1))
            latents.append(z)
            if keep_frames:
                frames.append(shown)
    film = to_bytes(torch.cat(frames, 1)) if keep_frames else None
    z, parts, shows, known = (torch.stack(x, 1) for x in (latents, packed, drawn, recorded))
    return Rollouts(begin, z, parts, shows, known, film)
