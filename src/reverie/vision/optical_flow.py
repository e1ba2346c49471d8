"""Dense optical flow between frames, and the camera motion that explains it.

Method: dense inverse search (Kroeger et al. 2016, arXiv 1603.03590, OpenCV's, preset medium), then a robust fit
(iterated re-weighting, Cauchy) of a camera model over the pixels that have texture and that the flow explains.

Letters: n pairs of frames, h w the frame, shrunk to at most MAX_ROWS rows.  Flow is in pixels of the *given* frames per
frame, x right and y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from reverie.errors import ShapeError
from reverie.types import Frames

MAX_ROWS = 144
WINDOW = 9
"""Texture and trust are means over so many pixels, square."""

MIN_TEXTURE = 2e-5
"""Smallest eigenvalue of the mean structure tensor (grey in [0, 1]) at which a pixel counts as textured."""

NOISE = 0.02
"""Root mean square difference (grey in [0, 1]) after warping at which a vector's trust has fallen to a quarter."""

PRIOR = 0.01
"""Weight, as a share of the frame, of the belief that nothing moves: it decides where nothing can be trusted."""


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
        """Each vector's place, y `(h, 1)` and x `(1, w)`, in pixels of the given frames from the frame's centre."""
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
    cv2.setNumThreads(1)  # the search goes stripe by stripe, one for each thread: its answer must not depend on them
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [_grey(frame) for frame in frames[::stride]]
    found = [search.calc(a, b, None) for a, b in pairwise(grey)]  # type: ignore[call-overload]
    weight = torch.from_numpy(np.stack([_trust(a, b, uv) for (a, b), uv in zip(pairwise(grey), found, strict=True)]))
    uv = rearrange(torch.from_numpy(np.stack(found)), "n h w two -> n two h w")
    height, width = frames.shape[1:3]
    to_pixels = torch.tensor([width / uv.shape[-1], height / uv.shape[-2]]) / stride
    return Flow(uv * to_pixels.view(1, 2, 1, 1), weight, (height, width))


def camera_turn_deg(flow: Flow, fov_deg: float) -> npt.NDArray[np.float32]:
    """(pitch, yaw) of the camera for each pair, `(n, 2)` degrees per frame; up and right are positive.

    The weighted median over the frame of the turn that would explain each vector, for a pinhole camera with a
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
    """Estimates the image's expansion from its centre for each pair, `(n,)` per frame: +0.03 is 3% larger, negative
    shrinks.

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


def _grey(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """`(h, w)`, halved until it has at most MAX_ROWS rows."""
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    while grey.shape[0] > MAX_ROWS:
        grey = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def _trust(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], uv: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`(h, w)` in [0, 1]: is there texture, does the flow explain what is seen, does it end inside the frame."""
    height, width = a.shape
    x, y = np.arange(width, dtype=np.float32) + uv[..., 0], np.arange(height, dtype=np.float32)[:, None] + uv[..., 1]
    before, after = a.astype(np.float32) / 255, b.astype(np.float32) / 255
    smallest = cv2.cornerMinEigenVal(before, WINDOW) / 4  # OpenCV's derivatives are twice the slope
    difference = cv2.remap(after, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) - before
    explained = 1 / (1 + cv2.blur(difference**2, (WINDOW, WINDOW)) / NOISE**2) ** 2
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return (smallest.clip(0) / (smallest.clip(0) + MIN_TEXTURE) * explained * inside).astype(np.float32)


def _weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """The value of each row at which half of the row's weight is reached, PRIOR of the row counting as 0."""
    values = torch.cat((values, torch.zeros_like(values[:, :1])), 1)
    weight = torch.cat((weight, torch.full_like(weight[:, :1], PRIOR * weight.shape[1])), 1)
    order = values.argsort(1)
    cumulative = weight.gather(1, order).cumsum(1)
    middle = (cumulative < cumulative[:, -1:] / 2).sum(1, keepdim=True).clamp(max=values.shape[1] - 1)
    return values.gather(1, order.gather(1, middle))[:, 0]
