"""What moved, and which way: dense optical flow between frames and the camera motion that explains it.

Method: pyramidal Lucas-Kanade (Lucas and Kanade 1981; Bouguet 2001), dense, over a 9x9 window on pictures shrunk to at
most 80 rows, then a robust fit (iterated re-weighting, Cauchy) of a camera model over the pixels that have texture and
that the flow explains.  Plain torch: a few milliseconds a pair, and no library that the rest of the package does not
need.

Letters: n pairs of frames, h w the shrunk picture.  Flow is in pixels of the *given* frames per frame, x right and y
down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from reverie.errors import ShapeError
from reverie.types import Frames

MAX_ROWS = 80
WINDOW = 9
ITERATIONS = 4
MIN_ROWS = 8
"""The coarsest level of the pyramid has at least this many rows."""

MIN_TEXTURE = 2e-5
"""Smallest eigenvalue of the mean structure tensor (grey in [0, 1]) at which a pixel counts as textured."""


NOISE = 0.02
"""Root mean square difference (grey in [0, 1]) after warping at which a vector's trust has fallen to a quarter."""

PRIOR = 0.01
"""Weight, as a share of the picture, of the belief that nothing moves: it decides where nothing can be trusted."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Motion between neighbouring frames.

    uv: `(n, 2, h, w)` float32, pixels of the given frames per frame (x right, y down).
    weight: `(n, h, w)` float32 in [0, 1], how far each vector can be trusted.  size: (H, W) of the given frames.
    """

    uv: Tensor
    weight: Tensor
    size: tuple[int, int]

    def grid(self) -> tuple[Tensor, Tensor]:
        """Each vector's place, y `(h, 1)` and x `(1, w)`, in pixels of the given frames from the picture's centre."""
        (height, width), (h, w) = self.size, self.uv.shape[-2:]
        y = ((torch.arange(h) + 0.5) / h - 0.5) * height
        x = ((torch.arange(w) + 0.5) / w - 0.5) * width
        return y[:, None], x[None]


@torch.no_grad()
def estimate_flow(frames: Frames, stride: int = 1) -> Flow:
    """Flow from frame i to frame i + stride for i = 0, stride, 2 stride, ..., per frame.

    frames: `(f, H, W, 3)` uint8 with f > stride.  Raises ShapeError otherwise.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[0] <= stride:
        raise ShapeError(f"motion needs frames (f, H, W, 3) with f > {stride}, got {tuple(frames.shape)}")
    grey = _grey(frames[::stride])
    first, second = _pyramid(grey[:-1]), _pyramid(grey[1:])
    uv = torch.zeros(len(grey) - 1, 2, *first[-1].shape[-2:])
    weight = torch.zeros(0)
    for a, b in zip(reversed(first), reversed(second), strict=True):
        scale = (a.shape[-1] / uv.shape[-1], a.shape[-2] / uv.shape[-2])
        uv = F.interpolate(uv, a.shape[-2:], mode="bilinear") * torch.tensor(scale).view(1, 2, 1, 1)
        uv, weight = _refine(a, b, uv)
    height, width = frames.shape[1:3]
    to_pixels = torch.tensor([width / uv.shape[-1], height / uv.shape[-2]]) / stride
    return Flow(uv * to_pixels.view(1, 2, 1, 1), weight, (height, width))


def camera_turn_deg(flow: Flow, fov_deg: float) -> npt.NDArray[np.float32]:
    """(pitch, yaw) of the camera for each pair, `(n, 2)` degrees per frame; up and right are positive.

    The weighted median over the picture of the turn that would explain each vector, for a pinhole camera with a
    horizontal field of view of `fov_deg`: a yaw of w radians moves a pixel x from the centre by -w (F + x^2 / F), F the
    focal length; a pitch moves it by +w (F + y^2 / F).  A median, so that what moves by parallax or on its own has
    little say.
    """
    focal = flow.size[1] / 2 / math.tan(math.radians(fov_deg) / 2)
    y, x = flow.grid()
    yaw = -flow.uv[:, 0] / (focal + x**2 / focal)
    pitch = flow.uv[:, 1] / (focal + y**2 / focal)
    both = [_weighted_median(angle.flatten(1), flow.weight.flatten(1)) for angle in (pitch, yaw)]
    return torch.stack(both, 1).rad2deg().numpy()


def expansion(flow: Flow) -> npt.NDArray[np.float32]:
    """How fast the picture grows from its centre for each pair, `(n,)` per frame: +0.03 is 3% larger, negative shrinks.

    The s of the robust least-squares fit u = a + s x, v = b + s y, x and y from the centre: the mean of du/dx and
    dv/dy, half of the field's divergence.  Walking forward gives s > 0 (what is seen comes nearer), walking back s < 0,
    a pure turn about 0.
    """
    y, x = flow.grid()
    x, y = x.expand(flow.uv.shape[-2:]).flatten(), y.expand(flow.uv.shape[-2:]).flatten()
    u, v, trust = flow.uv[:, 0].flatten(1), flow.uv[:, 1].flatten(1), flow.weight.flatten(1)
    weight = trust
    a = b = s = torch.zeros(len(u), 1)
    for _ in range(8):
        total = weight.sum(1, keepdim=True) + 1e-6
        mean = [(weight * q).sum(1, keepdim=True) / total for q in (x.expand_as(u), y.expand_as(u), u, v)]
        dx, dy, du, dv = (q - m for q, m in zip((x, y, u, v), mean, strict=True))
        spread = (weight * (dx**2 + dy**2)).sum(1, keepdim=True) + PRIOR * (x**2 + y**2).sum()
        s = (weight * (dx * du + dy * dv)).sum(1, keepdim=True) / spread
        a, b = mean[2] - s * mean[0], mean[3] - s * mean[1]
        residual = ((u - a - s * x) ** 2 + (v - b - s * y) ** 2).sqrt()
        scale = _weighted_median(residual, trust)[:, None].clamp(min=0.1)
        weight = trust / (1 + (residual / (2 * scale)) ** 2)
    return s[:, 0].numpy()


def _grey(frames: Frames) -> Tensor:
    """`(f, 1, h, w)` grey in [0, 1], halved until it has at most MAX_ROWS rows."""
    rgb = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "f h w c -> f c h w").float() / 255
    grey = (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    while grey.shape[-2] > MAX_ROWS:
        grey = F.avg_pool2d(grey, 2)
    return grey


def _pyramid(grey: Tensor) -> list[Tensor]:
    levels = [_blur(grey)]
    while levels[-1].shape[-2] // 2 >= MIN_ROWS:
        levels.append(F.avg_pool2d(_blur(levels[-1]), 2))
    return levels


def _blur(x: Tensor) -> Tensor:
    kernel = torch.tensor([0.25, 0.5, 0.25])
    n, c, h, w = x.shape
    x = x.reshape(n * c, 1, h, w)
    x = F.conv2d(F.pad(x, (1, 1, 0, 0), "replicate"), kernel.view(1, 1, 1, 3))
    x = F.conv2d(F.pad(x, (0, 0, 1, 1), "replicate"), kernel.view(1, 1, 3, 1))
    return x.reshape(n, c, h, w)


def _window_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def _refine(a: Tensor, b: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
    """Lucas-Kanade steps at one level: the flow, and the trust in it, `(n, h, w)`."""
    padded = F.pad(a, (1, 1, 1, 1), "replicate")
    ax = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    ay = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, xy, yy = (_window_mean(p) for p in (ax * ax, ax * ay, ay * ay))
    ridge = 1e-5
    det = (xx + ridge) * (yy + ridge) - xy**2
    for _ in range(ITERATIONS):
        error = _warp(b, uv) - a
        ex, ey = _window_mean(ax * error), _window_mean(ay * error)
        du = -((yy + ridge) * ex - xy * ey) / det
        dv = -((xx + ridge) * ey - xy * ex) / det
        uv = uv + torch.cat((du, dv), 1).clamp(-1, 1)
    smallest = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    unexplained = _window_mean((_warp(b, uv) - a) ** 2)
    explained = 1 / (1 + unexplained / NOISE**2) ** 2
    textured = smallest / (smallest + MIN_TEXTURE)
    return uv, (textured * explained * _inside(uv))[:, 0]


def _warp(picture: Tensor, uv: Tensor) -> Tensor:
    """The picture looked up at each place plus its flow, bilinear, the border repeated."""
    h, w = picture.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    at = torch.stack(((x + uv[:, 0] + 0.5) / w * 2 - 1, (y + uv[:, 1] + 0.5) / h * 2 - 1), -1)
    return F.grid_sample(picture, at, mode="bilinear", padding_mode="border", align_corners=False)


def _inside(uv: Tensor) -> Tensor:
    """1 where the flow ends inside the picture, else 0, `(n, 1, h, w)`."""
    h, w = uv.shape[-2:]
    y, x = torch.arange(h)[:, None] + uv[:, 1:], torch.arange(w)[None] + uv[:, :1]
    return ((x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)).float()


def _weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """The value of each row at which half of the row's weight is reached, PRIOR of the row counting as 0."""
    values = torch.cat((values, torch.zeros_like(values[:, :1])), 1)
    weight = torch.cat((weight, torch.full_like(weight[:, :1], PRIOR * weight.shape[1])), 1)
    order = values.argsort(1)
    cumulative = weight.gather(1, order).cumsum(1)
    middle = (cumulative < cumulative[:, -1:] / 2).sum(1, keepdim=True).clamp(max=values.shape[1] - 1)
    return values.gather(1, order.gather(1, middle))[:, 0]
