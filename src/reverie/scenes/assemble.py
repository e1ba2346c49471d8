"""Scenes are put together: keyframes chosen from footage, moving things hidden, starts placed, coverage measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie.errors import DataError
from reverie.scenes.image_rows import MAX_ROWS
from reverie.scenes.keyframes import Keyframes
from reverie.scenes.scene import Scene, Start
from reverie.scenes.scene_keyframes import Coverage, choose_scene_keyframes, hide_moving, measure_coverage, render_from
from reverie.types import Frames
from reverie.vision.depth_codec import decode_depth, encode_depth
from reverie.vision.projection import FAR, focal_lengths

START_CANDIDATES = 6
"""Frames that are tried for each start."""
AROUND_DEG = (0.0, 90.0, 180.0, 270.0)
"""Directions from a start whose views are asked how well they are covered."""
OPEN_SHARE = 0.35
"""A start faces at least this share of the scene's usual distance: a wall before one's nose is no start."""
NEAR_FRACTION = 0.12
"""Fraction of the usual distance below which a surface counts as right before the camera."""
UNUSUAL_TILT_DEG = 8.0
"""A start looks at most so much farther up or down than players usually did."""
MAX_STARTS = 32
DIRECTIONS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")

ROUND_SHARE = 0.375
"""Share of a scene's keyframes that may be views in directions that nobody recorded."""

Report = Callable[[float, str], None]
"""Called with the share that is done, and the work at hand."""

LookRound = Callable[[Keyframes, int, Report], Keyframes]
"""Called with the keyframes so far, how many more there may be, and a report; returns them without what moves, and
those that it adds."""

Stack = tuple[Frames, npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.float32]]
"""colour (n, H, W, 3), depth (n, h, w), hidden (n, h, w), pose (n, 6)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a scene beside its keyframes."""

    title: str
    game: str
    fov_deg: float
    pixel_aspect: float
    keys: tuple[str, ...]
    mouse: bool
    licence: str

    @property
    def focal(self) -> Tensor:
        """Focal lengths of rendered views: (2,)."""
        return focal_lengths(torch.tensor([self.fov_deg]), self.pixel_aspect)[0]


def make_keyframes(
    colour: Frames,
    depth: npt.NDArray[np.float32],
    hidden: npt.NDArray[np.bool_],
    pose: npt.NDArray[np.float32],
    focal: Tensor,
) -> Keyframes:
    """Keyframes of arrays, with depth as a scene stores it.

    colour: (n, H, W, 3); depth: (n, h, w) metres; hidden: (n, h, w); pose: (n, 6); focal: (2,).
    """
    return Keyframes.new(
        torch.from_numpy(np.ascontiguousarray(colour.transpose(0, 3, 1, 2))),
        torch.from_numpy(decode_depth(encode_depth(depth))),
        torch.from_numpy(np.ascontiguousarray(hidden)),
        torch.from_numpy(np.ascontiguousarray(pose, np.float32)),
        focal,
    )


def check_counts(keyframes: int, starts: int) -> None:
    """Raises DataError for numbers of keyframes and starts that a scene cannot have."""
    for name, value, high in (("--keyframes", keyframes, MAX_ROWS), ("--starts", starts, MAX_STARTS)):
        if not 1 <= value <= high:
            raise DataError(f"{name} must be 1 to {high}, got {value}")


def build_scene(
    facts: Facts,
    frames: Keyframes,
    keyframes: int,
    starts: int,
    report: Report | None = None,
    look_round: LookRound | None = None,
) -> Scene:
    """Chooses keyframes and starts among frames, and hides what moves.

    look_round: looks again at what was chosen, and adds what the frames do not show; `ROUND_SHARE` of the keyframes are
    left to it.
    """
    check_counts(keyframes, starts)
    tell = report or (lambda share, text: None)
    focal = facts.focal
    tell(0.0, "choosing keyframes")
    recorded = keyframes - int(ROUND_SHARE * keyframes) if look_round else keyframes
    shown = frames.select(choose_scene_keyframes(frames, recorded))
    if look_round:
        shown = look_round(shown, keyframes - len(shown), lambda share, text: tell(0.1 + 0.7 * share, text))
    else:
        tell(0.5, "hiding what moves")
        hidden = shown.hidden | hide_moving(shown, frames, focal)
        shown = Keyframes.new(shown.colour, shown.depth, hidden, shown.pose, focal)
    tell(0.8, "placing starts")
    return make_scene(facts, shown, place_starts(facts, shown, frames, starts))


def make_scene(facts: Facts, keyframes: Keyframes, starts: tuple[Start, ...]) -> Scene:
    """A scene of keyframes; its folder's name is decided where it is saved."""
    return Scene(
        "",
        facts.title,
        facts.game,
        facts.fov_deg,
        facts.pixel_aspect,
        facts.keys,
        facts.mouse,
        facts.licence,
        starts,
        np.ascontiguousarray(keyframes.colour.permute(0, 2, 3, 1).numpy()),
        keyframes.depth.numpy(),
        keyframes.hidden.numpy(),
        keyframes.pose.numpy(),
    )


@torch.no_grad()
def place_starts(facts: Facts, scene: Keyframes, frames: Keyframes, count: int) -> tuple[Start, ...]:
    """Chooses frames to start from: well covered all round, level, facing open space, far from each other."""
    step = max(1, len(frames) // (START_CANDIDATES * count))
    tried = torch.arange(0, len(frames), step)
    poses = frames.pose[tried].repeat_interleave(len(AROUND_DEG), 0).clone()
    poses[:, 3] += torch.tensor(AROUND_DEG).repeat(len(tried))
    cover = torch.cat(
        [render_from(scene, poses[i : i + 4], facts.focal).cover.flatten(1).mean(1) for i in range(0, len(poses), 4)]
    )
    ahead, around = cover.view(-1, len(AROUND_DEG))[:, 0], cover.view(-1, len(AROUND_DEG)).mean(1)
    usual = float(scene.reach.nanmedian().nan_to_num(1.0))
    middle = frames.depth[tried].clamp(max=FAR).flatten(1).median(1).values
    blocked = 0.5 * (middle < OPEN_SHARE * usual).float() + 2 * too_near(frames.depth[tried], usual)
    tilted = (frames.pose[tried, 4] - frames.pose[:, 4].median()).abs() > UNUSUAL_TILT_DEG
    score = 0.5 * ahead + 0.5 * around - blocked - tilted.float()
    # Greedy: the best first, then what is well covered and far, in place and direction, from those taken.
    at = frames.pose[tried, :3]
    yaw = torch.deg2rad(frames.pose[tried, 3])
    spread = (at - at.mean(0)).norm(dim=1).mean().clamp(min=1e-3)
    place = torch.cat([at / spread, 0.5 * torch.stack([yaw.sin(), yaw.cos()], 1)], 1)
    taken: list[int] = []
    while len(taken) < min(count, len(tried)):
        value = score.clone()
        if taken:
            value = value + 0.5 * torch.cdist(place, place[taken]).min(1).values.clamp(max=1)
            value[taken] = -torch.inf
        taken.append(int(value.argmax()))
    return name_starts(
        [(frames.colour[i].permute(1, 2, 0).numpy(), frames.pose[i].numpy()) for i in tried[taken].tolist()],
        facts.title,
    )


def too_near(depth: Tensor, usual: float) -> Tensor:
    """Shares of depth images that are right before the camera.

    depth: (n, h, w) metres; usual: the scene's usual distance.  Returns (n,).
    """
    return (depth < NEAR_FRACTION * usual).flatten(1).float().mean(1)


def name_starts(found: list[tuple[np.ndarray, np.ndarray]], title: str) -> tuple[Start, ...]:
    """Starts of images and poses, titled by the scene and the direction they face."""
    starts: list[Start] = []
    names: dict[str, int] = {}
    for image, pose in found:
        name = f"{title}, looking {DIRECTIONS[round(float(pose[3]) / 45) % 8]}"
        names[name] = names.get(name, 0) + 1
        number = f" ({names[name]})" if names[name] > 1 else ""
        starts.append(Start(name + number, np.ascontiguousarray(image), np.asarray(pose, np.float32)))
    return tuple(starts)


def coverage_of(scene: Keyframes, held_out: Keyframes, focal: Tensor) -> str:
    """Coverage of held-out frames in words."""
    return describe(measure_coverage(scene, held_out, focal))


def describe(coverage: Coverage) -> str:
    """Coverage in words: the share of pixels that are covered, and PSNR."""
    return (
        f"{coverage.cover:.0%} covered, PSNR {coverage.psnr_db:.1f} dB (median {coverage.psnr_median_db:.1f}), "
        f"{coverage.views} views"
    )


@torch.no_grad()
def measure_itself(scene: Keyframes, focal: Tensor, limit: int = 40) -> Coverage:
    """Shows keyframes by all the others."""
    step = max(1, -(-len(scene) // limit))
    return measure_coverage(scene, scene, focal, limit, leave_out=torch.arange(0, len(scene), step))
