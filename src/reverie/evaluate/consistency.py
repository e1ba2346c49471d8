"""Consistency metrics of a world: from frame to frame, on the way back, and after a full turn.

GameWorld Score's temporal, smoothness and scenario dimensions use networks that cannot be had offline; these are the
same ideas in closed form.  A frozen video does well on all of them but one: read them beside the static row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from reverie.errors import ShapeError
from reverie.evaluate import metrics
from reverie.types import Action, ActionSpace, Frames
from reverie.vision.optical_flow import estimate_flow

OPPOSITE = {
    "forward": "back", "left": "right", "turn-left": "turn-right", "lean-left": "lean-right",
    "back": "forward", "right": "left", "turn-right": "turn-left", "lean-right": "lean-left",
}  # fmt: skip


def temporal_consistency(maps: torch.Tensor) -> float:
    """Mean cosine between the features of neighbouring frames, -1 to 1, higher is steadier; 1 for a frozen video.

    maps: `(f, c, h, w)`, of unit length at each place (`features.picture_maps`).  After VBench's background consistency
    (Huang et al. 2023, arXiv 2311.17982), on our own network's features.
    """
    if len(maps) < 2:
        raise ShapeError(f"temporal consistency needs at least two frames, got {len(maps)}")
    return float((maps[1:] * maps[:-1]).sum(1).mean())


def motion_smoothness(frames: Frames) -> float:
    """Predictability of each frame by its neighbours: 1 - mean |frame - middle| / 255, 0 to 1, higher is smoother.

    The middle of frames i - 1 and i + 1 is both warped half of the way by their optical flow, averaged: VBench's
    motion smoothness with optical flow in place of an interpolation network.  Flicker and jumps lower it.
    """
    if len(frames) < 3:
        raise ShapeError(f"motion smoothness needs at least three frames, got {len(frames)}")
    errors = []
    for i in range(1, len(frames) - 1):
        around = torch.from_numpy(np.array(frames[i - 1 : i + 2])).permute(0, 3, 1, 2).float()
        before, now, after = around[:1], around[1:2], around[2:]
        uv = estimate_flow(np.stack([frames[i - 1], frames[i + 1]])).uv
        uv = F.interpolate(uv, now.shape[-2:], mode="bilinear")
        # the flow is where a place of the first frame has gone to; half of it is taken as the middle's own
        middle = (_moved(before, -uv / 2) + _moved(after, uv / 2)) / 2
        errors.append(float((middle - now).abs().mean()))
    return 1 - float(np.mean(errors)) / 255


def there_and_back(actions: Sequence[Action]) -> list[Action]:
    """`actions`, then the opposite of each in reverse order: a player who retraces every step."""
    return [*actions, *(opposite(action) for action in reversed(actions))]


def opposite(action: Action) -> Action:
    """The action that undoes `action` where the game allows it: opposite keys, opposite turn."""
    keys = frozenset(OPPOSITE.get(key, key) for key in action.keys)
    return Action(keys, (-action.mouse[0] + 0.0, -action.mouse[1] + 0.0))


def scenario_consistency(frames: Frames) -> float:
    """Similarity of the way there and the way back: the mean of 1 - |difference| / 255, 0 to 1, higher is better.

    frames: the `1 + 2 n` frames under `there_and_back` of n actions; frame i is compared with frame 2 n - i, as in
    GameWorld Score's scenario consistency (mirrored actions).  A frozen video gets 1.
    """
    if len(frames) < 3 or len(frames) % 2 == 0:
        raise ShapeError(f"scenario consistency needs 1 + 2 n frames, got {len(frames)}")
    half = len(frames) // 2
    away = frames[:half].astype(np.float32)
    home = frames[:half:-1].astype(np.float32)
    return 1 - float(np.abs(away - home).mean()) / 255


def full_turn(space: ActionSpace, deg_per_frame: float = 4.0) -> list[Action]:
    """A turn of 360 degrees on the spot; empty for a space without a mouse."""
    return [Action(mouse=(0.0, deg_per_frame))] * round(360 / deg_per_frame) if space.mouse else []


def loop_closure_db(frames: Frames) -> float:
    """PSNR of the last frame against the first, dB, after a `full_turn`; higher is better, a frozen video gets the cap.

    Read it beside the real game's, which comes back to within a pixel, and beside the obedience of the turn.
    """
    return float(metrics.psnr_db(frames[-1:], frames[:1])[0])


def _moved(picture: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """`1 c H W` looked up at each place plus uv `1 2 H W` pixels, bilinear, the border repeated."""
    height, width = picture.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack(((x + uv[:, 0] + 0.5) / width * 2 - 1, (y + uv[:, 1] + 0.5) / height * 2 - 1), -1)
    return F.grid_sample(picture, at, mode="bilinear", padding_mode="border", align_corners=False)
