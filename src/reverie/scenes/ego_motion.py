"""Ego-motion: what the next four frames' actions do to the camera.

A model has a network for sessions that begin with an image; a scene may have its own, fitted to the walks that it was
built from, so that one moves in it as in its game.

A frame's motion is (forward, right, up, yaw, pitch, roll) since the frame before: metres in the level frame of that
frame's yaw, and degrees.

A scene's network lies beside it in a file of its own, safetensors as float16.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from reverie.errors import DataError, first_line
from reverie.types import STEP_FRAMES
from reverie.vision.projection import wrap_degrees

MOTION_SCALE = (0.1, 0.1, 0.05, 1.0, 1.0, 1.0)
"""A usual frame's motion: metres and degrees."""
HISTORY_STEPS = 6
HISTORY_FRAMES = HISTORY_STEPS * STEP_FRAMES
"""Frames whose actions and motions are given, about a second: as long as a jump or a turn takes."""
AHEAD_GRID = (8, 14)
"""Cells of the log depth of the last frame, which shows the walls."""
DROPOUT = 0.2
"""Half an hour of a game is little: without it, walks are learnt by heart."""

FILE = "ego-motion.safetensors"
MAX_BYTES = 8 * 2**20
MAX_WIDTH = 1024
HINT = "fit it again with `reverie scene ego-motion`"


def relative_motion(before: Tensor, after: Tensor) -> Tensor:
    """The motion from poses `before` to poses `after`, (..., 6) each."""
    yaw = torch.deg2rad(before[..., 3])
    step = after[..., :3] - before[..., :3]
    s, c = yaw.sin(), yaw.cos()
    turn = wrap_degrees(after[..., 3] - before[..., 3])
    forward, right = step[..., 0] * s + step[..., 1] * c, step[..., 0] * c - step[..., 1] * s
    tilt = after[..., 4:6] - before[..., 4:6]
    return torch.cat([torch.stack([forward, right, step[..., 2], turn], -1), tilt], -1)


def motions_along(camera: Tensor, poses: Tensor) -> Tensor:
    """The motions (b, f, 6) of a camera (b, 6) along poses (b, f, 6)."""
    return relative_motion(torch.cat([camera[:, None], poses[:, :-1]], 1), poses)


def apply_motion(pose: Tensor, motion: Tensor) -> Tensor:
    """The pose after a frame's motion, (..., 6) each."""
    yaw = torch.deg2rad(pose[..., 3])
    s, c = yaw.sin(), yaw.cos()
    x = pose[..., 0] + motion[..., 0] * s + motion[..., 1] * c
    y = pose[..., 1] + motion[..., 0] * c - motion[..., 1] * s
    place = torch.stack([x, y, pose[..., 2] + motion[..., 2]], -1)
    return torch.cat([place, pose[..., 3:] + motion[..., 3:]], -1)


class EgoMotionNet(nn.Module):
    """Motions of the next four frames from the actions, the motions and actions before, tilt and the depth ahead."""

    scale: Tensor

    def __init__(self, action_size: int, width: int = 256, columns: Sequence[int] | None = None) -> None:
        """action_size: how many numbers of an action row count; columns: which, where rows are longer."""
        super().__init__()
        self.width, self.columns = width, list(range(action_size) if columns is None else columns)
        told = (HISTORY_FRAMES + STEP_FRAMES) * action_size + HISTORY_FRAMES * 6
        inputs = told + 2 + AHEAD_GRID[0] * AHEAD_GRID[1]
        self.hidden = nn.ModuleList([nn.Linear(inputs, width), nn.Linear(width, width)])
        self.last = nn.Linear(width, STEP_FRAMES * 6)
        self.skip = nn.Linear(told, STEP_FRAMES * 6)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.skip.weight)
        self.register_buffer("scale", torch.tensor(MOTION_SCALE, device="cpu"), persistent=False)

    def forward(self, actions: Tensor, motion: Tensor, tilt: Tensor, ahead: Tensor) -> Tensor:
        """actions: (b, 28, a), of the last 24 frames and of the next 4; motion: (b, 24, 6) of the last 24 frames;
        tilt: (b, 2) pitch and roll now; ahead: (b, 8, 14) log depth of the last frame.

        Returns (b, 4, 6).
        """
        past = (motion / self.scale).clamp(-30, 30) * 0.3
        told = torch.cat([actions[..., self.columns].flatten(1), past.flatten(1)], 1)
        x = torch.cat([told, tilt / 20, ahead.flatten(1) - 2], 1)
        for layer in self.hidden:
            x = F.silu(layer(F.dropout(x, DROPOUT, self.training)))
        return (self.last(x) + self.skip(told)).unflatten(1, (STEP_FRAMES, 6)) * self.scale


def depth_ahead(log_depth: Tensor) -> Tensor:
    """Log depth (b, h, w) on the grid that the network takes, (b, 8, 14)."""
    return F.adaptive_avg_pool2d(log_depth[:, None], AHEAD_GRID)[:, 0]


def write_network(folder: Path, network: EgoMotionNet | None) -> None:
    """Writes the file; without a network there is none afterwards."""
    path = folder / FILE
    if network is None:
        path.unlink(missing_ok=True)
        return
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_bytes(save({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}))
    os.replace(temporary, path)


def read_network(folder: Path, action_size: int) -> EgoMotionNet | None:
    """The network of actions with so many numbers; None where a scene has none.  Raises DataError for another file."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        with safe_open(path, framework="pt") as file:
            weights: dict[str, Tensor] = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        width = len(weights["hidden.0.bias"])
        if not 1 <= width <= MAX_WIDTH or not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise ValueError("its numbers are not those of a network")
        network = EgoMotionNet(action_size, width)
        network.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path}: no ego-motion network of {action_size} action numbers ({first_line(error)}); {HINT}"
        ) from error
    return network.eval().requires_grad_(False)


def for_columns(network: EgoMotionNet, columns: list[int]) -> EgoMotionNet:
    """The same network for longer action rows, of which it reads these numbers."""
    wider = EgoMotionNet(len(columns), network.width, columns)
    wider.load_state_dict(network.state_dict())
    return wider.eval().requires_grad_(False)
