"""An inverse-dynamics model: frames in, the action between each two of them out.

It attends to the past and the future of every step: what a key does is often plain only some frames later (Baker et al.
2022, arXiv 2206.11795, section 3, train theirs the same way).  Ours is small enough for a CPU: dense optical flow and
small pictures (`look`) instead of raw frames, a convolutional tower for each step, then convolutions over time.

Letters: b clips, f frames, t = f - 1 steps, k keys.  Step j leads from frame j to frame j + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from reverie.models.checkpoint import from_json, load_trained
from reverie.types import ActionSpace, Frames
from reverie.vision.optical_flow import estimate_flow

WEIGHTS = "idm.safetensors"
FLOW_GRID = (16, 28)
PICTURE_SIZE = (32, 56)
FLOW_SCALE_PX = 4.0
"""Flow is divided by this: about the deviation of what play shows."""

FAR_PX = 24.0
"""Optical flow is clamped there: larger values are seldom true."""

LOOK_CHUNK = 64
SIGNS = 3
"""Ways an axis of the mouse can go: down or left, not at all, up or right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IDMConfig:
    """Sizes of the inverse-dynamics model."""

    action_space: ActionSpace
    """Actions that it names."""
    width: int = 128
    """Channels of a step."""
    layers: int = 4
    """Residual convolutions over time, of 5 steps each."""
    dead_zone_deg: float = 0.15
    """Turns below this count as none, on each axis."""


@dataclass(frozen=True, slots=True)
class Views:
    """Inputs of the model for a clip: optical flow (t, 3, 16, 28) float16, pixels and trust; frames (f, 3, 32, 56)
    uint8."""

    flow: npt.NDArray[np.float16]
    pictures: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Guess:
    """keys: logits `(b, t, k)`.  turn_deg: `(b, t, 2)` pitch and yaw.  sign: logits `(b, t, 2, 3)` of SIGNS."""

    keys: Tensor
    turn_deg: Tensor
    sign: Tensor


@torch.no_grad()
def look(frames: Frames) -> Views:
    """Frames `(f, H, W, 3)` uint8, f > 1, as the model's inputs.  Flow is scaled to frames 224 wide."""
    flows = []
    for first in range(0, len(frames) - 1, LOOK_CHUNK):
        flow = estimate_flow(frames[first : first + LOOK_CHUNK + 1])
        scale = 224 / flow.size[1]
        for uv, trust in zip(flow.uv.numpy(), flow.weight.numpy(), strict=True):
            u, v, pooled = (_pool(part, FLOW_GRID) for part in (uv[0] * trust, uv[1] * trust, trust))
            flows.append(np.stack((u * scale / (pooled + 1e-3), v * scale / (pooled + 1e-3), pooled)))
    pictures = np.stack([_pool(frame, PICTURE_SIZE) for frame in frames])
    return Views(np.stack(flows).astype(np.float16), pictures.transpose(0, 3, 1, 2))


def _pool(picture: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """The mean over each of `size` (rows, columns) cells."""
    return cv2.resize(np.ascontiguousarray(picture), size[::-1], interpolation=cv2.INTER_AREA)


class InverseDynamics(nn.Module):
    """Names the action of every step of a clip."""

    def __init__(self, config: IDMConfig) -> None:
        super().__init__()
        self.config = config
        num_keys, width = len(config.action_space.keys), config.width
        self.seen = nn.Sequential(_down(9, 24), _down(24, 32, stride=1))
        self.moved = _down(3, 32, stride=1)
        self.tower = nn.Sequential(_down(64, 64), _down(64, 96), nn.Flatten(1), nn.Linear(96 * 4 * 7, width))
        # small turns are a fraction of a pixel everywhere: this adds up the whole field, past all normalisation
        self.field = nn.Sequential(nn.Linear(5 * math.prod(FLOW_GRID), width), nn.GELU(), nn.Linear(width, width))
        self.time = nn.ModuleList(_TimeBlock(width, dilation=(1, 2)[i % 2]) for i in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.keys = nn.Linear(width, num_keys)
        self.turn = nn.Linear(width, 2)
        self.sign = nn.Linear(width, 2 * SIGNS)

    def forward(self, flow: Tensor, pictures: Tensor) -> Guess:
        """flow: `b t 3 16 28` in pixels; pictures: `b f 3 32 56` uint8."""
        x = self.think(flow, pictures)
        sign = rearrange(self.sign(x), "b t (two way) -> b t two way", two=2)
        return Guess(self.keys(x), self.turn(x), sign)

    def think(self, flow: Tensor, pictures: Tensor) -> Tensor:
        """Encodes optical flow and frames to the features that the heads read: `b t width`."""
        batch = len(flow)
        rgb = pictures.float() / 127.5 - 1
        change = (rgb[:, 1:] - rgb[:, :-1]) * 4
        seen = torch.cat((rgb[:, :-1], rgb[:, 1:], change), 2)
        uv, trust = flow[:, :, :2].float().clamp(-FAR_PX, FAR_PX) / FLOW_SCALE_PX, flow[:, :, 2:].float()
        moved = torch.cat((uv, trust), 2).flatten(0, 1)
        joined = torch.cat((self.seen(seen.flatten(0, 1)), self.moved(moved)), 1)
        field = torch.cat((moved, (uv * trust).flatten(0, 1)), 1).flatten(1)
        x = rearrange(self.tower(joined) + self.field(field), "(b t) c -> b c t", b=batch)
        for block in self.time:
            x = block(x)
        return self.norm(rearrange(x, "b c t -> b t c"))

    @torch.inference_mode()
    def label(self, frames: Frames, views: Views | None = None) -> npt.NDArray[np.float32]:
        """The actions of a clip `(f, H, W, 3)` as rows of the action space, `(f - 1, size)`.

        Keys are 0 or 1; turns are degrees, and 0 on an axis that the model thinks did not turn.
        """
        views = views or look(frames)
        device = self.turn.weight.device
        guess = self(torch.from_numpy(views.flow)[None].to(device), torch.from_numpy(views.pictures)[None].to(device))
        return self.rows(guess)[0].cpu().numpy()

    def rows(self, guess: Guess) -> Tensor:
        """A guess as rows of the action space, `(b, t, size)` float32."""
        keys = (guess.keys > 0).float()
        if not self.config.action_space.mouse:
            return keys
        # the two heads differ for turns next to the dead zone alone: there the sign decides, and the size follows
        size = guess.turn_deg.float().abs().clamp(min=1.01 * self.config.dead_zone_deg)
        return torch.cat((keys, (guess.sign.argmax(-1) - 1) * size), -1)


class _TimeBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`b c t` -> the same."""
        y = self.mix(self.norm(x.transpose(1, 2)).transpose(1, 2))
        return x + self.out(F.gelu(y).transpose(1, 2)).transpose(1, 2)


def _down(inside: int, outside: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.GroupNorm(8, outside), nn.GELU())


def ways(turn_deg: Tensor, dead_zone_deg: float) -> Tensor:
    """0, 1, 2 for an axis that turns down or left, not at all, up or right."""
    return (turn_deg > dead_zone_deg).long() - (turn_deg < -dead_zone_deg).long() + 1


def load_idm(folder: Path) -> tuple[InverseDynamics, dict[str, float]]:
    """Loads a model that `reverie train idm` made, in eval mode, with its figures on held-out data.

    Raises CheckpointError.
    """
    return load_trained(
        folder, "idm", "an inverse-dynamics model", lambda raw: InverseDynamics(from_json(IDMConfig, raw))
    )
