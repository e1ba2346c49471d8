"""FLOPs and bytes of each stage of a model, computed from its config alone.

An operation is a multiplication or an addition in a matrix product or a convolution; all else (norms, activations,
softmax, rotary) is left out.  Bytes are the least that must move: each weight, ring and carry once, and what goes in
and comes out; activations are taken to stay on the chip.  So the floor that follows is below what any program reaches.

Legend: n tokens of a step, d width, h w cells or pixels of a grid, t steps or frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import nn

from reverie.engine.accelerate import quantise
from reverie.models.actions import WINDOW_FRAMES
from reverie.models.clip_vision import ClipVision, ClipVisionConfig
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.tiny_decoder import GROWTH, TinyDecoder, TinyDecoderConfig
from reverie.models.tokenizer import CELL, FRAMES
from reverie.models.wan_vae import WanVAE, WanVAEConfig


@dataclass(frozen=True, slots=True)
class Work:
    """operations: of matrix products and convolutions; num_bytes: that must be read or written."""

    operations: int
    num_bytes: int = 0

    def floor_ms(self, gflops: float, gbytes_per_s: float) -> float:
        """The time that a machine of these rates cannot beat: the slower of computing and moving."""
        return max(self.operations / gflops, self.num_bytes / gbytes_per_s) / 1e6


@lru_cache(maxsize=64)
def num_parameters(make: Callable[[Any], nn.Module], config: Any) -> int:
    """Numbers in a network's weights, which are not made."""
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in make(config).state_dict().values())


@lru_cache(maxsize=16)
def num_shrinking(config: WorldModelConfig) -> int:
    """Numbers in the transformer's weights that smaller kinds make smaller."""
    with torch.device("meta"):
        return quantise.num_shrinking(WorldModel(config))


def dit_pass(config: WorldModelConfig, steps: int, seen: int, itemsize: int) -> Work:
    """One pass of the transformer over `steps` steps that attend to `seen` steps, themselves included; batch 1.

    For models of Matrix-Game 2's kind: with image attention, a keyboard and a mouse, without a camera.
    """
    d, n = config.dim, config.tokens_per_step
    tokens = steps * n
    patch_in = config.patch_cells * (config.latent[0] + config.cond_channels)
    macs = tokens * patch_in * d + tokens * d * config.patch_cells * config.latent[0]
    macs += steps * (config.freq_dim * d + d * d + 6 * d * d)  # the time's embedding
    if config.actions.modulation:
        macs += steps * (WINDOW_FRAMES * config.action_space.size * d + d * d)
    macs += config.layers * tokens * (4 * d * d + 2 * d * config.ffn_dim + 2 * seen * n * d)
    macs += len(config.image.blocks) * tokens * (2 * d * d + 2 * config.image.tokens * d)
    if config.actions.mouse is not None:
        width = config.actions.mouse.heads * config.actions.mouse.head_dim
        each = (d + 2 * WINDOW_FRAMES) * width + 4 * width * width + 2 * seen * width + width * d
        macs += len(config.actions.mouse.blocks) * tokens * each
    if config.actions.keyboard is not None:
        width, hidden = config.actions.keyboard.heads * config.actions.keyboard.head_dim, config.actions.keyboard.hidden
        keys, frames = len(config.action_space.keys), WINDOW_FRAMES
        each = frames * (keys * hidden + hidden * hidden) + frames * hidden * 2 * width
        macs += len(config.actions.keyboard.blocks) * (steps * each + tokens * (2 * d * width + 2 * seen * width))
    latents = steps * prod(config.latent[1:]) * (2 * config.latent[0] + config.cond_channels)
    moved = num_parameters(WorldModel, config) - _unread(config)
    moved += ring_numbers(config) * seen // config.window + image_numbers(config) + latents
    return Work(2 * macs, moved * itemsize)


def _unread(config: WorldModelConfig) -> int:
    """Weights that a pass in play does not read: those that make keys and values of the start image."""
    image, d = config.image.dim, config.dim
    embedding = 2 * image + image * image + image + image * d + d + 2 * d
    return embedding + len(config.image.blocks) * (2 * d * d + 2 * d + d)


def ring_numbers(config: WorldModelConfig) -> int:
    """Numbers in the rings of keys and values of one session."""
    n, window = config.tokens_per_step, config.window
    count = config.layers * n * config.dim
    if config.actions.mouse is not None:
        count += len(config.actions.mouse.blocks) * n * config.actions.mouse.heads * config.actions.mouse.head_dim
    if config.actions.keyboard is not None:
        count += len(config.actions.keyboard.blocks) * config.actions.keyboard.heads * config.actions.keyboard.head_dim
    return 2 * window * count


def image_numbers(config: WorldModelConfig) -> int:
    """Numbers in the keys and values of the start image."""
    return 2 * len(config.image.blocks) * config.image.tokens * config.dim


def clip(config: ClipVisionConfig, itemsize: int) -> Work:
    """The tokens of one image."""
    n, d = config.num_tokens, config.width
    macs = (n - 1) * 3 * config.patch**2 * d
    macs += config.layers * n * (4 * d * d + 2 * d * config.hidden + 2 * n * d)
    return Work(2 * macs, num_parameters(ClipVision, config) * itemsize)


def _residual(before: int, after: int) -> int:
    """Multiplications of a residual block, for each cell of each frame."""
    return 27 * (before + after) * after + (before * after if before != after else 0)


def _middle(width: int, cells: int) -> int:
    return cells * (2 * _residual(width, width) + 4 * width * width + 2 * cells * width)


def wan_encode(config: WanVAEConfig, height: int, width: int, itemsize: int, *, is_first: bool) -> Work:
    """The latent of one step: of the first frame, or of 4 later ones."""
    pixels, frames, before = height * width, 1 if is_first else FRAMES, config.dim
    macs = 27 * 3 * before * frames * pixels
    for level, c in enumerate(config.widths):
        for _ in range(config.blocks):
            macs += _residual(before, c) * frames * pixels
            before = c
        if level < 3:
            pixels //= 4
            macs += 9 * c * c * frames * pixels
            if config.halves_time[level] and not is_first:
                frames //= 2
                macs += 3 * c * c * frames * pixels
    macs += _middle(before, pixels) + 27 * before * 2 * config.channels * pixels + (2 * config.channels) ** 2 * pixels
    numbers = _numbers(WanVAE, config, "encoder") + height * width * 3 * (1 if is_first else FRAMES)
    if not is_first:
        numbers += 2 * carry_numbers(config, height, width, "encoder")
    return Work(2 * macs, numbers * itemsize)


def wan_decode(config: WanVAEConfig, height: int, width: int, itemsize: int, *, is_first: bool) -> Work:
    """The frames of one step: 1 of the first, 4 of any other."""
    widths, pixels, frames = config.widths[::-1], height * width // CELL**2, 1
    c = config.channels
    macs = (c * c + 27 * c * widths[0]) * pixels + _middle(widths[0], pixels)
    before = widths[0]
    for level, after in enumerate(widths):
        for _ in range(config.blocks + 1):
            macs += _residual(before, after) * frames * pixels
            before = after
        if level < 3:
            if config.halves_time[::-1][level] and not is_first:
                macs += 3 * after * 2 * after * frames * pixels
                frames *= 2
            pixels *= 4
            before = after // 2
            macs += 9 * after * before * frames * pixels
    macs += 27 * before * 3 * frames * pixels
    numbers = _numbers(WanVAE, config, "decoder") + height * width * 3 * frames
    return Work(2 * macs, (numbers + 2 * carry_numbers(config, height, width, "decoder")) * itemsize)


def tiny_decode(config: TinyDecoderConfig, height: int, width: int, itemsize: int, *, steps: int) -> Work:
    """The frames of `steps` steps (the first 3 of a stream are made, then dropped)."""
    pixels, frames, widths = height * width // CELL**2, steps, config.widths
    macs = 9 * config.channels * widths[0] * frames * pixels
    for stage, growth in enumerate(GROWTH):
        before, after = widths[stage], widths[stage + 1]
        macs += config.blocks * 4 * 9 * before * before * frames * pixels
        macs += growth * before * before * frames * pixels
        frames, pixels = frames * growth, pixels * 4
        macs += 9 * before * after * frames * pixels
    macs += 9 * widths[3] * 3 * frames * pixels
    numbers = num_parameters(TinyDecoder, config) + 2 * tiny_carry_numbers(config, height, width)
    return Work(2 * macs, (numbers + height * width * 3 * frames) * itemsize)


@lru_cache(maxsize=64)
def carry_numbers(config: WanVAEConfig, height: int, width: int, part: str) -> int:
    """Numbers that a stream of the encoder or the decoder holds as state."""
    with torch.device("meta"):
        vae = WanVAE(config)
        new = vae.new_encoder_state if part == "encoder" else vae.new_decoder_state
        return sum(carry.numel() for carry in new(1, height, width, "meta").carries)


@lru_cache(maxsize=64)
def tiny_carry_numbers(config: TinyDecoderConfig, height: int, width: int) -> int:
    with torch.device("meta"):
        return sum(c.numel() for c in TinyDecoder(config).new_decoder_state(1, height, width, "meta").carries)


@lru_cache(maxsize=64)
def _numbers(make: type[nn.Module], config: object, part: str) -> int:
    with torch.device("meta"):
        return sum(t.numel() for name, t in make(config).state_dict().items() if name.startswith(part))
