"""Memory estimate of a model on a device, computed from its config before any weight is read.

Exact: weights, rings, keys and values of the start image, carries of the VAE's streams: they are counted, not guessed.
Estimates: activations (formulas below) and what the system takes (a constant).

    activations    the largest moment of three, each of one block:
                   transformer  n (3 d + 2 ffn) numbers of the feed-forward layer, or n (8 d) numbers and n d complex
                                ones of self-attention; on a CPU also the scores, 2 n m of one head (of all, if few)
                   full decoder 32 frames of pixels at `dim` channels: 22 that a residual block holds at once (4 frames
                                in, 6 with the convolution state, 4 out, ...), 10 that convolutions reorder
                   tiny decoder 5 times its last layer's frames
    system         CUDA's context and its kernels' work space; on a CPU the interpreter and a mapped piece of a file

Legend: n tokens of a block, m tokens that it attends to, d width, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reverie.engine.accelerate.quantise import KINDS
from reverie.engine.loading import flops
from reverie.engine.loading.presets import BY_SIZE, PRESETS, Settings
from reverie.models.checkpoint import ModelConfig, new_image_encoder, new_tokenizer
from reverie.models.clip_vision import ClipVisionConfig
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.tiny_decoder import TinyDecoder
from reverie.models.wan_vae import WanVAEConfig
from reverie.nn.attention import MAX_SCORES

GIB = 2**30
SYSTEM_BYTES = {"cuda": int(0.75 * GIB), "cpu": int(0.75 * GIB)}
"""Estimates."""
DECODE_FRAMES, ENCODE_FRAMES, TINY_FRAMES = 32, 32, 5
"""Estimates: frames at full size that live at once; see above."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Bytes.  weights: transformer, VAE and tiny decoder; loading: what they take more while they are read; encoder:
    the image encoder's weights; caches: one session's rings and keys and values of its picture; streams: what the VAE
    or the decoder holds of the frames before; activations, system: estimates; keeps_encoder: whether its weights
    stay."""

    weights: int
    encoder: int
    caches: int
    streams: int
    activations: int
    system: int
    keeps_encoder: bool
    loading: int = 0

    @property
    def total(self) -> int:
        """At the worst moment: when the weights are read, when a session starts, or in play."""
        start = max(self.weights + self.encoder, self.weights + self.loading + self.encoder * self.keeps_encoder)
        play = self.weights + self.caches + self.streams + self.activations + self.encoder * self.keeps_encoder
        return max(start, play) + self.system

    def __str__(self) -> str:
        stays = "kept" if self.keeps_encoder else "at the start only"
        return (
            f"{gib(self.total)} (weights {gib(self.weights)}, image encoder {gib(self.encoder)} {stays}, caches "
            f"{gib(self.caches)}, streams {gib(self.streams)}, about {gib(self.activations)} of activations and "
            f"{gib(self.system)} of system)"
        )


def rows(need: Need) -> list[tuple[str, str]]:
    """Formats a memory estimate as table rows; estimated entries are marked as such."""
    return [
        ("weights", gib(need.weights)),
        ("image encoder", f"{gib(need.encoder)}, {'kept' if need.keeps_encoder else 'at the start only'}"),
        ("caches", f"{gib(need.caches)} a session"),
        ("streams of the VAE", f"{gib(need.streams)} a session"),
        ("activations", f"about {gib(need.activations)} (an estimate)"),
        ("system", f"about {gib(need.system)} (an estimate)"),
        ("needed", f"about {gib(need.total)}"),
    ]


def gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= 0.1 * GIB else f"{num_bytes / 2**20:.1f} MiB"


def needed(config: ModelConfig, settings: Settings, dtype: torch.dtype, device_type: str) -> Need:
    """Estimates the memory of one session of a model loaded with `settings` and `dtype`."""
    size, (height, width) = dtype.itemsize, config.resolution
    is_tiny = settings.decoder == "tiny" and config.tiny_decoder is not None
    weights = flops.num_parameters(WorldModel, config.world) + flops.num_parameters(new_tokenizer, config.tokenizer)
    if config.tiny_decoder is not None:
        weights += flops.num_parameters(TinyDecoder, config.tiny_decoder)
    streams, decoding = 0, 0
    if isinstance(config.tokenizer, WanVAEConfig):
        streams = flops.carry_numbers(config.tokenizer, height, width, "encoder")
        streams += 0 if is_tiny else flops.carry_numbers(config.tokenizer, height, width, "decoder")
        frames = ENCODE_FRAMES if is_tiny else max(DECODE_FRAMES, ENCODE_FRAMES)
        decoding = frames * height * width * config.tokenizer.dim
    if is_tiny and config.tiny_decoder is not None:
        streams += flops.tiny_carry_numbers(config.tiny_decoder, height, width)
        frames = TINY_FRAMES * config.world.block_frames
        decoding = max(decoding, frames * height * width * config.tiny_decoder.widths[3])
    saved = 0
    if settings.weights != "full":
        saved = flops.num_quantisable(config.world) * (8 * size - KINDS[settings.weights].bits) // 8
    encoder = flops.num_parameters(new_image_encoder, config.image_encoder)
    return Need(
        weights=weights * size - saved,
        loading=saved,
        encoder=encoder * size,
        caches=(flops.ring_numbers(config.world) + flops.image_numbers(config.world)) * size,
        streams=streams * size,
        activations=max(transformer_bytes(config.world, size, device_type), decoding * size),
        system=SYSTEM_BYTES[device_type],
        keeps_encoder=settings.keeps_encoder or not isinstance(config.image_encoder, ClipVisionConfig),
    )


def transformer_bytes(config: WorldModelConfig, itemsize: int, device_type: str) -> int:
    """The estimate for one pass, as the module's docstring gives it."""
    n, d = config.block * config.tokens_per_step, config.dim
    m = config.window * config.tokens_per_step
    attention = n * (8 * d * itemsize + 8 * d)
    if device_type == "cpu":
        attention += 2 * n * m * itemsize * (1 if config.heads * n * m > MAX_SCORES else config.heads)
    return max(n * (3 * d + 2 * config.ffn_dim) * itemsize, attention)


def fitting(config: ModelConfig, free_bytes: float, device_type: str) -> str | None:
    """The most comfortable preset that fits into what is free, or None."""
    for name in BY_SIZE:
        if PRESETS[name].decoder == "tiny" and config.tiny_decoder is None:
            continue
        dtype: torch.dtype = getattr(torch, PRESETS[name].dtype)
        if needed(config, PRESETS[name], dtype, device_type).total <= free_bytes:
            return name
    return None
