"""A camera that is turned by the mouse: where a token looks, and what a picture becomes when the camera turns.

In a game with a free camera the mouse moves every pixel in a way that needs no learning: a turn is a known mapping of
the picture, whatever is in it.  The transformer is told so twice.  Rotary positions are the directions in which
tokens look, so that what was seen at an angle is found at that angle; and the condition of a step is the step before
it, turned.  Both cost next to nothing and are exact for turns.  What else moves the picture (a walk, a road, a jump)
depends on what is seen: `Motion`, a small network, says where to, and the picture is moved along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.models.actions import STEP_FRAMES


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """fov_deg: the horizontal field of view of the whole picture, in degrees."""

    fov_deg: float

    def focal(self, width: float) -> float:
        """Focal length of a picture `width` units wide, in those units."""
        return width / 2 / math.tan(math.radians(self.fov_deg) / 2)

    def directions(self, rows: int, columns: int, turn: Tensor) -> Tensor:
        """Where the cells of a grid look, in cells at the centre of the picture.

        turn: (..., 2) pitch and yaw in degrees, up and right positive.  Returns (..., rows * columns, 2) float64:
        downwards and to the right.
        """
        focal = self.focal(columns)
        unit = math.degrees(math.atan(1 / focal))
        y = torch.arange(rows, dtype=torch.float64, device=turn.device) + 0.5 - rows / 2
        x = torch.arange(columns, dtype=torch.float64, device=turn.device) + 0.5 - columns / 2
        x = torch.rad2deg(torch.atan(x / focal)) / unit
        down = y - turn[..., :1].double() / unit
        right = x + turn[..., 1:].double() / unit
        shape = (*turn.shape[:-1], rows, columns)
        grid = torch.stack([down.unsqueeze(-1).expand(shape), right.unsqueeze(-2).expand(shape)], -1)
        return grid.flatten(-3, -2)

    def turn(self, picture: Tensor, turn: Tensor, moved: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What `picture` becomes when the camera turns, and where that is known.

        picture: (r, c, H, W); turn: (r, j, 2) degrees of pitch and yaw, j turns of each picture; moved: (r, j, 2, H, W)
        where besides a place's content comes from, rightwards and downwards in halves of the picture.  Returns (r, j,
        c, H, W) and a (r, j, H, W) mask, 1 where the old picture covers the new one.  Yaw turns about the vertical
        axis; pitch shifts, as in games that shear the view, and nearly so in others while it is small.  Places are
        computed in float32 whatever the picture's type: bfloat16 would miss by half a pixel.  Bicubic, because what is
        turned is turned again at the next step, and bilinear means would soon be haze.
        """
        j = turn.shape[1]
        height, width = picture.shape[-2:]
        focal = self.focal(width)
        x = torch.arange(width, device=picture.device, dtype=torch.float32) + 0.5 - width / 2
        y = torch.arange(height, device=picture.device, dtype=torch.float32) + 0.5 - height / 2
        pitch, yaw = torch.deg2rad(turn.float()).unbind(-1)
        new = torch.atan(x / focal)
        old = (new + yaw.unsqueeze(-1)).clamp(-1.5, 1.5)
        from_x = focal * torch.tan(old)
        stretch = torch.cos(new) / torch.cos(old)
        from_y = (y[:, None] - focal * torch.tan(pitch)[..., None, None]) * stretch.unsqueeze(-2)
        grid = torch.stack(
            [(from_x * (2 / width)).unsqueeze(-2).expand_as(from_y), from_y * (2 / height)], -1
        )  # (r, j, H, W, 2)
        if moved is not None:
            grid = grid + moved.float().movedim(2, -1)
        # How much of a new pixel the old picture covers, rather than whether: what is made of it must not leap.
        across, down = (1 - grid.abs()).unbind(-1)
        known = (across * (width / 2) + 0.501).clamp(0, 1) * (down * (height / 2) + 0.501).clamp(0, 1)
        flat = rearrange(grid, "r j h w two -> r (j h) w two")
        turned = F.grid_sample(picture.float(), flat, mode="bicubic", padding_mode="reflection", align_corners=False)
        return rearrange(turned, "r c (j h) w -> r j c h w", j=j).to(picture.dtype), known.to(picture.dtype)


class Motion(nn.Module):
    """Where the content of a picture comes from, when something else than a turn moves it, and where it stays.

    A small convolutional network looks at the latent of the step before, which holds four frames and so what already
    moves, and at the action rows.  Fresh, it says that nothing moves.
    """

    MOST = 0.5
    """Of a displacement, in halves of the picture."""

    def __init__(self, channels: int, numbers: int, width: int) -> None:
        super().__init__()
        self.told = nn.Linear(numbers, width)
        self.enter = nn.Conv2d(channels + 2, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.leave = nn.Conv2d(width, 2 * STEP_FRAMES + 1, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """z: (r, c, h, w) latents; rows: (r, f, a) action rows.

        Returns (r, 4, 2, h, w), for each of the next 4 frames how far to the right and down its content stood before,
        in halves of the picture; and (r, 1, h, w), how much of a cell stays as it is, 0..1.
        """
        r, _, h, w = z.shape
        y, x = (torch.linspace(-1, 1, n, device=z.device, dtype=z.dtype) for n in (h, w))
        places = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(r, -1, -1, -1)
        hidden = self.enter(torch.cat([z, places], 1)) + self.told(rows.to(z.dtype).flatten(1))[..., None, None]
        for conv in self.middle:
            hidden = hidden + conv(F.silu(hidden))
        moved, stays = self.leave(F.silu(hidden)).split([2 * STEP_FRAMES, 1], 1)
        return self.MOST * torch.tanh(moved).unflatten(1, (STEP_FRAMES, 2)), torch.sigmoid(stays)


class TurnedStep(nn.Module):
    """The condition of a step: the step before it, as the camera's turn leaves it, in latent space.

    A linear map reads the last frame off a latent (at half size: 4x4 pixels a cell), the frame is turned as each of
    the next 4 frames is, and another linear map writes the 4 frames as a latent.  Both maps are fitted by least
    squares on a tokenizer's latents (`fit`), then fixed.  With `motion`, the width of a network, the frames are moved
    too, by what it makes of the step before and of the action rows (`numbers` in all).  Where it holds that a cell
    stays, what the maps lose of it is put back; where it is sure of it (`SURE`), the cell is the step before, exactly,
    and nothing is added to it (`free`): whoever stands still sees the same picture for as long as he likes.  Where the
    turn uncovers what was not seen, the picture is mirrored at its border, and a mask says so: a grey there would be a
    far worse guess (docs/LOG.md).
    """

    CELL = 4
    MASK_CHANNELS = STEP_FRAMES
    SURE = 0.45, 0.65
    """How much of a cell stays where that begins to count as all of it, and where it does.  In recorded play few cells
    come so far; where nothing moves nearly all do (docs/LOG.md)."""

    def __init__(self, camera: Camera, channels: int, numbers: int = 0, motion: int = 0) -> None:
        super().__init__()
        self.camera = camera
        self.motion = Motion(channels, numbers, motion).requires_grad_(False) if motion else None
        pixels = 3 * self.CELL**2
        self.to_pixels = nn.Conv2d(channels, pixels, 3, padding=1).requires_grad_(False)
        self.to_latent = nn.Conv2d(STEP_FRAMES * pixels, channels, 1).requires_grad_(False)

    def forward(self, z: Tensor, turn: Tensor, rows: Tensor) -> Tensor:
        """z: (r, c, h, w) the latent of the step before; turn: (r, 4, 2) degrees turned since its last frame, at each
        of the next 4 frames; rows: (r, f, a) the action rows that the step sees.  Returns (r, 4 + c + c, h, w): the
        mask, 0 where nothing is known, 1 where the step before says what is there, 2 where it stays; the step before as
        turned and moved; and as it is."""
        picture, moved = F.pixel_shuffle(self.to_pixels(z), self.CELL), None
        kept, sure = torch.zeros_like(z), torch.zeros_like(z[:, :1])
        if self.motion is not None:
            coarse, stays = self.motion(z, rows)
            fine = F.interpolate(coarse.flatten(0, 1), scale_factor=self.CELL, mode="bilinear", align_corners=False)
            moved = fine.unflatten(0, (len(z), STEP_FRAMES))
            kept = stays * (z - self._written(picture.unsqueeze(1).expand(-1, STEP_FRAMES, -1, -1, -1)))
            begins, whole = self.SURE
            sure = ((stays - begins) / (whole - begins)).clamp(0, 1)
        frames, known = self.camera.turn(picture, turn, moved)
        latent = self._written(frames) + kept
        mask = F.avg_pool2d(known, self.CELL)
        # In this form of lerp what is wholly sure is z to the last bit.
        return torch.cat([mask * (1 - sure) + 2 * sure, latent * (1 - sure) + z * sure, z], 1)

    @classmethod
    def free(cls, mask: Tensor, trust: float = 0.0) -> Tensor:
        """How much of what is added to the turned step counts: (..., 4, h, w) masks -> (..., 1, h, w), 0..1.

        1 - `trust` of it, and nothing where the step before stays.
        """
        return (1 - trust) * (2 - mask.mean(-3, keepdim=True)).clamp(max=1)

    def _written(self, frames: Tensor) -> Tensor:
        """Frames (r, 4, 3, H, W) as a latent (r, c, h, w)."""
        return self.to_latent(rearrange(F.pixel_unshuffle(frames, self.CELL), "r j c h w -> r (j c) h w"))

    @torch.no_grad()
    def fit(self, z: Tensor, last: Tensor, frames: Tensor, ridge: float = 1e-3) -> dict[str, float]:
        """Fit both maps by least squares.

        z: (r, c, h, w) latents of steps; last: (r, 3, H, W) their last frames; frames: (r, 4, 3, H, W) all their
        frames; pictures in [-1, 1] at half size (H = 4 h).  Returns the share of variance that each map explains.
        """
        near = rearrange(F.unfold(z, 3, padding=1), "r k n -> (r n) k")
        pixels = rearrange(F.pixel_unshuffle(last, self.CELL), "r c h w -> (r h w) c")
        weight, bias, seen = _least_squares(near, pixels, ridge)
        self.to_pixels.weight.copy_(weight.view_as(self.to_pixels.weight))
        self.to_pixels.bias.copy_(bias)  # type: ignore[union-attr]
        patches = rearrange(F.pixel_unshuffle(frames, self.CELL), "r j c h w -> (r h w) (j c)")
        weight, bias, written = _least_squares(patches, rearrange(z, "r c h w -> (r h w) c"), ridge)
        self.to_latent.weight.copy_(weight.view_as(self.to_latent.weight))
        self.to_latent.bias.copy_(bias)  # type: ignore[union-attr]
        return {"read": seen, "written": written}


def _least_squares(x: Tensor, y: Tensor, ridge: float) -> tuple[Tensor, Tensor, float]:
    """Ridge regression y = W x + b.  Returns W (out, in), b (out,) and the share of variance explained."""
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    xc, yc = x - x_mean, y - y_mean
    gram = xc.T @ xc / len(x)
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, xc.T @ yc / len(x))
    explained = 1 - ((yc - xc @ weight) ** 2).mean() / (yc**2).mean()
    return weight.T.float(), (y_mean - x_mean @ weight).float(), float(explained)


def turn_scale(fov_deg: float | None, to_deg: float | None) -> float:
    """What turns are multiplied by so that pictures of a field of view of `to_deg` move by as many pixels as those of
    `fov_deg` did (near the middle); 1 where either is unknown."""
    if fov_deg is None or to_deg is None:
        return 1.0
    return math.tan(math.radians(to_deg) / 2) / math.tan(math.radians(fov_deg) / 2)
