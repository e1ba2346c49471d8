"""Our numbers beside the reference's: stored weights, inputs and outputs, run through the code that plays.

`check_rollout` takes a folder of `config.json`, `model.safetensors` and `io.safetensors` with noise, cond_concat
(b, c, t, h, w), visual_context (b, n, d), keyboard, mouse (b, f, keys or 2), renoise (blocks, passes - 1, steps, c, h,
w), timesteps, first_flow and latents.  The blocks are generated one after another with `sampling.advance`: ring caches,
positions as a session has them, actions row by row.  Nothing but the stored tensors and the config decides any size.

`check_vae` takes a folder of `Wan2.1_VAE.pth` (or diffusers' `diffusion_pytorch_model.safetensors`) with
`vae_io.safetensors`, and `clip_visual.safetensors` (or a published `.pth`) with `clip_io.safetensors`; either may be
missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie import sampling
from reverie.errors import CheckpointError
from reverie.models.adapters import clip, layouts, matrix_game, wan_vae
from reverie.models.clip_vision import ClipVision
from reverie.models.conditioning.next_condition import next_condition
from reverie.models.dit import WorldModel
from reverie.models.state import ConditionChannels
from reverie.models.wan_vae import WanVAE
from reverie.models.weights import TensorFile, fill
from reverie.paths import own_files
from reverie.types import STEP_FRAMES

TOLERANCE = 1e-4
"""The largest absolute difference, in float32, that counts as the same numbers."""

Differences = dict[str, float]
Tensors = Mapping[str, Tensor]


@torch.inference_mode()
def check_rollout(folder: Path) -> Differences:
    """Generate the stored blocks again.  Returns the largest differences of `first_flow` and `latents`."""
    raw = _read_json(folder / "config.json")
    weights = TensorFile(folder / "model.safetensors")
    io = _read_io(folder / "io.safetensors", "noise cond_concat visual_context renoise timesteps first_flow latents")
    noise, extra = io["noise"].transpose(1, 2), io["cond_concat"].transpose(1, 2)
    block = io["first_flow"].shape[2]
    num_steps = noise.shape[1]
    if num_steps % block:
        raise CheckpointError(f"{folder / 'io.safetensors'} has {num_steps} steps, which are no blocks of {block}")
    num_tokens, image_dim = io["visual_context"].shape[1:]
    latent = (int(noise.shape[2]), int(noise.shape[3]), int(noise.shape[4]))
    config = matrix_game.read_config(
        raw, latent, num_tokens, image_dim, patch=matrix_game.patch_of(weights), block=block, unlimited=num_steps
    )
    with torch.device("meta"):
        model = WorldModel(config)
    stored = layouts.Stored(weights)
    fill(model, weights, names=stored.to_stored, ignore=stored.ignored, dtype=torch.float32)
    schedule = sampling.Schedule(tuple((io["timesteps"].double() / 1000).tolist()), renoise=True)
    rows = _action_rows(io, len(config.action_space.keys), config.action_space.mouse, num_steps)

    state = model.new_state(len(noise))
    sampling.show(model, io["visual_context"], state)
    first, clean = None, []
    for index, start in enumerate(range(0, num_steps, block)):
        steps = slice(start, start + block)
        given = rows[:, max(0, STEP_FRAMES * (start - 1)) :][:, : config.block_rows(start)]
        if first is None:
            cond = next_condition(model, given, state, ConditionChannels(extra[:, steps]))
            first = model(noise[:, steps], torch.full((len(noise), block), schedule.sigmas[0]), cond, state)
        draws = _draws(noise[:, steps], io["renoise"][index])
        clean.append(
            sampling.advance_with(model, given, schedule, state, draws.__next__, ConditionChannels(extra[:, steps]))
        )
    assert first is not None
    return {
        "first_flow": _difference(first.transpose(1, 2), io["first_flow"]),
        "latents": _difference(torch.cat(clean, 1).transpose(1, 2), io["latents"]),
    }


def _draws(noise: Tensor, renoise: Tensor) -> Iterator[Tensor]:
    """A block's noise, then that of each further pass."""
    yield noise
    for fresh in renoise:
        yield fresh.expand(noise.shape)


def _action_rows(io: Tensors, num_keys: int, has_mouse: bool, num_steps: int) -> Tensor:
    """(b, f, a) rows as a session has them: keys, then degrees."""
    parts = [("keyboard", num_keys, 1.0)] if num_keys else []
    parts += [("mouse", 2, 1 / matrix_game.TURN_SCALE)] if has_mouse else []
    needed = max(1, STEP_FRAMES * (num_steps - 1))
    for name, width, _ in parts:
        if name not in io or io[name].shape[-1] != width or io[name].shape[1] < needed:
            got = list(io[name].shape) if name in io else "nothing"
            raise CheckpointError(f"io.safetensors: {name} must be (b, {needed} or more, {width}), got {got}")
    if not parts:
        return io["noise"].new_zeros(len(io["noise"]), needed, 0)
    return torch.cat([io[name][:, :needed] * scale for name, _, scale in parts], -1)


@torch.inference_mode()
def check_vae(folder: Path) -> Differences:
    """Run the stored VAE and CLIP tower again.  Returns the largest difference of each stored output."""
    differences: Differences = {}
    if (folder / "vae_io.safetensors").is_file():
        differences |= _check_wan(folder)
    if (folder / "clip_io.safetensors").is_file():
        differences |= _check_clip(folder)
    if not differences:
        raise CheckpointError(f"{folder} has neither vae_io.safetensors nor clip_io.safetensors: nothing to check")
    return differences


def _check_wan(folder: Path) -> Differences:
    file = TensorFile(_first(folder, ("Wan2.1_VAE.pth", "diffusion_pytorch_model.safetensors", "*VAE*.*")))
    io = _read_io(folder / "vae_io.safetensors", "")
    config, names = wan_vae.read_layout(file)
    if "mean" in io and "std" in io:
        config = config.__class__(
            **{f: getattr(config, f) for f in ("dim", "multipliers", "blocks", "halves_time")},
            mean=tuple(io["mean"].flatten().tolist()),
            std=tuple(io["std"].flatten().tolist()),
        )
    with torch.device("meta"):
        vae = WanVAE(config)
    fill(vae, file, names=names, dtype=torch.float32)
    found: Differences = {}
    if "latents" in io:
        found["latents"] = _difference(vae.encode(io["video"].transpose(1, 2)).transpose(1, 2), io["latents"])
    if "decoded" in io:
        found["decoded"] = _difference(vae.decode(io["z"].transpose(1, 2)).transpose(1, 2), io["decoded"])
    if "image_padded_latents" in io:
        wanted = io["image_padded_latents"]
        picture = io["image"].transpose(1, 2)[:, :1] if "image" in io else io["video"].transpose(1, 2)[:, :1]
        state = vae.new_encoder_state(len(picture), picture.shape[3], picture.shape[4])
        grey = picture.new_zeros(len(picture), STEP_FRAMES, *picture.shape[2:])
        steps = [vae.encode(picture if i == 0 else grey, state) for i in range(wanted.shape[2])]
        found["image_padded_latents"] = _difference(torch.cat(steps, 1).transpose(1, 2), wanted)
    return found


def _check_clip(folder: Path) -> Differences:
    file = TensorFile(_first(folder, ("clip_visual.safetensors", "models_clip*.pth", "*clip*.pth")))
    io = _read_io(folder / "clip_io.safetensors", "pixels hidden")
    width = clip.read_config(file, 1).width
    best = float("nan")
    for heads in range(1, width + 1):  # no file holds the number of heads: it is the one that fits
        if width % heads == 0:
            config = clip.read_config(file, heads)
            with torch.device("meta"):
                tower = ClipVision(config)
            fill(tower, file, names=clip.names, ignore=clip.unused(config), dtype=torch.float32)
            difference = _difference(tower.tokens(io["pixels"]), io["hidden"])
            best = difference if not difference >= best else best
            if best < TOLERANCE:
                break
    return {"hidden": best}


def _difference(ours: Tensor, stored: Tensor) -> float:
    if ours.shape != stored.shape:
        raise CheckpointError(f"the stored output has shape {list(stored.shape)}, ours {list(ours.shape)}")
    return float((ours.float() - stored.float()).abs().max())


def _read_io(path: Path, needed: str) -> dict[str, Tensor]:
    tensors = {name: tensor.clone().float() for name, tensor in TensorFile(path)}
    if missing := [name for name in needed.split() if name not in tensors]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    return tensors


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error


def _first(folder: Path, patterns: Sequence[str]) -> Path:
    for pattern in patterns:
        if found := own_files(folder.glob(pattern)):
            return found[0]
    raise CheckpointError(f"{folder} has no {patterns[0]}")
