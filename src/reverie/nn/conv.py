"""Causal convolutions over time: the same layers whole or streamed.

A layer holds weights only.  The state of a stream, the last frames of a layer's input, is its *carry*: a tensor made
once by `new_carry`, handed to every call and updated in place.  Without a carry a call is a whole stream
of its own that starts from zeros, which is exactly what a fresh carry holds.

Legend: b batch, t time, c channels, h w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reverie.errors import ShapeError


class TemporalConv2d(nn.Module):
    """A convolution over space and two moments, now and the one before, done as one 2D convolution.

    The moment before is concatenated to the channels; `past` says how many of the leading input channels are
    remembered (all of them unless told).  On a CPU in channels_last this runs near the speed of a dense convolution,
    where a true 3D one does not.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, past: int | None = None) -> None:
        super().__init__()
        self.past = in_channels if past is None else past
        if not 0 <= self.past <= in_channels or kernel % 2 == 0:
            raise ShapeError(f"expected an odd kernel and past within 0..{in_channels}, got {kernel} and {self.past}")
        self.conv = nn.Conv2d(in_channels + self.past, out_channels, kernel, padding=kernel // 2)

    def new_carry(self, batch: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A fresh carry, `b past h w` of zeros."""
        carry = torch.zeros(batch, self.past, height, width, device=device, dtype=dtype)
        return carry.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, carry: Tensor | None = None) -> Tensor:
        """`b t c h w` -> `b t out h w`; `carry`, if given, is continued.  Raises ShapeError if it does not fit."""
        b, t, _, h, w = x.shape
        if carry is not None and carry.shape != (b, self.past, h, w):
            raise ShapeError(
                f"the carry is {tuple(carry.shape)}, the input needs {(b, self.past, h, w)}; make a new state"
            )
        recent = x[:, :, : self.past]
        before = torch.zeros_like(recent[:, :1]) if carry is None else carry.to(x.dtype).unsqueeze(1)
        if t > 1:
            before = torch.cat([before, recent[:, :-1]], 1)
        joined = torch.cat([x.flatten(0, 1), before.flatten(0, 1)], 1)
        y = self.conv(joined.contiguous(memory_format=torch.channels_last))
        if carry is not None:
            carry.copy_(recent[:, -1])
        return y.unflatten(0, (b, t))


class CausalConv3d(nn.Conv3d):
    """A 3D convolution over the present and the `kernel[0] - 1` frames before it; zeros before the start.

    Spatial padding is symmetric; time is padded in front only.  The time stride must be 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))
        self.frames_kept = kernel[0] - 1

    def new_carry(self, batch: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A fresh carry, `b c kernel-1 h w` of zeros."""
        return torch.zeros(batch, self.in_channels, self.frames_kept, height, width, device=device, dtype=dtype)

    def forward(self, x: Tensor, carry: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # the carry is the point
        """`b c t h w` -> `b out t h w`; `carry`, if given, is continued.  Raises ShapeError if it does not fit."""
        b, c, _, h, w = x.shape
        if carry is not None and carry.shape != (b, c, self.frames_kept, h, w):
            raise ShapeError(
                f"the carry is {tuple(carry.shape)}, the input needs {(b, c, self.frames_kept, h, w)}; make a new state"
            )
        before = x.new_zeros(b, c, self.frames_kept, h, w) if carry is None else carry.to(x.dtype)
        joined = torch.cat([before, x], 2)
        if carry is not None and self.frames_kept:
            carry.copy_(joined[:, :, -self.frames_kept :])
        return F.conv3d(joined, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each cell: no statistics over space or time, so streaming changes nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`... c h w` -> the same; free of copies in channels_last."""
        y = F.layer_norm(x.movedim(-3, -1), self.weight.shape, self.weight, self.bias, 1e-5)
        return y.movedim(-1, -3)
