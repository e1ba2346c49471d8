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
from typing import NamedTuple

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


def turned_places(camera: Camera, height: int, width: int, turn: Tensor) -> Tensor:
    """Where the pixels of a camera that has turned by `turn` (..., 2) degrees were before, (..., H, W, 2)."""
    aspect = height / width
    return camera.on_screen(camera.around(screen(height, width, turn.device), turn, aspect), aspect)


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


WORN = 0.6, 0.9
"""Octaves of magnification, on average over the picture, at which a canvas begins to be replaced, and where it is."""


def worn(around: Tensor, unmoved: Tensor) -> Tensor:
    """How much of a canvas is to be replaced, 0..1, because it is stretched or shrunk too far.

    around: (r, j, H, W, 2) where the pixels of the screen come from; unmoved: where they would if only turned.  Returns
    (r, j).  A walk magnifies without end, and what is magnified a hundred times is a smear.  So a texture that is
    carried along is begun anew when it is worn, and the two are blended meanwhile (Max and Becker 1995, "Flow
    visualization using moving textures"; Neyret 2003, "Advected textures"): what is new has the look of the start.
    The whole picture at once, because a patchwork wears along its seams.
    """

    def area(places: Tensor) -> Tensor:
        right = places[..., :-1, 1:, :] - places[..., :-1, :-1, :]
        below = places[..., 1:, :-1, :] - places[..., :-1, :-1, :]
        return (right[..., 0] * below[..., 1] - right[..., 1] * below[..., 0]).abs()

    octaves = 0.5 * (area(around) / area(unmoved)).clamp(1e-3, 1e3).log2().abs().mean((-2, -1))
    begins, whole = WORN
    return ((octaves - begins) / (whole - begins)).clamp(0, 1)


class Moves(NamedTuple):
    """What `Motion` says of a step.

    field: (r, 4, 2, h, w) how far to the right and down the content of each of the next 4 frames stood before, in
    halves of the picture, turns aside; fixed: (r, 1, h, w) how much of a cell is fixed to the screen when the camera
    turns, 0..1; stays: (r, 1, h, w) how much of it stays as it is, 0..1.
    """

    field: Tensor
    fixed: Tensor
    stays: Tensor


class Motion(nn.Module):
    """Where the content of a picture comes from, when something else than a turn moves it, and where it stays.

    A small convolutional network looks at the latent of the step before, which holds four frames and so what already
    moves, and at the keys.  For every cell it names a shift and a zoom about the middle of the picture, which is what a
    step to the side and a step ahead do to whatever is equally far (Longuet-Higgins and Prazdny 1980), so that what is
    left to learn is distances; and how much of the cell is fixed to the screen, as a dashboard is, or the player's own
    hand.  It is not told of the turn, which is known.  Fresh, it says that nothing else moves.
    """

    MOST = 0.5
    """Of a displacement, in halves of the picture."""

    MOVES = 4.0
    """How strongly a fresh network holds that nothing is fixed to the screen, in logits."""

    def __init__(self, channels: int, numbers: int, width: int) -> None:
        super().__init__()
        self.told = nn.Linear(numbers, 2 * width)
        self.enter = nn.Conv2d(channels + 2, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.leave = nn.Conv2d(width, 3 * STEP_FRAMES + 2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, rows: Tensor) -> Moves:
        """z: (r, c, h, w) latents; rows: (r, f, a) action rows, without the mouse."""
        r, _, h, w = z.shape
        y, x = (torch.linspace(-1, 1, n, device=z.device, dtype=z.dtype) for n in (h, w))
        place = torch.stack(torch.meshgrid(x, y, indexing="xy"))
        gain, bias = self.told(rows.to(z.dtype).flatten(1))[..., None, None].chunk(2, 1)
        hidden = self.enter(torch.cat([z, place.expand(r, -1, -1, -1)], 1)) * (1 + gain) + bias
        for conv in self.middle:
            hidden = hidden + conv(F.silu(hidden))
        shift, zoom, stays, fixed = self.leave(F.silu(hidden)).split([2 * STEP_FRAMES, STEP_FRAMES, 1, 1], 1)
        moved = shift.unflatten(1, (STEP_FRAMES, 2)) + zoom.unsqueeze(2) * place
        return Moves(self.MOST * torch.tanh(moved), torch.sigmoid(fixed - self.MOVES), torch.sigmoid(stays))


@dataclass(slots=True)
class Canvas:
    """What the start picture showed, and where it has gone.

    picture: (b, 3, H, W) the start, at half size; drift: (b, H, W, 2) how far on the cylinder (`Camera.around`) what is
    seen now lies from where turns alone would have it; fresh: the same of what takes its place where it is worn
    (`worn`); written: (b, c, h, w) what of the step before came from here.
    """

    picture: Tensor
    drift: Tensor
    fresh: Tensor
    written: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.picture, self.drift, self.fresh, self.written]

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
    too, by what it makes of the step before and of the action rows (`numbers` in all; `sideways`: where a mouse turns
    the camera, the places of the keys that also turn it or step aside).  Where it holds that a cell stays, what the
    maps lose of it is put back; where it is sure of it (`SURE`), the cell is the step before, exactly, and nothing is
    added to it (`free`): whoever stands still sees the same picture for as long as he likes.  Where the turn uncovers
    what was not seen, the picture is mirrored at its border, and a mask says so: a grey there would be a far
    worse guess (docs/LOG.md).
    """

    CELL = 4
    MASK_CHANNELS = STEP_FRAMES
    KEPT = 0.9
    """Of what was added to a canvas, from step to step (sums of what a network adds wander off without end)."""
    SURE = 0.45, 0.65
    """How much of a cell stays where that begins to count as all of it, and where it does.  In recorded play few cells
    come so far; where nothing moves nearly all do (docs/LOG.md)."""

    FIXED = 0.4, 0.8
    """The same of how much of a cell is fixed to the screen: a little of it everywhere would hold every turn back."""

    def __init__(
        self, camera: Camera, channels: int, numbers: int = 0, motion: int = 0, sideways: list[int] | None = None
    ) -> None:
        super().__init__()
        self.camera, self.sideways = camera, sideways
        self.motion = Motion(channels, numbers, motion).requires_grad_(False) if motion else None
        pixels = 3 * self.CELL**2
        self.to_pixels = nn.Conv2d(channels, pixels, 3, padding=1).requires_grad_(False)
        self.to_latent = nn.Conv2d(STEP_FRAMES * pixels, channels, 1).requires_grad_(False)

    def forward(self, z: Tensor, turn: Tensor, rows: Tensor) -> Tensor:
        """z: (r, c, h, w) the latent of the step before; turn: (r, 4, 2) degrees turned since its last frame, at each
        of the next 4 frames; rows: (r, f, a) the action rows that the step sees.  Returns (r, 4 + c + c, h, w): the
        mask, 0 where nothing is known, 1 where the step before says what is there, 2 where it stays; the step before as
        turned and moved; and as it is."""
        return self.moved(z, turn, self.look(z, turn, rows))

    def look(self, z: Tensor, turn: Tensor, rows: Tensor) -> Moves:
        """What `motion` says of the step before, and nothing where there is none.

        What moves the whole picture to a side is a turn.  So the mean of the field is taken out of it where the mouse
        turns the camera, or where no key of `sideways` is in the rows: or a walk would turn, and a step aside would
        hold a turn back.  A car that is steered by keys turns.
        """
        if self.motion is None:
            none = torch.zeros_like(z[:, :1])
            return Moves(z.new_zeros(len(z), STEP_FRAMES, 2, *z.shape[-2:]), none, none)
        moves = self.motion(z, rows)
        if self.sideways is None:
            return moves
        aside = rows[..., self.sideways].flatten(1).gt(0).any(1) & (turn[:, -1, 1] == 0)
        straight = (~aside).to(z.dtype)
        free = (1 - self._sure(moves.fixed, self.FIXED)).unsqueeze(1)
        across, down = moves.field.split(1, 2)
        mean = (across * free).sum((-2, -1), keepdim=True) / free.sum((-2, -1), keepdim=True).clamp(min=1)
        across = across - straight.view(-1, 1, 1, 1, 1) * free * mean
        return moves._replace(field=torch.cat([across, down], 2))

    def moved(self, z: Tensor, turn: Tensor, moves: Moves) -> Tensor:
        """As `forward`, with what `look` returned."""
        places = self._places(z, turn, moves)
        return self._told(self._moved(z, places, moves.stays), z, places, self._sure(moves.stays, self.SURE))

    def open(self, z: Tensor) -> Canvas:
        """The canvas of a world whose start picture has the latent z (r, c, h, w)."""
        picture = self._read(z)
        drift = torch.zeros(len(z), *picture.shape[-2:], 2, device=z.device)  # float32: places, see `Camera.around`
        return Canvas(picture, drift, torch.zeros_like(drift), self._written(_still(picture)))

    def retrace(self, z: Tensor, turn: Tensor, rows: Tensor, canvas: Canvas, before: Tensor) -> tuple[Tensor, Canvas]:
        """As `forward`, but what the start picture showed is brought from there, at once, and only what was added since
        is moved from step to step.  before: (r, 2) degrees turned from the start to the last frame of the step before.

        Returns what `forward` does, and the canvas as it is when the step is over.
        """
        aspect = z.shape[-2] / z.shape[-1]
        moves = self.look(z, turn, rows)
        places, sure = self._places(z, turn, moves), self._sure(moves.stays, self.SURE)
        fine = F.interpolate(sure, scale_factor=self.CELL, mode="nearest").movedim(1, -1).unsqueeze(1)
        here = screen(canvas.picture.shape[-2], canvas.picture.shape[-1], z.device)
        places_then = places + fine * (here - places)  # what stays on the screen stays on the canvas
        drifts = rearrange([canvas.drift, canvas.fresh], "k r h w two -> r (k two) h w")
        drifts = F.grid_sample(
            drifts, rearrange(places_then, "r j h w two -> r (j h) w two"), padding_mode="border", align_corners=False
        )
        drifts = rearrange(drifts, "r (k two) (j h) w -> k r j h w two", k=2, j=STEP_FRAMES)
        old, fresh = self.camera.around(places_then, before.unsqueeze(1), aspect) + drifts
        unmoved = self.camera.around(here, before.unsqueeze(1) + turn, aspect)
        share = worn(old, unmoved)
        seen, instead = (
            sample(canvas.picture, self.camera.on_screen(self.camera.mirrored(around), aspect))
            for around in (old, fresh)
        )
        written = self._written(torch.lerp(seen, instead, share[..., None, None, None].to(seen)))
        latent = written + self.KEPT * self._moved(z - canvas.written, places, moves.stays, added=True)
        drift, other, share = old[:, -1] - unmoved[:, -1], fresh[:, -1] - unmoved[:, -1], share[:, -1].view(-1, 1, 1, 1)
        drift = torch.where(share < 1, drift, other)
        now = Canvas(canvas.picture, drift, torch.where((share > 0) & (share < 1), other, 0), written)
        return self._told(latent, z, places, sure), now

    def _places(self, z: Tensor, turn: Tensor, moves: Moves) -> Tensor:
        """Where the pixels of the next 4 frames were in the last (r, 4, H, W, 2)."""
        height, width = (self.CELL * n for n in z.shape[-2:])
        turned = turned_places(self.camera, height, width, turn)
        here = screen(height, width, z.device)
        coarse = torch.cat([moves.field.flatten(1, 2), moves.fixed], 1)
        fine = F.interpolate(coarse, scale_factor=self.CELL, mode="bilinear", align_corners=False).float()
        field = fine[:, :-1].unflatten(1, (STEP_FRAMES, 2)).movedim(2, -1)
        fixed = self._sure(fine[:, -1, None, :, :, None], self.FIXED)
        return turned + fixed * (here - turned) + field

    @staticmethod
    def _sure(share: Tensor, ramp: tuple[float, float]) -> Tensor:
        begins, whole = ramp
        return ((share - begins) / (whole - begins)).clamp(0, 1)

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
