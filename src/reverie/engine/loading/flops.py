"""FLOPs and bytes of each stage of a model: torch counts them in a run on the meta device, which computes nothing.

An operation is a multiplication or an addition in a matrix product or a convolution; all else (norms, activations,
softmax, rotary) is left out.  Bytes are the least that must move: each weight, ring and carry once, and what goes in
and comes out; activations are taken to stay on the chip.  So the floor that follows is below what any program reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reverie.engine.accelerate import quantise
from reverie.models.clip_vision import ClipVision, ClipVisionConfig
from reverie.models.conditioning.next_condition import next_condition
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.state import ConditionChannels, WorldState
from reverie.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from reverie.models.tokenizer import CELL, FRAMES
from reverie.models.wan_vae import WanVAE, WanVAEConfig

NOT_PLAYED = ("img_emb", ".cross_attn.kv.", ".cross_attn.norm_k.")
"""Weights that a pass in play does not read: those that make keys and values of the start image."""


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
def num_quantisable(config: WorldModelConfig) -> int:
    """Numbers in the transformer's weights that smaller kinds make smaller."""
    with torch.device("meta"):
        return quantise.num_quantisable(WorldModel(config))


def count_operations(run: Callable[[], object]) -> int:
    """Counts the operations of what `run` does."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@lru_cache(maxsize=16)
def dit_pass(config: WorldModelConfig, steps: int, seen: int, itemsize: int) -> Work:
    """One pass of the transformer over `steps` steps that attend to `seen` steps, themselves included; batch 1."""
    with torch.device("meta"):
        model = WorldModel(config)
        state = model.new_state(1, "meta")
        channels = torch.zeros(1, steps, config.cond_channels, *config.latent[1:])
        x, sigma = torch.zeros(1, steps, *config.latent), torch.ones(1, steps)
        operations = 0
        while state.step < seen:
            rows = torch.zeros(1, config.block_rows(state.step), config.action_space.size)
            condition = next_condition(model, rows, state, ConditionChannels(channels))
            operations = count_operations(lambda c=condition: model(x, sigma, c, state, commit=True))
            state.step += steps
    weights = model.state_dict().items()
    moved = sum(tensor.numel() for name, tensor in weights if not any(part in name for part in NOT_PLAYED))
    moved += ring_numbers(config) * seen // config.window + image_numbers(config) + 2 * x.numel() + channels.numel()
    return Work(operations, moved * itemsize)


def ring_numbers(config: WorldModelConfig) -> int:
    """Numbers in the rings of keys and values of one session."""
    return sum(cache.k.numel() + cache.v.numel() for cache in _state(config).caches)


def image_numbers(config: WorldModelConfig) -> int:
    """Numbers in the keys and values of the start image."""
    return sum(tensor.numel() for pair in _state(config).image for tensor in pair)


@lru_cache(maxsize=16)
def _state(config: WorldModelConfig) -> WorldState:
    """A session's state, to be counted."""
    with torch.device("meta"):
        return WorldModel(config).new_state(1, "meta")


@lru_cache(maxsize=16)
def clip(config: ClipVisionConfig, itemsize: int) -> Work:
    """The tokens of one image."""
    with torch.device("meta"):
        tower, image = ClipVision(config), torch.zeros(1, 3, config.size, config.size)
        operations = count_operations(lambda: tower.tokens(image))
    return Work(operations, num_parameters(ClipVision, config) * itemsize)


@lru_cache(maxsize=16)
def wan_encode(config: WanVAEConfig, height: int, width: int, itemsize: int, *, is_first: bool) -> Work:
    """The latent of one step: of the first frame, or of 4 later ones."""
    with torch.device("meta"):
        vae = WanVAE(config).to("meta")
        state = vae.new_encoder_state(1, height, width, "meta")
        state.steps = 0 if is_first else 1
        video = torch.zeros(1, 1 if is_first else FRAMES, 3, height, width)
        operations = count_operations(lambda: vae.encode(video, state))
    numbers = _numbers(WanVAE, config, "encoder") + video.numel()
    if not is_first:
        numbers += 2 * carry_numbers(config, height, width, "encoder")
    return Work(operations, numbers * itemsize)


@lru_cache(maxsize=16)
def wan_decode(config: WanVAEConfig, height: int, width: int, itemsize: int, *, is_first: bool) -> Work:
    """The frames of one step: 1 of the first, 4 of any other."""
    with torch.device("meta"):
        vae = WanVAE(config).to("meta")
        state = vae.new_decoder_state(1, height, width, "meta")
        state.steps = 0 if is_first else 1
        z = torch.zeros(1, 1, config.channels, height // CELL, width // CELL)
        operations = count_operations(lambda: vae.decode(z, state))
    numbers = _numbers(WanVAE, config, "decoder") + height * width * 3 * (1 if is_first else FRAMES)
    return Work(operations, (numbers + 2 * carry_numbers(config, height, width, "decoder")) * itemsize)


@lru_cache(maxsize=16)
def tiny_decode(config: TinyDecoderConfig, height: int, width: int, itemsize: int, *, steps: int) -> Work:
    """The frames of `steps` steps (the first 3 of a stream are made, then dropped)."""
    with torch.device("meta"):
        decoder = TinyDecoder(config)
        state = decoder.new_decoder_state(1, height, width, "meta")
        z = torch.zeros(1, steps, config.channels, height // CELL, width // CELL)
        operations = count_operations(lambda: decoder.decode(z, state))
    numbers = num_parameters(TinyDecoder, config) + 2 * tiny_carry_numbers(config, height, width)
    return Work(operations, (numbers + height * width * 3 * steps * FRAMES) * itemsize)


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
