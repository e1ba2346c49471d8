"""A tiny decoder for Wan 2.1's latents: TAEHV's `taew2_1` layout, about a hundredth of the VAE decoder's work.

Each of three stages has blocks over a frame and the one before it, then doubles the grid and, in all but the first, the
number of frames.  The state of a stream is what those blocks saw last.
Source: github.com/madebyollin/taehv (architecture and file layout).

Legend: b batch, f frames, t latent steps, H W pixels, h w cells of 8x8 pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.errors import ShapeError
from reverie.models.tokenizer import CELL, FRAMES, DecoderState, TokenizerState, check_size
from reverie.nn.conv import TemporalConv2d


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyDecoderConfig:
    """Shape of the decoder."""

    widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    """Channels of the three stages and of the last layer."""
    blocks: int = 3
    """Blocks of a stage."""
    channels: int = 16
    """Channels of a latent."""


GROWTH = (1, 2, 2)
"""Frames that one frame becomes after each stage."""


class MemoryBlock(nn.Module):
    """Three convolutions and a shortcut; the first also takes the block's input of the frame before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = TemporalConv2d(width, width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, carry: Tensor | None) -> Tensor:
        """`b f c h w` -> the same."""
        y = F.relu(self.mix(x, carry)).flatten(0, 1)
        y = self.out(F.relu(self.middle(y)))
        return F.relu(y.unflatten(0, x.shape[:2]) + x)


class Stage(nn.Module):
    def __init__(self, before: int, after: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MemoryBlock(before) for _ in range(blocks))
        self.grow = nn.Conv2d(before, growth * before, 1, bias=False)
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.growth = growth

    def forward(self, x: Tensor, carries: Iterator[Tensor | None]) -> Tensor:
        """`b f c h w` -> `b (f growth) after 2h 2w`."""
        b = x.shape[0]
        for block in self.blocks:
            x = block(x, next(carries))
        # The reference enlarges first; a layer of single cells gives the same a quarter as dear before it.
        y = rearrange(self.grow(x.flatten(0, 1)), "r (g c) h w -> (r g) c h w", g=self.growth)
        y = self.conv(F.interpolate(y, scale_factor=2.0, mode="nearest"))
        return y.unflatten(0, (b, -1))


class TinyDecoder(nn.Module):
    """Latents -> pixels; the decoding half of a tokenizer's face."""

    def __init__(self, config: TinyDecoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.enter = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(Stage(widths[i], widths[i + 1], config.blocks, GROWTH[i]) for i in range(3))
        self.leave = nn.Conv2d(widths[3], 3, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # torch's stub lacks it alone

    def new_decoder_state(
        self,
        batch: int,
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> DecoderState:
        """A fresh stream of `height` x `width` pixels.  Raises ShapeError unless they are multiples of 16."""
        check_size(height, width)
        where = torch.device(device)
        return TokenizerState(
            tuple(
                block.mix.new_carry(batch, (height // CELL) << i, (width // CELL) << i, where, dtype)  # type: ignore[union-attr]
                for i, stage in enumerate(self.stages)
                for block in stage.blocks  # type: ignore[union-attr]
            )
        )

    def decode(self, z: Tensor, state: DecoderState | None = None) -> Tensor:
        """Latents `b t c h w` of zero mean and unit deviation -> video `b f 3 H W` in [-1, 1]; f = 4t, less 3 on a
        stream's first call.  Raises ShapeError for another channel count, or a state of another size.
        """
        if z.ndim != 5 or z.shape[2] != self.config.channels or z.shape[1] < 1:
            raise ShapeError(f"expected latents (b, t, {self.config.channels}, h, w), t >= 1, got {tuple(z.shape)}")
        b = z.shape[0]
        carries = iter(state.carries) if state is not None else iter(lambda: None, 0)
        x = F.relu(self.enter(3 * torch.tanh(z.flatten(0, 1) / 3))).unflatten(0, (b, -1))
        for stage in self.stages:
            x = stage(x, carries)
        video = self.leave(F.relu(x.flatten(0, 1))).unflatten(0, (b, -1))
        is_first = state is None or state.steps == 0
        if state is not None:
            state.steps += z.shape[1]
        return (2 * video.clamp(0, 1) - 1)[:, FRAMES - 1 if is_first else 0 :]
