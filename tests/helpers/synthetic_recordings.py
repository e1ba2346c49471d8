"""Made-up videos and worlds whose motion is known: a textured plane seen through a moving window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.types import FPS, Action, ActionSpace, Clip, Frames

SPACE = ActionSpace(("forward", "back", "left", "right"), mouse=True)
PX_PER_DEG = 1.5


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(3, height, width) in [0, 255]: noise at several scales, so that every place looks like itself only."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(3, height, width)
    for cell, weight in ((4, 1.0), (8, 1.5), (16, 2.0), (32, 2.0)):
        noise = torch.rand(1, 3, height // cell + 2, width // cell + 2, generator=generator)
        total += weight * F.interpolate(noise, (height, width), mode="bicubic", align_corners=True)[0]
    total -= total.min()
    return total / total.max() * 255


def view(canvas: torch.Tensor, size: tuple[int, int], x: float, y: float, zoom: float = 1.0) -> Frames:
    """(H, W, 3): the canvas through a window whose middle is (x, y) px from the canvas's, enlarged `zoom` times."""
    (height, width), (rows, columns) = size, canvas.shape[1:]
    grid_y = ((torch.arange(height) + 0.5 - height / 2) / zoom + y) / (rows / 2)
    grid_x = ((torch.arange(width) + 0.5 - width / 2) / zoom + x) / (columns / 2)
    grid = torch.stack(torch.meshgrid(grid_y, grid_x, indexing="ij")[::-1], -1)[None]
    seen = F.grid_sample(canvas[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    return seen.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def moving(
    num_frames: int, x_px: float = 0.0, y_px: float = 0.0, zoom: float = 1.0, size: tuple[int, int] = (64, 112)
) -> Frames:
    """A video whose window moves by (x_px, y_px) and whose picture grows `zoom` times each frame."""
    canvas = texture(size[0] * 4, size[1] * 4)
    return np.stack([view(canvas, size, i * x_px, i * y_px, zoom**i) for i in range(num_frames)])


@dataclass
class FakeDream:
    """A session that moves its window as told; `obeys` False makes it do nothing."""

    canvas: torch.Tensor
    resolution: tuple[int, int]
    obeys: bool = True
    block_frames: int = 4
    is_closed: bool = False
    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0
    steps: list[list[Action]] = field(default_factory=list)

    def step(self, action: Sequence[Action]) -> Frames:
        assert len(action) == self.block_frames
        self.steps.append(list(action))
        return np.stack([self._frame(a) for a in action])

    def close(self) -> None:
        self.is_closed = True

    def _frame(self, action: Action) -> Frames:
        if self.obeys:
            side = ("right" in action.keys) - ("left" in action.keys)
            self.x += PX_PER_DEG * action.mouse[1] + 2.0 * side
            self.y -= PX_PER_DEG * action.mouse[0]
            self.zoom *= 1.01 ** (("forward" in action.keys) - ("back" in action.keys))
        return view(self.canvas, self.resolution, self.x, self.y, self.zoom)


@dataclass
class FakeEngine:
    """Opens FakeDreams on one canvas and remembers them."""

    obeys: bool = True
    action_space: ActionSpace = SPACE
    resolution: tuple[int, int] = (64, 112)
    block_frames: int = 4
    opened: list[FakeDream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.canvas = texture(self.resolution[0] * 4, self.resolution[1] * 4)

    def open(self, image: Frames, seed: int = 0) -> FakeDream:
        self.opened.append(FakeDream(self.canvas, self.resolution, self.obeys))
        return self.opened[-1]


@dataclass
class FakeEpisode:
    length: int
    meta: dict[str, Any] = field(default_factory=dict)


class FakeRecording:
    """Episodes made by a FakeDream under a script of turns and walks."""

    def __init__(
        self, lengths: Sequence[int], heldout: Sequence[bool] | None = None, size: tuple[int, int] = (64, 112)
    ) -> None:
        self.size = size
        flags = heldout or [True] * len(lengths)
        self.episodes = [
            FakeEpisode(n, {"heldout": flag, "map": f"M{i}"})
            for i, (n, flag) in enumerate(zip(lengths, flags, strict=True))
        ]

    def clip(self, episode: int, start: int, length: int) -> Clip:
        engine = FakeEngine(resolution=self.size)
        dream = engine.open(np.zeros(0, np.uint8))
        script = (
            [Action(frozenset({"forward"}))] * 20 + [Action(mouse=(0.0, 2.0))] * 20 + [Action(mouse=(0.0, -2.0))] * 20
        )
        script += [Action(frozenset({"back"}))] * 20
        actions = [script[i % len(script)] for i in range(length)]
        frames = [dream._frame(Action())]
        frames += [dream._frame(action) for action in actions[:-1]]
        return Clip(np.stack(frames), SPACE.encode(actions))


def write_recording(folder: Path, size: tuple[int, int], space: ActionSpace = SPACE, num_frames: int = 120) -> Path:
    """A dataset of two episodes of a fake world, `size` (H, W), its actions' names those of `space`."""
    recording = FakeRecording([num_frames] * 2, size=size)
    with DatasetWriter(folder, space, size, FPS) as writer:
        for episode in range(2):
            clip = recording.clip(episode, 0, num_frames)
            video = writer.partial / "episode.mp4"
            write_video(video, clip.frames, FPS)
            meta = {"map": f"M{episode}", "heldout": True}
            writer.add(video, clip.actions[:, : space.size], None, picture_statistics(clip.frames), meta)
    return folder
