"""The measures, each a pure function over uint8 frames `(f, H, W, 3)`.

Every docstring states the formula, the range and unit, which way is better, and the source.  Nothing here uses models,
datasets or files.  The camera's motion is estimated in `reverie.vision.optical_flow`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch.nn import functional as F

from reverie.errors import ShapeError
from reverie.types import Frames
from reverie.vision.optical_flow import camera_turn_deg, estimate_flow, expansion

Values = npt.NDArray[np.float32]

MIN_TURN_DEG = 0.1
"""A clip turns if its mean turn is at least this, in degrees per frame; below it, it stands still."""

MIN_ZOOM = 0.0005
"""A clip grows or shrinks if its mean expansion per frame is at least this; below it, it stands still."""

PSNR_CAP_DB = 60.0
"""PSNR of equal images, in place of infinity."""


def turn_deg(frames: Frames, fov_deg: float) -> tuple[float, float]:
    """Mean (pitch, yaw) of the camera over a clip, degrees per frame; up and right are positive.

    The mean over neighbouring frames of `motion.camera_turn_deg` (a robust median of pinhole turns over dense optical
    flow). Range: about +-8 at 224 px; flow cannot follow faster turns.  Walking sideways reads as a small yaw too.
    """
    pitch, yaw = camera_turn_deg(estimate_flow(frames), fov_deg).mean(0)
    return float(pitch), float(yaw)


def zoom_rate(frames: Frames) -> float:
    """Mean growth of the image from its centre per frame: the mean of `motion.expansion` over neighbouring frames.

    +0.03 means 3% larger each frame.  Walking forward is positive, walking back negative, a still or turning view
    about 0.
    """
    return float(expansion(estimate_flow(frames)).mean())


def turns_towards(rate_deg: float, wanted: float) -> bool:
    """Tests whether a turn of `rate_deg` per frame has the sign of `wanted` and at least MIN_TURN_DEG."""
    return bool(rate_deg * np.sign(wanted) >= MIN_TURN_DEG)


def zooms_towards(rate: float, wanted: float) -> bool:
    """Tests whether a growth of `rate` per frame has the sign of `wanted` and at least MIN_ZOOM."""
    return bool(rate * np.sign(wanted) >= MIN_ZOOM)


def psnr_db(frames: Frames, truth: Frames) -> Values:
    """Peak signal-to-noise ratio of each frame, `(f,)`, dB: 10 log10(255^2 / mean squared error over all pixels,
    channels).

    Range 0 to PSNR_CAP_DB (equal frames), higher is better.  It rewards blur: read it together with sharpness.
    """
    _check_alike(frames, truth)
    error = np.square(frames.astype(np.float32) - truth.astype(np.float32)).mean((1, 2, 3))
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-9)), PSNR_CAP_DB).astype(np.float32)


def ssim(frames: Frames, truth: Frames) -> Values:
    """Structural similarity of each frame's grey image, `(f,)`.

    Wang, Bovik, Sheikh and Simoncelli 2004, equation 13, with a uniform 7x7 window, K1 = 0.01, K2 = 0.03 and sample
    covariances, averaged over the windows that lie inside.  Range -1 to 1 (equal frames), higher is better.
    """
    _check_alike(frames, truth)
    if min(frames.shape[1:3]) < 7:
        raise ShapeError(f"ssim needs pictures of at least 7x7 pixels, got {frames.shape[1:3]}")
    x, y = _grey(frames), _grey(truth)

    def mean(picture: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(picture, 7, 1)

    mx, my = mean(x), mean(y)
    sample = 49 / 48
    vx, vy, vxy = ((mean(p) - m) * sample for p, m in ((x * x, mx * mx), (y * y, my * my), (x * y, mx * my)))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return index.mean((1, 2, 3)).float().numpy()


def sharpness(frames: Frames) -> Values:
    """Standard deviation of each frame's Laplacian, `(f,)`, grey levels; 0 for a flat image.

    The 4-neighbour Laplacian of the grey image (Pech-Pacheco et al. 2000 use its variance).  No target of its own:
    compare with real frames of the same places.  Blur lowers it, noise and flicker raise it: near the real value is
    best.
    """
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64).view(1, 1, 3, 3)
    return F.conv2d(_grey(frames), kernel).flatten(1).std(1, correction=0).float().numpy()


def contrast(frames: Frames) -> Values:
    """Standard deviation of each frame's grey image (RMS contrast, Peli 1990), `(f,)`, grey levels, 0 to 127.5.

    Compare with real frames; a rollout that fades to fog loses it.
    """
    return _grey(frames).flatten(1).std(1, correction=0).float().numpy()


def saturation(frames: Frames) -> Values:
    """Mean over each frame's pixels of max(R, G, B) - min(R, G, B), `(f,)`, levels, 0 (grey) to 255 (pure colours).

    HSV's chroma, which unlike its saturation is calm where the image is dark.  Compare with real frames; colours that
    run away raise it.
    """
    return (frames.max(3).astype(np.float32) - frames.min(3)).mean((1, 2))


def frame_change(frames: Frames) -> Values:
    """Mean absolute difference between each frame and the one before, `(f - 1,)`, levels, 0 (frozen) to 255.

    Standing still in an empty level should be near 0; lower is better there, and 0 while walking means a frozen one.
    """
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3)).astype(np.float32)


def _grey(frames: Frames) -> torch.Tensor:
    """`(f, 1, H, W)` float64 grey levels: Rec. 601 luma."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ShapeError(f"frames must be (f, H, W, 3), got {tuple(frames.shape)}")
    luma = frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return rearrange(torch.from_numpy(luma), "f h w -> f 1 h w")


def _check_alike(frames: Frames, truth: Frames) -> None:
    if frames.shape != truth.shape or frames.ndim != 4 or len(frames) == 0:
        raise ShapeError(
            f"two videos (f, H, W, 3) of the same shape are compared, got {frames.shape} and {truth.shape}"
        )
