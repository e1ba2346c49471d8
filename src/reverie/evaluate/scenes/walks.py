"""Held-out walks of a scene's place, and other recordings of it: what a model in the scene is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reverie.data.dataset import Dataset
from reverie.engine.engine import Engine
from reverie.engine.loading.scenes import LoadedScene
from reverie.errors import DataError
from reverie.evaluate.action_mapping import ActionMapping
from reverie.evaluate.idm_scorer import IDMScorer
from reverie.evaluate.rollout import repeat_actions
from reverie.evaluate.scenes.batch import Poses, shrink
from reverie.scenes.recordings import is_held_out, place_of
from reverie.types import FPS, Action, Clip, Frames
from reverie.vision.pixels import psnr_db
from reverie.vision.projection import focal_lengths, wrap_degrees

DEGREES_A_METRE = 10.0
"""Degrees of camera rotation that count as one metre in the choice of the nearest view."""
START_COVER = 0.5
"""Share of a start's view that the scene must show."""
IDLE_FRAMES, TURN_FRAMES = 8, 50
"""A half turn of 2 s, and 2 s back; before and after it nothing is done."""
WALK_S = (20, 16, 10, 4)
"""Seconds of a walk: the longest that the recording's held-out episodes last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSize:
    """Numbers of rollouts in a scene.

    walks: held-out walks of up to 20 s; turns: half turns and back; returns: ways out of `out_s` seconds and back;
    plays: of `play_s` seconds; real: other real clips as a reference for the game's looks.
    """

    walks: int = 8
    turns: int = 8
    returns: int = 6
    out_s: int = 15
    plays: int = 8
    play_s: int = 60
    real: int = 20
    speed_s: int = 10

    @classmethod
    def of(cls, quick: bool, starts: int | None = None, long_s: int | None = None) -> SceneSize:
        """quick: about 40 %, so that two cores need less than ten minutes a game.  starts: at most so many of each;
        long_s: seconds of the plays."""
        size = cls(walks=4, turns=4, returns=2, plays=3, real=10, speed_s=3) if quick else cls()
        size = size if long_s is None else replace(size, play_s=long_s, out_s=max(1, long_s // 4))
        if starts is None:
            return size
        return replace(
            size, walks=starts, turns=starts, returns=min(size.returns, starts), plays=min(size.plays, starts)
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """A held-out episode from its first frame on; start: the first frame (H, W, 3) and pose (6,)."""

    label: str
    clip: Clip

    @property
    def image(self) -> Frames:
        return self.clip.frames[0]

    @property
    def poses(self) -> Poses:
        assert self.clip.poses is not None
        return self.clip.poses

    def after(self, frame: int) -> Walk:
        """The walk from a later frame on."""
        clip = replace(
            self.clip, frames=self.clip.frames[frame:], actions=self.clip.actions[frame:], poses=self.poses[frame:]
        )
        return Walk(f"{self.label} +{frame // FPS} s", clip)


@dataclass(frozen=True, slots=True)
class Library:
    """Every recorded pose of the place: (n, 6), and the episode and frame of each."""

    dataset: Dataset
    poses: Poses
    episode: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]

    def nearest(self, pose: Poses, half: int) -> Frames:
        """The recorded frames (n, h, w, 3), at half size, nearest to poses (n, 6), in one half of the recording.

        half: 0 or 1; every other episode of the place, or where it has one alone, the first or last half of that.
        """
        rank = np.unique(self.episode, return_inverse=True)[1]
        halves = rank % 2 if rank.any() else 2 * self.frame // len(self.frame)
        usable = np.flatnonzero(halves == half)
        found = []
        for one in pose:
            there = self.poses[usable]
            turn = wrap_degrees(there[:, 3:5] - one[3:5])
            away = np.linalg.norm(there[:, :3] - one[:3], axis=1) + np.linalg.norm(turn, axis=1) / DEGREES_A_METRE
            found.append(int(usable[away.argmin()]))
        frames = [self.dataset.clip(int(self.episode[i]), int(self.frame[i]), 1, depth=False).frames for i in found]
        return shrink(np.concatenate(frames))


@dataclass(frozen=True, slots=True)
class Place:
    """Clips of one recording in one scene.

    walks: held-out ones, equally long; real: other clips of the game; library: the whole recording of the scene.
    """

    name: str
    path: Path
    scene: LoadedScene
    mapping: ActionMapping
    scorer: IDMScorer | None
    walks: list[Walk]
    real: list[Clip]
    library: Library
    notes: list[str] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        """Frames of every walk, the start included: whole blocks."""
        return len(self.walks[0].clip.frames)

    def play_actions(self, k: int, num_frames: int) -> list[Action]:
        """Actions of play k: its own walk's, then those of the others, over and over."""
        k %= len(self.walks)
        walks = (*self.walks[k:], *self.walks[:k])
        actions = [action for walk in walks for action in self.mapping.map_rows(walk.clip.actions[:-1])]
        return repeat_actions(actions, num_frames)


def pick_place(
    name: str,
    dataset: Dataset,
    scene: LoadedScene,
    engine: Engine,
    mapping: ActionMapping,
    scorer: IDMScorer | None,
    size: SceneSize,
    seed: int,
    *,
    any_split: bool = False,
) -> Place:
    """Chooses and reads held-out walks of the scene's place.

    Raises DataError for recordings without poses, of another camera, without held-out episodes long enough, and where
    the scene covers no start.
    """
    _check_camera(dataset, scene)
    usable = [i for i in range(len(dataset.episodes)) if any_split or is_held_out(dataset, i)]
    shortest = WALK_S[-1] * FPS + 1
    usable = [i for i in usable if dataset.episodes[i].length >= shortest]
    if not usable:
        raise DataError(
            f"{dataset.path} has no held-out episode of {shortest} frames or more; record longer ones, or say "
            "--any-split to measure on what the model may have been trained on"
        )
    place, ours, notes = _covered(dataset, scene, engine, usable)
    seconds = next(s for s in WALK_S if sum(dataset.episodes[i].length > s * FPS for i in ours) >= min(2, len(ours)))
    ours = [i for i in ours if dataset.episodes[i].length > seconds * FPS]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(ours)[: size.walks]
    walks = [Walk(f"episode {i}", dataset.clip(i, 0, seconds * FPS + 1, depth=False)) for i in sorted(map(int, chosen))]
    if seconds < WALK_S[0]:
        notes.append(f"The held-out episodes last {seconds} s: later figures are left out.")
    there = [i for i, episode in enumerate(dataset.episodes) if place_of(dataset, episode) == place]
    library = _library(dataset, there)
    others = [i for i in range(len(dataset.episodes)) if i not in chosen and dataset.episodes[i].length > 4 * FPS]
    real = [
        dataset.clip(i, 0, min(dataset.episodes[i].length, seconds * FPS + 1), depth=False)
        for i in map(int, rng.permutation(others)[: size.real])
    ]
    return Place(name, dataset.path, scene, mapping, scorer, walks, real, library, [*mapping.notes(), *notes])


def _check_camera(dataset: Dataset, scene: LoadedScene) -> None:
    """Raises DataError for recordings without poses, or whose camera is not the scene's."""
    dataset.require_poses()
    fov_deg = dataset.fov_deg or scene.scene.fov_deg
    found, wanted = (fov_deg, dataset.pixel_aspect), (scene.scene.fov_deg, scene.scene.pixel_aspect)
    if np.abs(np.subtract(found, wanted)).max() > 0.05:
        raise DataError(
            f"{dataset.path}: its camera sees {found[0]:g} degrees (pixel aspect {found[1]:g}), that of the scene "
            f"{scene.scene.name} {wanted[0]:g} ({wanted[1]:g}); name a scene of the recorded game"
        )


def _shared_poses(dataset: Dataset) -> set[bytes]:
    """Poses of more than one episode: games that always begin alike cannot be told apart by them."""
    seen: set[bytes] = set()
    shared: set[bytes] = set()
    for i in range(dataset.num_episodes):
        recorded = dataset.poses(i)
        if recorded is not None:
            mine = {pose.tobytes() for pose in recorded}
            shared |= seen & mine
            seen |= mine
    return shared


def _covered(
    dataset: Dataset, scene: LoadedScene, engine: Engine, usable: Sequence[int]
) -> tuple[str, list[int], list[str]]:
    """The place that the scene shows best, those of its episodes whose start it covers, and remarks for the report.

    Raises DataError where it covers no start.
    """
    built_from = {pose.tobytes() for pose in scene.scene.pose}
    poses, fresh = [], []
    only_here = built_from - _shared_poses(dataset)
    for i in usable:
        recorded = dataset.poses(i)
        assert recorded is not None
        if not any(pose.tobytes() in only_here for pose in recorded):
            fresh.append(i)
            poses.append(recorded[0])
    if not fresh:
        raise DataError(
            f"the scene {scene.scene.name} was built from every held-out episode of {dataset.path}; build it again "
            "(episodes that are held out are left out), or record others"
        )
    cover, fits_db = start_views(dataset, scene, engine, fresh, np.stack(poses))
    names = [place_of(dataset, dataset.episodes[i]) for i in fresh]
    shown = {name: np.mean([fits_db[k] for k, other in enumerate(names) if other == name]) for name in names}
    best = max(shown, key=lambda name: shown[name])
    inside = [k for k, name in enumerate(names) if name == best and cover[k] >= START_COVER]
    if not inside:
        raise DataError(
            f"the scene {scene.scene.name} covers {max(cover):.0%} of the best held-out start in {dataset.path}, "
            f"expected {START_COVER:.0%} or more; name a scene of the place that was recorded"
        )
    notes = [
        f"Scene {scene.scene.name}: at {len(inside)} starts it covers {np.mean([cover[k] for k in inside]):.0%} of the "
        f"view, PSNR {np.mean([fits_db[k] for k in inside]):.1f} dB"
        + (f" (place {best} of {len(shown)})" if len(shown) > 1 else "")
        + "."
    ]
    outside = names.count(best) - len(inside)
    if outside:
        notes.append(f"{outside} held-out starts lie outside of what the scene covers and are left out.")
    if len(fresh) < len(usable):
        notes.append(f"{len(usable) - len(fresh)} held-out episodes have frames in the scene and are left out.")
    return best, [fresh[k] for k in inside], notes


@torch.inference_mode()
def start_views(
    dataset: Dataset, scene: LoadedScene, engine: Engine, episodes: Sequence[int], poses: Poses
) -> tuple[list[float], list[float]]:
    """Cover (0 to 1) and PSNR (dB) of the scene's views at the starts of episodes; poses (n, 6) of the starts."""
    memory = engine.bundle.memory
    assert memory is not None, "checked when the scene was loaded"
    cover, fits_db = [], []
    focal = focal_lengths(torch.tensor([scene.scene.fov_deg]), scene.scene.pixel_aspect).to(engine.device)
    state = memory.init_state(1, engine.resolution, engine.device, len(scene.candidates.keyframes))
    state.focal.copy_(focal)
    for i, pose in zip(episodes, poses, strict=True):
        view, _ = memory.render(state, torch.from_numpy(pose).to(engine.device).expand(1, 4, 6), scene.candidates)
        cover.append(float(view.cover.mean()))
        seen = view.colour[0, 0].permute(1, 2, 0).clamp(-1, 1).cpu().numpy()
        real = shrink(dataset.clip(i, 0, 1, depth=False).frames)[0] / 127.5 - 1
        if real.shape != seen.shape:  # a model of toy size
            fits_db.append(0.0)
            continue
        fits_db.append(psnr_db(float(np.square(seen - real).mean())))
    return cover, fits_db


def _library(dataset: Dataset, episodes: Sequence[int]) -> Library:
    poses, episode, frame = [], [], []
    for i in episodes:
        recorded = dataset.poses(i)
        assert recorded is not None
        poses.append(recorded)
        episode.append(np.full(len(recorded), i))
        frame.append(np.arange(len(recorded)))
    return Library(dataset, np.concatenate(poses), np.concatenate(episode), np.concatenate(frame))
