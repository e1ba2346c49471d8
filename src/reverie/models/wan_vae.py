"""Wan 2.1's causal video VAE: 4x8x8 pixels become a cell of 16 channels; the first frame is a step of its own.

Encoder and decoder stream: their memory of the frames before is an explicit state, the very thing that the project's
own tokenizer has, and both have the same face.  A step is always computed alone (4 frames, or the first one), so a
stream costs the memory of one step, and streamed equals whole bit for bit.
Source: Wan, arXiv 2503.20314, section 4.1; module names are those of diffusers' AutoencoderKLWan.

Legend: b batch, f frames, t latent steps, H W pixels, h w cells of 8x8 pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.errors import ShapeError
from reverie.models.tokenizer import FRAMES, DecoderState, EncoderState, TokenizerState, check_size, check_video
from reverie.nn.attention import attend
from reverie.nn.conv import CausalConv3d

MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508)
MEAN += (0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743)
STD += (3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
"""Standard deviation of the published VAE's latents, by channel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WanVAEConfig:
    """Shape of the VAE."""

    dim: int = 96
    """Channels on the grid of pixels."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Factors of `dim` on each grid, finest first."""
    blocks: int = 2
    """Residual blocks of a grid; the decoder has one more."""
    halves_time: tuple[bool, ...] = (False, True, True)
    """The way to the next coarser grid halves time too."""
    mean: tuple[float, ...] = MEAN
    """Mean of the latents, by channel."""
    std: tuple[float, ...] = STD
    """Standard deviation of the latents, by channel."""

    def __post_init__(self) -> None:
        if len(self.multipliers) != 4 or len(self.halves_time) != 3 or sum(self.halves_time) != 2:
            raise ShapeError(f"Wan 2.1's VAE has 4 grids and halves time twice, got {self}")
        if len(self.mean) != len(self.std):
            raise ShapeError(f"as many means as deviations are needed, got {len(self.mean)} and {len(self.std)}")

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return len(self.mean)

    @property
    def widths(self) -> list[int]:
        return [self.dim * m for m in self.multipliers]


Carries = Iterator[Tensor]
"""Convolution state of each temporal layer, in order."""
Temporal = tuple["CausalConv3d | Downsample", int]
"""A temporal layer, and the pixels of a cell of its grid."""


class RMSNorm(nn.Module):
    """Root-mean-square norm over the channels (axis 1) with a gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        gain = (self.gamma * self.gamma.shape[0] ** 0.5).view(-1, *[1] * (x.ndim - 2))
        return F.normalize(x, dim=1) * gain

    def activated(self, x: Tensor) -> Tensor:
        """The norm, then SiLU: between convolutions; a chain that compiling makes one."""
        return F.silu(self(x))


class ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(before)
        self.conv1 = CausalConv3d(before, after)
        self.norm2 = RMSNorm(after)
        self.conv2 = CausalConv3d(after, after)
        self.conv_shortcut = nn.Conv3d(before, after, 1) if before != after else None

    def forward(self, x: Tensor, carries: Carries) -> Tensor:
        """`b c f H W` -> the same grid."""
        y = self.conv1(self.norm1.activated(x), next(carries))
        y = self.conv2(self.norm2.activated(y), next(carries))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))

    def layers(self, scale: int) -> Iterator[Temporal]:
        yield self.conv1, scale
        yield self.conv2, scale


class SpatialAttention(nn.Module):
    """One head over the cells of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, h = x.shape[0], x.shape[3]
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        q, k, v = rearrange(self.to_qkv(self.norm(frames)), "r (three c) h w -> three r 1 (h w) c", three=3)
        out = rearrange(attend(q, k, v), "r 1 (h w) c -> r c h w", h=h)
        return x + rearrange(self.proj(out), "(b f) c h w -> b c f h w", b=b)


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialAttention(channels)])

    def forward(self, x: Tensor, carries: Carries) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, carries))
        return self.resnets[1](x, carries)

    def layers(self, scale: int) -> Iterator[Temporal]:
        for block in self.resnets:
            yield from block.layers(scale)  # type: ignore[operator]


class Downsample(nn.Module):
    """To a grid half as fine; with `halves_time`, every two frames become one, but for the very first."""

    def __init__(self, channels: int, halves_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if halves_time else None

    def new_carry(self, batch: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The last frame, `b c 1 h w`."""
        assert self.time_conv is not None
        return torch.zeros(batch, self.time_conv.in_channels, 1, height, width, device=device, dtype=dtype)

    def forward(self, x: Tensor, carries: Carries, is_first: bool) -> Tensor:
        b = x.shape[0]
        x = rearrange(self.resample(rearrange(x, "b c f h w -> (b f) c h w")), "(b f) c h w -> b c f h w", b=b)
        if self.time_conv is None:
            return x
        carry = next(carries)
        y = x if is_first else self.time_conv(torch.cat([carry, x], 2))
        carry.copy_(x[:, :, -1:])
        return y

    def layers(self, scale: int) -> Iterator[Temporal]:
        if self.time_conv is not None:
            yield self, scale


class Upsample(nn.Module):
    """To a grid twice as fine; with `doubles_time`, every frame becomes two, but for the very first."""

    def __init__(self, channels: int, doubles_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(channels, channels // 2, 3, padding=1)
        )
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if doubles_time else None

    def forward(self, x: Tensor, carries: Carries, is_first: bool) -> Tensor:
        b = x.shape[0]
        if self.time_conv is not None:
            carry = next(carries)
            if not is_first:  # the first frame stays one, and is not part of the state either
                x = rearrange(self.time_conv(x, carry), "b (two c) f h w -> b c (f two) h w", two=2)
        return rearrange(self.resample(rearrange(x, "b c f h w -> (b f) c h w")), "(b f) c h w -> b c f h w", b=b)

    def layers(self, scale: int) -> Iterator[Temporal]:
        if self.time_conv is not None:
            yield self.time_conv, scale


@dataclass(frozen=True, slots=True)
class Part:
    """A link of the encoder's chain.  num_carries: its temporal layers."""

    run: Callable[[Tensor, Carries, bool], Tensor]
    num_carries: int
    halves_time: bool = False

    @property
    def memory_frames(self) -> int:
        """Frames before the present one that its output depends on, at its own rate."""
        return self.num_carries * (1 if self.halves_time else 2)


class Encoder(nn.Module):
    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = CausalConv3d(3, config.dim)
        self.down_blocks = nn.ModuleList()
        before = config.dim
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down_blocks.append(ResidualBlock(before, width))
                before = width
            if level + 1 < len(widths):
                self.down_blocks.append(Downsample(width, config.halves_time[level]))
        self.mid_block = Middle(before)
        self.norm_out = RMSNorm(before)
        self.conv_out = CausalConv3d(before, 2 * config.channels)

    def forward(self, x: Tensor, carries: Carries, is_first: bool) -> Tensor:
        """`b 3 f H W` of one step -> `b 2c 1 h w`."""
        for part in self.parts():
            x = part.run(x, carries, is_first)
        return x

    def parts(self) -> Iterator[Part]:
        """The encoder as a chain."""
        yield Part(lambda x, carries, _: self.conv_in(x, next(carries)), 1)
        for block in self.down_blocks:
            if isinstance(block, Downsample):
                yield Part(block, int(block.time_conv is not None), halves_time=block.time_conv is not None)
            else:
                yield Part(lambda x, carries, _, block=block: block(x, carries), 2)
        yield Part(lambda x, carries, _: self.mid_block(x, carries), 4)
        yield Part(lambda x, carries, _: self.conv_out(self.norm_out.activated(x), next(carries)), 1)

    def layers(self) -> Iterator[Temporal]:
        """Every temporal layer in the order of the carries."""
        yield self.conv_in, 1
        scale = 1
        for block in self.down_blocks:
            if isinstance(block, Downsample):
                scale *= 2
            yield from block.layers(scale)  # type: ignore[operator]
        yield from self.mid_block.layers(scale)
        yield self.conv_out, scale


class UpBlock(nn.Module):
    def __init__(self, before: int, after: int, blocks: int, doubles_time: bool | None) -> None:
        """doubles_time: None for the last, which stays on its grid."""
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(after if i else before, after) for i in range(blocks))
        self.upsamplers = nn.ModuleList([] if doubles_time is None else [Upsample(after, doubles_time)])

    def forward(self, x: Tensor, carries: Carries, is_first: bool) -> Tensor:
        for block in self.resnets:
            x = block(x, carries)
        for block in self.upsamplers:
            x = block(x, carries, is_first)
        return x

    def layers(self, scale: int) -> Iterator[Temporal]:
        for block in (*self.resnets, *self.upsamplers):
            yield from block.layers(scale)  # type: ignore[operator]


class Decoder(nn.Module):
    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = CausalConv3d(config.channels, widths[0])
        self.mid_block = Middle(widths[0])
        self.up_blocks = nn.ModuleList()
        times: tuple[bool | None, ...] = (*config.halves_time[::-1], None)
        for level, (width, time) in enumerate(zip(widths, times, strict=True)):
            before = widths[level - 1] // 2 if level else widths[0]  # upsampling halves the channels
            self.up_blocks.append(UpBlock(before, width, config.blocks + 1, time))
        self.norm_out = RMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], 3)

    def forward(self, z: Tensor, carries: Carries, is_first: bool) -> Tensor:
        """`b c 1 h w` -> `b 3 f H W`, one step's frames."""
        x = self.mid_block(self.conv_in(z, next(carries)), carries)
        for block in self.up_blocks:
            x = block(x, carries, is_first)
        return self.conv_out(self.norm_out.activated(x), next(carries))

    def layers(self) -> Iterator[Temporal]:
        """Every temporal layer in the order of the carries."""
        yield self.conv_in, 8
        yield from self.mid_block.layers(8)
        for level, block in enumerate(self.up_blocks):
            yield from block.layers(8 >> level)  # type: ignore[operator]
        yield self.conv_out, 1


class WanVAE(nn.Module):
    """Pixels <-> latents of zero mean and unit deviation, whole or streamed."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.post_quant_conv = nn.Conv3d(config.channels, config.channels, 1)
        self.decoder = Decoder(config)
        for name, values in (("latent_mean", config.mean), ("latent_std", config.std)):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(-1, 1, 1), persistent=False)

    def new_encoder_state(
        self,
        batch: int,
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> EncoderState:
        """A fresh stream of `height` x `width` pixels.  Raises ShapeError unless they are multiples of 16."""
        return _new_state(self.encoder, batch, height, width, torch.device(device), dtype)

    def new_decoder_state(
        self,
        batch: int,
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> DecoderState:
        """A fresh stream of `height` x `width` pixels.  Raises ShapeError unless they are multiples of 16."""
        return _new_state(self.decoder, batch, height, width, torch.device(device), dtype)

    def encode(self, video: Tensor, state: EncoderState | None = None) -> Tensor:
        """Video `b f 3 H W` in [-1, 1] -> latents `b t c h w`, the mean of each.

        A stream begins with 1 + 4n frames and goes on with 4n.  Without a state the call is a whole stream.
        Raises ShapeError for other frame counts, sizes that are not multiples of 16, or a state of another size.
        """
        frames = check_video(video, is_first=state is None or state.steps == 0)
        b, _, _, height, width = video.shape
        state = state or self.new_encoder_state(b, height, width, video.device, video.dtype)
        video = rearrange(video, "b f c h w -> b c f h w")
        cuts = [1, *[FRAMES] * (frames // FRAMES)] if state.steps == 0 else [FRAMES] * (frames // FRAMES)
        steps = []
        for chunk in video.split(cuts, 2):
            steps.append(self._normalise(self.encoder(chunk, iter(state.carries), state.steps == 0)))
            state.steps += 1
        return torch.cat(steps, 1)

    def encode_still(self, picture: Tensor) -> Iterator[Tensor]:
        """The latent of `picture` (b 3 H W), then those of grey frames after it, `b 1 c h w` each, as long as they
        change: the last one holds for ever.

        The encoder's memory is finite, so its parts come to rest one after another, and a part that has is run
        no more: the costly ones, on the grid of pixels, after 4 steps, the last after 30.
        """
        b, _, height, width = picture.shape
        carries = list(self.new_encoder_state(b, height, width, picture.device, picture.dtype).carries)
        grey = torch.zeros_like(picture)[:, :, None].expand(-1, -1, FRAMES, -1, -1)
        chain: list[tuple[Part, list[Tensor], int]] = []
        rests_at, frames = 1, FRAMES  # the step from which on a part's input does not change; frames of a step there
        for part in self.encoder.parts():
            rests_at += -(-part.memory_frames // frames)
            frames //= 2 if part.halves_time else 1
            chain.append((part, carries[: part.num_carries], rests_at))
            del carries[: part.num_carries]
        held = grey
        for step in range(rests_at + 1):
            x = held if step else picture[:, :, None]
            while chain and step > chain[0][2]:
                del chain[0]
            for part, remembered, rest in chain:
                x = part.run(x, iter(remembered), step == 0)
                if step == rest:
                    held = x
            yield self._normalise(x)

    def _normalise(self, moments: Tensor) -> Tensor:
        """The encoder's `b 2c t h w` -> latents `b t c h w`."""
        mean = rearrange(self.quant_conv(moments).chunk(2, 1)[0], "b c t h w -> b t c h w")
        return (mean - self.latent_mean) / self.latent_std

    def decode(self, z: Tensor, state: DecoderState | None = None) -> Tensor:
        """Latents `b t c h w` -> video `b f 3 H W`, about [-1, 1]; f = 4t, less 3 on a stream's first call.

        Raises ShapeError for another channel count, odd h or w, or a state of another size.
        """
        if z.ndim != 5 or z.shape[2] != self.config.channels or z.shape[1] < 1:
            raise ShapeError(f"expected latents (b, t, {self.config.channels}, h, w), t >= 1, got {tuple(z.shape)}")
        b, _, _, h, w = z.shape
        state = state or self.new_decoder_state(b, 8 * h, 8 * w, z.device, z.dtype)
        z = rearrange(z * self.latent_std + self.latent_mean, "b t c h w -> b c t h w")
        steps = []
        for step in self.post_quant_conv(z).split(1, 2):
            steps.append(self.decoder(step, iter(state.carries), state.steps == 0))
            state.steps += 1
        return rearrange(torch.cat(steps, 2), "b c f h w -> b f c h w")


def _new_state(
    part: Encoder | Decoder, batch: int, height: int, width: int, device: torch.device, dtype: torch.dtype
) -> TokenizerState:
    check_size(height, width)
    carries = (layer.new_carry(batch, height // r, width // r, device, dtype) for layer, r in part.layers())
    return TokenizerState(tuple(carries))
