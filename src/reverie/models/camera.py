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
        return width / 2 / self._reach

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

    def around(self, places: Tensor, turn: Tensor, aspect: float) -> Tensor:
        """Where places of a picture lie on a cylinder about the camera, which a turn only shifts.

        places: (..., H, W, 2) rightwards and downwards from the middle, in halves of the picture; turn: (..., 2)
        degrees of pitch and yaw of the camera that sees them; aspect: H / W.  Returns (..., H, W, 2) float32: the
        angle, in radians to the right, and how far down, in focal lengths.  Yaw turns about the vertical axis; pitch
        shifts, as in games that shear the view, and nearly so in others while it is small.  float32 whatever the
        picture's type: bfloat16 would miss by half a pixel.
        """
        x, y = (places.float() * self._reach).unbind(-1)
        pitch, yaw = torch.deg2rad(turn.float())[..., None, None, :].unbind(-1)
        angle = torch.atan(x)
        return torch.stack([angle + yaw, (y * aspect - torch.tan(pitch)) * torch.cos(angle)], -1)

    def on_screen(self, around: Tensor, aspect: float) -> Tensor:
        """The inverse of `around` for a camera that is not turned; what lies at its sides and behind it, far out."""
        angle, down = around.unbind(-1)
        angle = angle.clamp(-1.5, 1.5)
        return torch.stack([torch.tan(angle), down / torch.cos(angle) / aspect], -1) / self._reach

    def mirrored(self, around: Tensor) -> Tensor:
        """Places on the cylinder as if what an unturned camera sees were mirrored at its sides, all the way round."""
        angle, down = around.unbind(-1)
        half = math.radians(self.fov_deg) / 2
        return torch.stack([half - ((angle + half) % (4 * half) - 2 * half).abs(), down], -1)

    @property
    def _reach(self) -> float:
        """Half of the picture's width, in focal lengths."""
        return math.tan(math.radians(self.fov_deg) / 2)


def screen(height: int, width: int, device: torch.device) -> Tensor:
    """The middles of a picture's pixels, (H, W, 2) rightwards and downwards from its middle in halves of it."""
    y, x = ((torch.arange(n, device=device, dtype=torch.float32) + 0.5) * (2 / n) - 1 for n in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)


def sample(picture: Tensor, places: Tensor) -> Tensor:
    """What a picture (r, c, H, W) shows at `places` (r, j, H, W, 2): (r, j, c, H, W); mirrored beyond its border.

    Bicubic, because what is moved is moved again at the next step, and bilinear means would soon be haze.
    """
    j = places.shape[1]
    flat = rearrange(places, "r j h w two -> r (j h) w two")
    found = F.grid_sample(picture.float(), flat, mode="bicubic", padding_mode="reflection", align_corners=False)
    return rearrange(found, "r c (j h) w -> r j c h w", j=j).to(picture.dtype)


def covered(places: Tensor) -> Tensor:
    """How much of a pixel at `places` (..., H, W, 2) the picture covers, 0..1: how much rather than whether, because
    what is made of it must not leap."""
    height, width = places.shape[-3:-1]
    across, down = (1 - places.abs()).unbind(-1)
    return (across * (width / 2) + 0.501).clamp(0, 1) * (down * (height / 2) + 0.501).clamp(0, 1)


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


@dataclass(slots=True)
class Canvas:
    """What the start picture showed, and where it has gone.

    picture: (b, 3, H, W) the start, at half size; drift: (b, H, W, 2) how far on the cylinder (`Camera.around`) what is
    seen now lies from where turns alone would have it; written: (b, c, h, w) what of the step before came from here.
    """

    picture: Tensor
    drift: Tensor
    written: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.picture, self.drift, self.written]

    def clone(self) -> Canvas:
        return Canvas(*(tensor.clone() for tensor in self.tensors()))

    def copy_(self, other: Canvas) -> None:
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(theirs)


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
        places, stays, sure = self._moves(z, turn, rows)
        return self._told(self._moved(z, places, stays), z, places, sure)

    def open(self, z: Tensor) -> Canvas:
        """The canvas of a world whose start picture has the latent z (r, c, h, w)."""
        picture = self._read(z)
        drift = torch.zeros(len(z), *picture.shape[-2:], 2, device=z.device)  # float32: places, see `Camera.around`
        return Canvas(picture, drift, self._written(_still(picture)))

    def retrace(self, z: Tensor, turn: Tensor, rows: Tensor, canvas: Canvas, before: Tensor) -> tuple[Tensor, Canvas]:
        """As `forward`, but what the start picture showed is brought from there, at once, and only what was added since
        is moved from step to step.  before: (r, 2) degrees turned from the start to the last frame of the step before.

        Returns what `forward` does, and the canvas as it is when the step is over.
        """
        aspect = z.shape[-2] / z.shape[-1]
        places, stays, sure = self._moves(z, turn, rows)
        fine = F.interpolate(sure, scale_factor=self.CELL, mode="nearest").movedim(1, -1).unsqueeze(1)
        here = screen(canvas.picture.shape[-2], canvas.picture.shape[-1], z.device)
        places_then = places + fine * (here - places)  # what stays on the screen stays on the canvas
        drift = rearrange(canvas.drift, "r h w two -> r two h w")
        drift = F.grid_sample(
            drift, rearrange(places_then, "r j h w two -> r (j h) w two"), padding_mode="border", align_corners=False
        )
        drift = rearrange(drift, "r two (j h) w -> r j h w two", j=STEP_FRAMES)
        around = self.camera.around(places_then, before.unsqueeze(1), aspect) + drift
        seen = sample(canvas.picture, self.camera.on_screen(self.camera.mirrored(around), aspect))
        written = self._written(seen)
        latent = written + self._moved(z - canvas.written, places, stays, added=True)
        after = self.camera.around(here, before + turn[:, -1], aspect)
        now = Canvas(canvas.picture, around[:, -1] - after, written)
        return self._told(latent, z, places, sure), now

    def _moves(self, z: Tensor, turn: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the pixels of the next 4 frames were in the last (r, 4, H, W, 2); how much of a cell stays (r, 1, h,
        w), and how sure that is."""
        height, width = (self.CELL * n for n in z.shape[-2:])
        aspect = height / width
        places = self.camera.on_screen(self.camera.around(screen(height, width, z.device), turn, aspect), aspect)
        if self.motion is None:
            return places, torch.zeros_like(z[:, :1]), torch.zeros_like(z[:, :1])
        coarse, stays = self.motion(z, rows)
        fine = F.interpolate(coarse.flatten(0, 1), scale_factor=self.CELL, mode="bilinear", align_corners=False)
        places = places + fine.unflatten(0, (len(z), STEP_FRAMES)).float().movedim(2, -1)
        begins, whole = self.SURE
        return places, stays, ((stays - begins) / (whole - begins)).clamp(0, 1)

    def _moved(self, z: Tensor, places: Tensor, stays: Tensor, added: bool = False) -> Tensor:
        """The latent z (r, c, h, w), or one that was added to another, moved along; what the maps lose of it is put
        back where it stays."""
        picture = self._read(z, added)
        kept = stays * (z - self._written(_still(picture), added))
        return self._written(sample(picture, places), added) + kept

    @staticmethod
    def _told(latent: Tensor, z: Tensor, places: Tensor, sure: Tensor) -> Tensor:
        mask = F.avg_pool2d(covered(places).to(z.dtype), TurnedStep.CELL)
        # In this form of lerp what is wholly sure is z to the last bit.
        return torch.cat([mask * (1 - sure) + 2 * sure, latent * (1 - sure) + z * sure, z], 1)

    @classmethod
    def free(cls, mask: Tensor, trust: float = 0.0) -> Tensor:
        """How much of what is added to the turned step counts: (..., 4, h, w) masks -> (..., 1, h, w), 0..1.

        1 - `trust` of it, and nothing where the step before stays.
        """
        return (1 - trust) * (2 - mask.mean(-3, keepdim=True)).clamp(max=1)

    def _read(self, z: Tensor, added: bool = False) -> Tensor:
        """The last frame of a latent (r, c, h, w), (r, 3, H, W); added: of one that was added to another."""
        bias = None if added else self.to_pixels.bias
        return F.pixel_shuffle(F.conv2d(z, self.to_pixels.weight, bias, padding=1), self.CELL)

    def _written(self, frames: Tensor, added: bool = False) -> Tensor:
        """Frames (r, 4, 3, H, W) as a latent (r, c, h, w); added: what they add to others."""
        bias = None if added else self.to_latent.bias
        patches = rearrange(F.pixel_unshuffle(frames, self.CELL), "r j c h w -> r (j c) h w")
        return F.conv2d(patches, self.to_latent.weight, bias)

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


def _still(picture: Tensor) -> Tensor:
    """A picture (r, 3, H, W) as the 4 frames of a step in which nothing moves, (r, 4, 3, H, W)."""
    return picture.unsqueeze(1).expand(-1, STEP_FRAMES, -1, -1, -1)


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
