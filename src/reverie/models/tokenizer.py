"""The project's own causal video tokenizer: pixels <-> latents, whole or streamed.

Geometry (Wan 2.1's): 8x8 pixels and 4 frames become one cell of 16 channels; the first frame of a stream is a step of
its own (it is repeated to fill the step, and the decoder drops the three copies).

Both halves are a linear map with a small network's correction on top.  The linear maps are fitted in closed form
before training (`reverie.train.pca`): principal components of 4x8x8 patches in the encoder, least squares from the
neighbourhood (3x3 cells, this step and the last) in the decoder.  Networks end in zeros, so training starts from there.
The four frames of a step are folded into channels on the coarse grids, where width is cheap; only the decoder's last,
thin stage runs frame by frame, and takes in the frame before.

Legend: b batch, f frames, t latent steps, H W pixels, h w cells of 8x8 pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from reverie.errors import ShapeError
from reverie.nn.conv import ChannelNorm, TemporalConv2d

CHANNELS = 16
FRAMES = 4
CELL = 8
PATCH = FRAMES * CELL * CELL * 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """Widths on the grids of 8x8 (coarse), 4x4 (middle) and 2x2 (fine) pixels, and residual blocks on the first two.

    The decoder's `fine` is per frame; all other widths hold the four frames of a step together.
    """

    encoder_coarse: int
    """Encoder's width on the grid of 8x8 pixels."""
    encoder_middle: int
    """Encoder's width on the grid of 4x4 pixels."""
    encoder_blocks: tuple[int, int]
    """Encoder's residual blocks, coarse and middle."""
    decoder_coarse: int
    """Decoder's width on the grid of 8x8 pixels."""
    decoder_middle: int
    """Decoder's width on the grid of 4x4 pixels."""
    decoder_fine: int
    """Decoder's width on the grid of 2x2 pixels, of one frame."""
    decoder_blocks: tuple[int, int]
    """Decoder's residual blocks, coarse and middle."""

    def __post_init__(self) -> None:
        widths = (self.encoder_coarse, self.encoder_middle, self.decoder_coarse, self.decoder_middle, self.decoder_fine)
        if min(widths) < 4 or any(width % 4 for width in widths):
            raise ShapeError(f"tokenizer widths must be multiples of 4, got {widths}")
        if min(*self.encoder_blocks, *self.decoder_blocks) < 0:
            raise ShapeError("a tokenizer cannot have fewer than 0 blocks")


def tiny() -> TokenizerConfig:
    """For tests."""
    return TokenizerConfig(
        encoder_coarse=16,
        encoder_middle=8,
        encoder_blocks=(1, 1),
        decoder_coarse=16,
        decoder_middle=16,
        decoder_fine=8,
        decoder_blocks=(1, 1),
    )


def nano() -> TokenizerConfig:
    """Budgeted for two CPU cores at 128x224."""
    return TokenizerConfig(
        encoder_coarse=192,
        encoder_middle=96,
        encoder_blocks=(2, 1),
        decoder_coarse=192,
        decoder_middle=192,
        decoder_fine=32,
        decoder_blocks=(2, 1),
    )


@dataclass(slots=True)
class TokenizerState:
    """State of a stream: the convolution state of every temporal layer in order, and the steps gone by."""

    carries: tuple[Tensor, ...]
    steps: int = 0

    def clone(self) -> TokenizerState:
        """An independent copy."""
        return TokenizerState(tuple(carry.clone() for carry in self.carries), self.steps)

    def copy_(self, other: TokenizerState) -> TokenizerState:
        """Become `other`, in place, bit for bit."""
        for mine, theirs in zip(self.carries, other.carries, strict=True):
            mine.copy_(theirs)
        self.steps = other.steps
        return self

    def reset(self) -> None:
        """Become fresh."""
        for carry in self.carries:
            carry.zero_()
        self.steps = 0


EncoderState = TokenizerState
DecoderState = TokenizerState


class Block(nn.Module):
    """x + conv(act(temporal conv(norm x))).  The leading `past` channels of the step before are inputs too."""

    def __init__(self, width: int, past: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = ChannelNorm(width) if norm else nn.Identity()
        self.mix = TemporalConv2d(width, width, past=past)
        self.out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, carry: Tensor | None) -> Tensor:
        """`b t c h w` -> the same."""
        y = F.silu(self.mix(self.norm(x), carry))
        return x + self.out(y.flatten(0, 1)).unflatten(0, x.shape[:2])


def _blocks(width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width, width // 4) for _ in range(count))


def _fold(x: Tensor, factor: int) -> Tensor:
    """Squares of cells into channels: `b t c (h r) (w r)` -> `b t (r r c) h w`, channels_last."""
    y = rearrange(x, "b t c (h p) (w q) -> b t h w (p q c)", p=factor, q=factor)
    return y.movedim(-1, 2)


def _unfold(x: Tensor, factor: int) -> Tensor:
    """The inverse of `_fold`."""
    y = rearrange(x.movedim(2, -1), "b t h w (p q c) -> b t (h p) (w q) c", p=factor, q=factor)
    return y.movedim(-1, 2)


def patches(video: Tensor, size: int) -> Tensor:
    """Steps of four frames into channels: `b (4 t) 3 H W` -> `b t (4 size size 3) H/size W/size`, channels_last."""
    y = rearrange(video, "b (t s) c (h p) (w q) -> b t h w (s p q c)", s=FRAMES, p=size, q=size)
    return y.movedim(-1, 2)


class _Part(nn.Module):
    """Common base of encoder and decoder: their temporal layers in order, and a state that fits them."""

    def layers(self) -> Iterator[tuple[TemporalConv2d, int]]:
        """Every temporal layer in the order of the carries, with its pixels per cell."""
        raise NotImplementedError

    def new_state(
        self, batch: int, height: int, width: int, device: torch.device, dtype: torch.dtype
    ) -> TokenizerState:
        check_size(height, width)
        return TokenizerState(
            tuple(layer.new_carry(batch, height // r, width // r, device, dtype) for layer, r in self.layers())
        )


class _Encoder(_Part):
    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        coarse, middle = config.encoder_coarse, config.encoder_middle
        self.linear = nn.Linear(PATCH, CHANNELS)
        self.enter = nn.Conv2d(PATCH // 4, middle, 3, padding=1)
        self.middle = _blocks(middle, config.encoder_blocks[1])
        self.down = nn.Linear(4 * middle, coarse)
        self.coarse = _blocks(coarse, config.encoder_blocks[0])
        self.norm = ChannelNorm(coarse)
        self.leave = nn.Conv2d(coarse, CHANNELS, 3, padding=1)
        _initialise(self)

    def layers(self) -> Iterator[tuple[TemporalConv2d, int]]:
        yield from ((block.mix, 4) for block in _each(self.middle))
        yield from ((block.mix, 8) for block in _each(self.coarse))

    def forward(self, video: Tensor, carries: Iterator[Tensor | None]) -> Tensor:
        """Whole steps `b (4 t) 3 H W` -> `b t 16 h w`."""
        x = _flat(self.enter, patches(video, 4))
        for block in self.middle:
            x = block(x, next(carries))
        x = _point(self.down, _fold(x, 2))
        for block in self.coarse:
            x = block(x, next(carries))
        return _point(self.linear, patches(video, CELL)) + _flat(self.leave, F.silu(self.norm(x)))


class _Decoder(_Part):
    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        coarse, middle, fine = config.decoder_coarse, config.decoder_middle, config.decoder_fine
        self.linear = TemporalConv2d(CHANNELS, PATCH)
        self.enter = TemporalConv2d(CHANNELS, coarse)
        self.coarse = _blocks(coarse, config.decoder_blocks[0])
        self.up = nn.Linear(coarse, 4 * middle)
        self.middle = _blocks(middle, config.decoder_blocks[1])
        self.split = nn.Linear(middle, FRAMES * 4 * fine)
        self.fine = Block(fine, fine // 2, norm=False)
        self.leave = nn.Conv2d(fine, 12, 3, padding=1)
        _initialise(self)

    def layers(self) -> Iterator[tuple[TemporalConv2d, int]]:
        yield self.linear, 8
        yield self.enter, 8
        yield from ((block.mix, 8) for block in _each(self.coarse))
        yield from ((block.mix, 4) for block in _each(self.middle))
        yield self.fine.mix, 2

    def forward(self, z: Tensor, carries: Iterator[Tensor | None]) -> Tensor:
        """`b t 16 h w` -> whole steps `b (4 t) 3 H W`."""
        linear = self.linear(z, next(carries))
        x = self.enter(z, next(carries))
        for block in self.coarse:
            x = block(x, next(carries))
        x = _unfold(_point(self.up, x), 2)
        for block in self.middle:
            x = block(x, next(carries))
        x = _point(self.split, x)
        x = rearrange(x.movedim(2, -1), "b t h w (s p q c) -> b (t s) (h p) (w q) c", s=FRAMES, p=2, q=2).movedim(-1, 2)
        x = self.fine(x, next(carries))
        x = _flat(self.leave, F.silu(x))
        detail = rearrange(x.movedim(2, -1), "b f h w (p q c) -> b f (h p) (w q) c", p=2, q=2)
        base = rearrange(linear.movedim(2, -1), "b t h w (s p q c) -> b (t s) (h p) (w q) c", s=FRAMES, p=CELL, q=CELL)
        return (base + detail).movedim(-1, 2)


class VideoTokenizer(nn.Module):
    """Pixels <-> latents.  Streams are strictly causal: any chunking into whole steps gives what the whole gives."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(CHANNELS))
        self.register_buffer("latent_std", torch.ones(()))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # torch's stub lacks it alone

    def new_encoder_state(
        self,
        batch: int,
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> EncoderState:
        """A fresh stream of `height` x `width` pixels.  Raises ShapeError unless they are multiples of 16."""
        return self.encoder.new_state(batch, height, width, torch.device(device), dtype)

    def new_decoder_state(
        self,
        batch: int,
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> DecoderState:
        """A fresh stream of `height` x `width` pixels.  Raises ShapeError unless they are multiples of 16."""
        return self.decoder.new_state(batch, height, width, torch.device(device), dtype)

    def encode(self, video: Tensor, state: EncoderState | None = None) -> Tensor:
        """Video `b f 3 H W` in [-1, 1] -> latents `b t 16 h w`, about zero mean and unit deviation overall.

        A stream begins with 1 + 4n frames and goes on with 4n.  Without a state the call is a whole stream.
        Raises ShapeError for other frame counts, sizes that are not multiples of 16, or a state of another size.
        """
        is_first = state is None or state.steps == 0
        frames = check_video(video, is_first)
        if is_first:
            video = torch.cat([video[:, :1].expand(-1, FRAMES - 1, -1, -1, -1), video], 1)
        raw = self.encoder(video, _carries(state))
        if state is not None:
            state.steps += (frames + 3) // FRAMES
        return (raw - self.latent_mean.view(-1, 1, 1)) / self.latent_std

    def decode(self, z: Tensor, state: DecoderState | None = None) -> Tensor:
        """Latents `b t 16 h w` -> video `b f 3 H W`, about [-1, 1]; f = 4t, less 3 on a stream's first call.

        Raises ShapeError for another channel count, odd h or w, or a state of another size.
        """
        if z.ndim != 5 or z.shape[2] != CHANNELS or z.shape[1] < 1:
            raise ShapeError(f"expected latents (b, t, {CHANNELS}, h, w) with t >= 1, got {tuple(z.shape)}")
        check_size(z.shape[3] * CELL, z.shape[4] * CELL)
        is_first = state is None or state.steps == 0
        video = self.decoder(z * self.latent_std + self.latent_mean.view(-1, 1, 1), _carries(state))
        if state is not None:
            state.steps += z.shape[1]
        return video[:, FRAMES - 1 :] if is_first else video


def check_size(height: int, width: int) -> None:
    """Raise ShapeError unless both are positive multiples of 16."""
    if height < 16 or width < 16 or height % 16 or width % 16:
        raise ShapeError(f"height and width must be multiples of 16, got {height}x{width}; resize or crop the pictures")


def check_video(video: Tensor, is_first: bool) -> int:
    if video.ndim != 5 or video.shape[2] != 3:
        raise ShapeError(f"expected video (b, f, 3, H, W), got {tuple(video.shape)}")
    frames, height, width = video.shape[1], video.shape[3], video.shape[4]
    check_size(height, width)
    if frames < 1 or frames % FRAMES != (1 if is_first else 0):
        expected = "1 + 4n frames at the start of a stream" if is_first else "4n frames within a stream"
        raise ShapeError(f"expected {expected}, got {frames}")
    return frames


def _carries(state: TokenizerState | None) -> Iterator[Tensor | None]:
    if state is None:
        while True:
            yield None
    yield from state.carries


def _each(blocks: nn.ModuleList) -> Iterator[Block]:
    for block in blocks:
        assert isinstance(block, Block)
        yield block


def _flat(layer: nn.Module, x: Tensor) -> Tensor:
    """A 2D layer at every step of `b t c h w`."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _point(layer: nn.Linear, x: Tensor) -> Tensor:
    """A layer at every cell of `b t c h w`; free of copies in channels_last."""
    return layer(x.movedim(2, -1)).movedim(-1, 2)


def _initialise(part: nn.Module) -> None:
    """Unit gain everywhere, less at the ends of residual branches, and nothing from the network as a whole."""
    for name, layer in part.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            gain = 0.3 if name.endswith(".out") else 0.0 if name == "leave" else 1.0
            nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
