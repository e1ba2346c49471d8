"""The law "streamed == whole", measured on a model as shipped: block after block against the whole clip at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reverie import sampling
from reverie.engine.engine import Engine
from reverie.engine.loading.scenes import LoadedScene
from reverie.evaluate.scenes.batch import Poses
from reverie.models.conditioning.next_condition import clip_condition, next_condition
from reverie.models.state import ConditionChannels
from reverie.nn.attention import Visibility
from reverie.types import Action, Frames
from reverie.vision.pixels import to_bytes, to_pixels

SIGMA = 0.7
MORE_STEPS = 6
"""Steps past the window, so that the ring evicts."""


@torch.inference_mode()
def streaming_differences(
    engine: Engine,
    frames: Frames,
    actions: Sequence[Action],
    scene: LoadedScene | None = None,
    pose: Poses | None = None,
) -> dict[str, float]:
    """Largest differences between a stream and the whole clip: of the `encoder`, the `network` and the `decoder`.

    frames: (f, H, W, 3) of a recording and actions, one a frame: at least 4 (window + MORE_STEPS) of each.  The clip is
    the one that a session generates from frame 0; latents are of about unit variance, pixels in [-1, 1].
    """
    bundle, memory = engine.bundle, engine.bundle.memory
    assert memory is not None, "scenes are for models with a memory"
    model, config = bundle.model, bundle.model.config
    schedule = dataclasses.replace(
        bundle.config.schedule, context_sigma=0.0
    )  # a whole clip has the latents as they are
    steps = config.window + MORE_STEPS
    pixels = to_pixels(torch.from_numpy(frames[: 4 * steps + 1]).to(engine.device).permute(0, 3, 1, 2))[None]
    pixels = pixels.to(engine.dtype)
    rows = torch.from_numpy(engine.action_space.encode(actions[: 4 * steps]))[None].to(engine.device)

    generator = torch.Generator(engine.device).manual_seed(0)
    state = model.new_state(1, engine.device, engine.dtype)
    in_scene = 0 if scene is None else len(scene.candidates.keyframes)
    keyframes = state.memory = memory.init_state(1, engine.resolution, engine.device, in_scene)
    decoding = engine.decoder.new_decoder_state(1, *engine.resolution, engine.device, engine.dtype)
    z = bundle.tokenizer.encode(pixels[:, :1])
    image = bundle.image_encoder(pixels[:, 0])
    sampling.begin(model, z, image, schedule, state, generator)
    shown = [engine.decoder.decode(z, decoding)]
    _open(engine, keyframes, shown[0], scene, pose)
    candidates = None if scene is None else scene.candidates
    latents, parts, noisy, streamed = [z], [], [], []
    for i in range(0, 4 * steps, 4):
        block = rows[:, i : i + 4]
        step = memory.next(keyframes, state.last, block, candidates)
        noise = torch.randn(z.shape, generator=generator, device=engine.device).to(z.dtype)
        sigma = torch.full((1, 1), SIGMA, device=engine.device)
        streamed.append(model(noise, sigma, next_condition(model, block, state, step.parts), state))
        noisy.append(noise)
        parts.append(step.parts)
        z = sampling.advance(model, block, schedule, state, generator, step.parts)
        shown.append(engine.decoder.decode(z, decoding))
        memory.commit(keyframes, step, to_pixels(to_bytes(shown[-1])))
        latents.append(z)
    clip = torch.cat(latents, 1)
    whole = _whole(engine, clip, torch.cat(noisy, 1), rows, image, parts)
    return {
        "encoder": _encoder_difference(engine, pixels),
        "network": _largest(whole, torch.cat(streamed, 1)),
        "decoder": _largest(engine.decoder.decode(clip), torch.cat(shown, 1)),
    }


def _open(engine: Engine, keyframes, first: Tensor, scene: LoadedScene | None, pose: Poses | None) -> None:
    memory = engine.bundle.memory
    assert memory is not None
    frame = to_pixels(to_bytes(first[:, -1]))
    if scene is None or pose is None:
        memory.open(keyframes, frame)
        return
    start = torch.from_numpy(np.array(pose))[None].to(engine.device)
    fov_deg, pixel_aspect = (
        torch.tensor([x], device=engine.device) for x in (scene.scene.fov_deg, scene.scene.pixel_aspect)
    )
    memory.open(keyframes, frame, start, fov_deg, pixel_aspect, scene.candidates.body)


def _whole(
    engine: Engine, clip: Tensor, noisy: Tensor, rows: Tensor, image: Tensor, parts: Sequence[ConditionChannels]
) -> Tensor:
    """The network's outputs for noisy steps 1 .. t - 1, all at once: only what the memory showed is taken over."""
    model = engine.bundle.model
    t = clip.shape[1]
    zeros = torch.zeros_like(parts[0].channels)
    start = ConditionChannels(zeros, torch.zeros_like(clip[:, :1]))
    bases = [part.base for part in (start, *parts) if part.base is not None]
    joined = ConditionChannels(torch.cat([part.channels for part in (start, *parts)], 1), torch.cat(bases, 1))
    steps = torch.arange(t, device=clip.device)
    cond = clip_condition(model, rows, clip, image, joined).select(torch.cat([steps[:-1], steps[1:]]))
    levels = torch.full((1, 2 * (t - 1)), SIGMA, device=clip.device)
    levels[:, : t - 1] = 0
    visibility = Visibility.teacher_forced(t, model.config.window, given=1, copies=1)
    return model(torch.cat([clip[:, :-1], noisy], 1), levels, cond, visibility=visibility)[:, t - 1 :]


def _encoder_difference(engine: Engine, pixels: Tensor) -> float:
    tokenizer = engine.bundle.tokenizer
    state = tokenizer.new_encoder_state(1, *engine.resolution, engine.device, engine.dtype)
    chunks = [pixels[:, :1], *pixels[:, 1:].split(4, 1)]
    return _largest(tokenizer.encode(pixels), torch.cat([tokenizer.encode(chunk, state) for chunk in chunks], 1))


def _largest(first: Tensor, second: Tensor) -> float:
    return float((first.float() - second.float()).abs().max())
