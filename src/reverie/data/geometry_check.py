"""Checks recorded depth and poses against the frames: frames are reprojected by them onto later ones.

A frame is rendered into the camera of a later one by its own depth, both poses and the field of view.  Then the same
is done with one setting changed (yaw counted from east, pitch downwards, another scale of depth, ...).  Where a changed
setting fits clearly better, the recording has that setting wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from reverie.data.dataset import Dataset
from reverie.types import Clip
from reverie.vision.pixels import shrink_frames
from reverie.vision.projection import focal_lengths
from reverie.vision.rendering import render_views

GAP_FRAMES = 8
"""A frame is warped onto the one so many frames on, or the next after that which has depth."""
EPISODES = 12
PAIRS_PER_EPISODE = 4
MIN_PAIRS = 6
"""With fewer pairs of frames there is no result."""
MIN_MOTION_DB = 28.0
"""Pairs that are more alike than this as they are carry no information."""
MIN_COVER = 0.1
"""The share of the frame that two settings must both cover to be compared."""
MIN_GAIN_DB, MIN_SIGMAS = 0.5, 3.0
"""A setting fits clearly better by so many dB on average, and by so many standard errors of that."""
MAX_WRONG = 3
"""Settings that can be found wrong together."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Corrections added to or multiplied with recorded poses and depth.

    shift: the pose of so many frames later is taken.
    """

    yaw_deg: float = 0.0
    yaw_sign: float = 1.0
    pitch_sign: float = 1.0
    roll_sign: float = 1.0
    depth_scale: float = 1.0
    fov_deg: float = 0.0
    shift: int = 0


CHANGES: dict[str, dict[str, float]] = {
    "yaw counts from another direction than north (add 90 degrees)": {"yaw_deg": 90.0},
    "yaw counts from another direction than north (add 180 degrees)": {"yaw_deg": 180.0},
    "yaw counts from another direction than north (add 270 degrees)": {"yaw_deg": 270.0},
    "yaw grows to the left (change its sign)": {"yaw_sign": -1.0},
    "yaw counts from east to the left (90 degrees less it)": {"yaw_sign": -1.0, "yaw_deg": 90.0},
    "pitch grows downwards (change its sign)": {"pitch_sign": -1.0},
    "roll grows to the left (change its sign)": {"roll_sign": -1.0},
    "depth is too small (it fits better 1.25 times larger)": {"depth_scale": 1.25},
    "depth is too large (it fits better 0.8 times as large)": {"depth_scale": 0.8},
    "depth is far too small (it fits better 2 times larger)": {"depth_scale": 2.0},
    "depth is far too large (it fits better half as large)": {"depth_scale": 0.5},
    "the field of view is wider than stated (it fits better with 8 degrees more)": {"fov_deg": 8.0},
    "the field of view is narrower than stated (it fits better with 8 degrees less)": {"fov_deg": -8.0},
    "poses are a frame early (row i holds the pose of frame i + 1)": {"shift": -1},
    "poses are a frame late (row i holds the pose of frame i - 1)": {"shift": 1},
}
"""Changes that are tried, by the message that reports them.  If none helps, yaw and pitch are changed together."""


_PAIRS_OF_CHANGES = {
    f"{yaw}; {pitch}": CHANGES[yaw] | CHANGES[pitch]
    for yaw in CHANGES
    for pitch in CHANGES
    if yaw.startswith("yaw") and pitch.startswith("pitch")
}


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A frame with depth and a later one.

    source, target: `(H, W, 3)` uint8; depth, hidden: `(64, 112)` of the source; target_hidden: of the target.
    source_poses, target_poses: `(3, 6)`, of the frame before, the frame, and the frame after.
    """

    source: npt.NDArray[np.uint8]
    target: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.bool_]
    target_hidden: npt.NDArray[np.bool_]
    source_poses: npt.NDArray[np.float32]
    target_poses: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GeometryFit:
    """Result of the check of depth and poses against the frames.

    warped_db, still_db: PSNR of the reprojected and of the unchanged frame against the later one, where it is covered.
    wrong: the settings that fit clearly better otherwise, each with the gain in dB.
    fits: the reprojected frame is clearly better than the unchanged one, and no setting is wrong.
    """

    pairs: int
    warped_db: float
    still_db: float
    wrong: tuple[tuple[str, float], ...] = ()

    @property
    def fits(self) -> bool:
        return not self.wrong and self.warped_db > self.still_db + MIN_GAIN_DB


def check_geometry(dataset: Dataset, seed: int = 0) -> GeometryFit | None:
    """Warps frames of some episodes.

    None where there is too little to measure: no depth, no field of view, or hardly any motion.
    """
    if dataset.fov_deg is None or not dataset.poses_are_known:
        return None
    pairs = list(_pairs_of_dataset(dataset, np.random.default_rng(seed)))
    return fit_geometry(pairs, dataset.fov_deg, dataset.pixel_aspect)


def fit_geometry(pairs: Sequence[Pair], fov_deg: float, pixel_aspect: float = 1.0) -> GeometryFit | None:
    """Measures the fit of `pairs` and finds wrong settings.  None if fewer than MIN_PAIRS show any motion."""
    if len(pairs) < MIN_PAIRS:
        return None
    warper = _Warper(pairs, fov_deg, pixel_aspect)
    setting, wrong = Setting(), []
    first, cover = warper.warp(setting)
    moves = _db(warper.error(warper.still, cover)) < MIN_MOTION_DB
    if int(moves.sum()) < MIN_PAIRS:
        return None
    while len(wrong) < MAX_WRONG:
        found = _best_change(warper, setting, moves)
        if found is None:
            break
        name, setting, gain = found
        wrong.append((name, gain))
    errors = warper.error(first, cover)[moves], warper.error(warper.still, cover)[moves]
    warped, still = (float(_db(error.mean())) for error in errors)
    return GeometryFit(int(moves.sum()), warped, still, tuple(wrong))


def warped_db(pairs: Sequence[Pair], fov_deg: float, pixel_aspect: float = 1.0) -> float:
    """PSNR of the warped sources of `pairs` against their targets, where the warp covers them."""
    warper = _Warper(pairs, fov_deg, pixel_aspect)
    return float(_db(warper.error(*warper.warp(Setting())).mean()))


def clip_pairs(clip: Clip, rng: np.random.Generator, most: int = PAIRS_PER_EPISODE) -> Iterator[Pair]:
    """Some pairs of a clip that has poses and depth, drawn by `rng`."""
    if clip.depth is None or clip.poses is None or not np.isfinite(clip.poses).all():
        return
    frames, last = clip.depth.frames, len(clip.frames) - 1
    usable = []
    for i, frame in enumerate(frames):
        j = int(np.searchsorted(frames, frame + GAP_FRAMES))
        if j < len(frames) and frame >= 1 and frames[j] < last:
            usable.append((i, j))
    for k in sorted(rng.permutation(len(usable))[:most]):
        i, j = usable[k]
        source, target = int(frames[i]), int(frames[j])
        around = [clip.poses[frame - 1 : frame + 2] for frame in (source, target)]
        depth, body = clip.depth.depth, clip.depth.body
        yield Pair(clip.frames[source], clip.frames[target], depth[i], body[i], body[j], *around)


def _pairs_of_dataset(dataset: Dataset, rng: np.random.Generator) -> Iterator[Pair]:
    with_depth = [i for i, episode in enumerate(dataset.episodes) if episode.depth_file is not None]
    chosen = np.linspace(0, len(with_depth) - 1, min(EPISODES, len(with_depth))).round().astype(int)
    for index in chosen:
        yield from clip_pairs(dataset.clip(with_depth[index]), rng)


def _best_change(warper: _Warper, setting: Setting, moves: npt.NDArray[np.bool_]) -> tuple[str, Setting, float] | None:
    """The change of `setting` that fits clearly better, and best: its name, the changed setting, the gain in dB.

    A change counts only if it then fits better than the unchanged frame.
    """
    return _best_of(CHANGES, warper, setting, moves) or _best_of(_PAIRS_OF_CHANGES, warper, setting, moves)


def _best_of(
    changes: dict[str, dict[str, float]], warper: _Warper, setting: Setting, moves: npt.NDArray[np.bool_]
) -> tuple[str, Setting, float] | None:
    image, cover = warper.warp(setting)
    best = None
    for name, change in changes.items():
        changed = _changed(setting, change)
        if changed is None:
            continue
        other, other_cover = warper.warp(changed)
        both = cover & other_cover
        usable = moves & (both.flatten(1).float().mean(1).numpy() > MIN_COVER)
        if int(usable.sum()) < MIN_PAIRS:
            continue
        fit, before, still = (_db(warper.error(each, both))[usable] for each in (other, image, warper.still))
        if fit.mean() < still.mean() + MIN_GAIN_DB:
            continue
        gains = fit - before
        gain, spread = float(gains.mean()), float(gains.std(ddof=1)) / np.sqrt(len(gains))
        if gain > MIN_GAIN_DB and gain > MIN_SIGMAS * spread and (best is None or gain > best[2]):
            best = name, changed, gain
    return best


def _changed(setting: Setting, change: dict[str, float]) -> Setting | None:
    """`setting` with a change made; None where what it changes has been changed before."""
    if any(getattr(setting, name) != getattr(Setting(), name) for name in change):
        return None
    return replace(setting, **change)  # type: ignore[arg-type]


class _Warper:
    """Warps the sources of pairs, at least one, onto their targets, all at once, under any setting."""

    def __init__(self, pairs: Sequence[Pair], fov_deg: float, pixel_aspect: float) -> None:
        self._fov_deg, self._aspect, self._count = fov_deg, pixel_aspect, len(pairs)
        source, target = (
            torch.from_numpy(np.stack([getattr(pair, name) for pair in pairs])).permute(0, 3, 1, 2)
            for name in ("source", "target")
        )
        self._source = source[:, None]
        self._depth = torch.from_numpy(np.stack([pair.depth for pair in pairs]))[:, None]
        self._hidden = torch.from_numpy(np.stack([pair.hidden for pair in pairs]))[:, None]
        self._target_hidden = torch.from_numpy(np.stack([pair.target_hidden for pair in pairs]))
        self._poses = np.stack([[pair.source_poses, pair.target_poses] for pair in pairs])  # (pairs, 2, 3, 6)
        size = (self._depth.shape[-2], self._depth.shape[-1])
        self.still, self._target = (shrink_frames(image, size) for image in (source, target))

    def warp(self, setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(pairs, 3, h, w)`, and which of their pixels are visible in the source and are not of the body."""
        poses = self._poses[:, :, 1 + setting.shift].copy()
        poses[..., 3] = poses[..., 3] * setting.yaw_sign + setting.yaw_deg
        poses[..., 4] *= setting.pitch_sign
        poses[..., 5] *= setting.roll_sign
        source, target = torch.from_numpy(poses).unbind(1)
        focal = focal_lengths(torch.full((self._count,), self._fov_deg + setting.fov_deg), self._aspect)
        view = render_views(
            self._source,
            self._depth * setting.depth_scale,
            self._hidden,
            source[:, None],
            torch.ones(self._count, 1, dtype=torch.bool),
            target[:, None],
            focal,
        )
        return view.colour[:, 0], (view.cover[:, 0] > 0.5) & ~self._target_hidden

    def error(self, image: torch.Tensor, where: torch.Tensor) -> npt.NDArray[np.float64]:
        """Mean squared errors `(pairs,)` against the targets over the pixels `where`, in [0, 1]."""
        squared = ((image - self._target) / 2).square().mean(1)
        return ((squared * where).sum((1, 2)) / where.sum((1, 2)).clamp(min=1)).double().numpy()


def _db(error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return -10.0 * np.log10(np.maximum(error, 1e-6))
