"""Rollouts in a scene, measured: along held-out walks, turned away and back, out and back, and long plays.

Frames are compared at half size, the size of the memory's views.  Legend: n sessions, f frames, (h w) = 64 x 112.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from reverie.evaluate import sheets
from reverie.evaluate.action_mapping import Rows, columns_of
from reverie.evaluate.collapse import Looks, look, looks, moved_seconds
from reverie.evaluate.consistency import opposite
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.idm_scorer import INSIDE, IDMScorer
from reverie.evaluate.long_play import SignsResult
from reverie.evaluate.rollout import Tick
from reverie.evaluate.scenes.batch import Batch, Poses, shrink
from reverie.evaluate.scenes.walks import IDLE_FRAMES, TURN_FRAMES, Place, SceneSize, Walk
from reverie.evaluate.store import Record
from reverie.scenes.ego_motion import apply_motion, relative_motion
from reverie.types import FPS, Action, Frames
from reverie.vision.projection import wrap_degrees

Errors = npt.NDArray[np.floating]

GAME, REBUILT, STILL = "the game", "the game through the tokenizer", "still start frame"
MEMORY, LED, OWN, IMAGE = "memory alone", "in the scene, recorded camera", "in the scene, own camera", "from one image"
ROWS = {MEMORY: "memory", LED: "led", OWN: "own", IMAGE: "image", GAME: "game", REBUILT: "rebuilt"}
"""Rows of tables, and what files of theirs are called."""

SHOWN_S = (0.2, 1, 2, 4, 8, 12, 16, 20)
TURN_DEG = 180 / TURN_FRAMES
HALF_TURN = range(IDLE_FRAMES + 42, IDLE_FRAMES + 59, 2)
"""Frames of a turn that look within 30 degrees of straight back."""
AGAIN_M, AGAIN_DEG, AGAIN_S = 0.3, 4.0, 3
"""A view comes again where the camera is as near as this to where it was so many seconds before or earlier."""


@dataclass(frozen=True, slots=True)
class WalkResult(Record):
    """Videos of n walks.

    error: squared levels (n, f).  signs: of collapse (n, s, SIGNS).
    again: mean squared levels between frames of one view (n,), nan without.
    named, asked: actions of each walk, with an inverse-dynamics model.
    still: of the game, `error` of its first frame.
    """

    error: Errors
    signs: Looks
    again: Errors
    named: list[Rows] = field(default_factory=list)
    asked: list[Rows] = field(default_factory=list)
    still: Errors | None = None


@dataclass(frozen=True, slots=True)
class ViewFeatures(Record):
    """Looks of frames (n, LOOK_SIZE), and with an inverse-dynamics model its image features (n, c)."""

    looks: Looks
    images: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class TurnResult(Record):
    """A half turn and back of n sessions.

    back: squared levels between before and after (n,); away: between before and half way.
    half: frames of half turns, and the poses of their cameras.
    """

    turned_deg: float
    back: Errors
    away: Errors
    half: ViewFeatures
    poses: Poses


@dataclass(frozen=True, slots=True)
class RealViews(Record):
    """The game's own frames nearest to half turns: of even episodes, of odd ones, and the even ones blurred."""

    even: ViewFeatures
    odd: ViewFeatures
    blurred: ViewFeatures


@dataclass(frozen=True, slots=True)
class WayResult(Record):
    """A way out and back: squared levels (n,) between the first second and the last one reversed, and of all frames."""

    back: Errors
    way: Errors


@dataclass(frozen=True, slots=True)
class RuinedResult(Record):
    """Signs of collapse by second of the walks, by the way in which they are ruined."""

    clips: dict[str, list[Looks]]


@dataclass(frozen=True, slots=True)
class SceneExperiment:
    """One model in one scene."""

    experiment: Experiment
    place: Place
    size: SceneSize

    def open(self, walks: Sequence[Walk], row: str) -> Batch:
        """Opens sessions at the starts of walks: in the scene, or from each image alone."""
        engine, seed = self.experiment.model.engine, self.experiment.seed
        images = np.stack([walk.image for walk in walks])
        if row == IMAGE:
            return Batch(engine, images, seed)
        poses = np.stack([walk.poses[0] for walk in walks])
        return Batch(engine, images, seed, scene=self.place.scene, poses=poses, memory_alone=row == MEMORY)

    def starts(self, count: int) -> list[Walk]:
        """So many starts: the walks', then later frames of them, so that none is taken twice."""
        walks = list(self.place.walks)
        for later in range(4 * FPS, self.place.num_frames - FPS, 4 * FPS):
            walks += [walk.after(later) for walk in self.place.walks]
        return walks[:count]

    def save(self, frames: Frames | Sequence[Frames], section: str, k: int, row: str) -> None:
        """Writes a strip of frames."""
        sheets.save_frames(frames, self.experiment.strip(f"{section}-{k}-{ROWS[row]}"))

    def walk(self, row: str, tick: Tick) -> WalkResult:
        """Measures the recording itself, it through the model's tokenizer, or rollouts along the held-out walks."""
        place = self.place
        if row in (GAME, REBUILT):
            change = self.experiment.model.rebuild if row == REBUILT else lambda frames: frames
            return self._measure_walks(row, [change(walk.clip.frames) for walk in place.walks])
        led = np.stack([walk.poses[1:] for walk in place.walks]) if row in (MEMORY, LED) else None
        actions = [place.mapping.map_rows(walk.clip.actions[:-1]) for walk in place.walks]
        return self._measure_walks(row, list(self.open(place.walks, row).play(actions, led, tick=tick).frames))

    def _measure_walks(self, row: str, videos: Sequence[Frames]) -> WalkResult:
        """Measures a video of each walk, and writes a strip of it."""
        place, scorer = self.place, self.place.scorer
        small, real = [shrink(video) for video in videos], [shrink(walk.clip.frames) for walk in place.walks]
        result = WalkResult(
            np.stack([_squared(video, true) for video, true in zip(small, real, strict=True)]),
            np.stack([_signs(video, walk.poses) for video, walk in zip(small, place.walks, strict=True)]),
            np.array([_again(video, walk.poses) for video, walk in zip(small, place.walks, strict=True)]),
            still=np.stack([_squared(video, video[:1]) for video in real]) if row == GAME else None,
        )
        for k, (walk, video) in enumerate(zip(place.walks, videos, strict=True)):
            sheets.save_strip(video, SHOWN_S, self.experiment.strip(f"walk-{k}-{ROWS[row]}"))
            if scorer is not None and row != MEMORY:
                asked = columns_of(walk.clip.actions[:-1], place.mapping.data, scorer.space)
                result.asked.append(asked[INSIDE])
                result.named.append(scorer.name_actions(video)[INSIDE])
        return result

    def turn_back(self, row: str, tick: Tick) -> TurnResult:
        """Plays a half turn and back under the model's own camera, 4 s in all."""
        place, walks = self.place, self.starts(self.size.turns)
        away, home = ([Action(mouse=(0.0, sign * TURN_DEG))] * TURN_FRAMES for sign in (1, -1))
        script = [Action()] * IDLE_FRAMES + away + home + [Action()] * IDLE_FRAMES
        mapped = [place.mapping.map_action(action) for action in script]
        played = self.open(walks, row).play([mapped] * len(walks), tick=tick)
        small, middle = shrink(played.frames), IDLE_FRAMES + TURN_FRAMES
        before = small[:, IDLE_FRAMES - 3 : IDLE_FRAMES + 1].astype(np.float32)
        for k in range(min(3, len(walks))):
            shown = [0, IDLE_FRAMES + 25, middle, middle + 25, played.frames.shape[1] - 1]
            self.save(played.frames[k, shown], "turn", k, row)
        return TurnResult(
            float(np.mean(played.poses[:, middle, 3] - played.poses[:, 0, 3])),
            np.square(small[:, -4:] - before).mean((1, 2, 3, 4)),
            np.square(small[:, middle - 3 : middle + 1] - before).mean((1, 2, 3, 4)),
            _view_features(_flatten(small[:, HALF_TURN]), _flatten(played.frames[:, HALF_TURN]), place.scorer),
            world_poses(played.poses[:, HALF_TURN], walks, row),
        )

    def out_and_back(self, row: str, tick: Tick) -> WayResult:
        """Walks out under recorded actions and the model's own camera, and the same way back with the camera led."""
        walks = self.starts(self.size.returns)
        num_frames = -(-self.size.out_s * FPS // 4) * 4
        actions = [self.place.play_actions(k, num_frames) for k in range(len(walks))]
        batch = self.open(walks, row)
        out = batch.play(actions, half=True, tick=tick)
        home = [[opposite(action) for action in reversed(one)] for one in actions]
        back = batch.play(home, out.poses[:, -2::-1], half=True, first=False, tick=tick)
        error = np.square(out.frames[:, :-1].astype(np.float32) - back.frames[:, ::-1]).mean((2, 3, 4))
        shown = np.linspace(0, num_frames - 1, 5).round().astype(int)
        for k in range(min(3, len(walks))):
            self.save([*out.frames[k, shown], *back.frames[k, shown]], "way", k, row)
        return WayResult(error[:, :FPS].mean(1), error.mean(1))

    def play_long(self, row: str, tick: Tick) -> SignsResult:
        """Plays long under recorded actions and the model's own camera."""
        walks, play_s = self.starts(self.size.plays), self.size.play_s
        actions = [self.place.play_actions(k, play_s * FPS) for k in range(len(walks))]
        played = self.open(walks, row).play(actions, half=True, tick=tick)
        shown = [s * FPS for s in (0, 5, 10, 20, 30, 40, 50, 60) if s <= play_s]
        for k, video in enumerate(played.frames):
            self.save(video[shown], "long", k, row)
        return SignsResult([_signs(*one) for one in zip(played.frames, played.poses, strict=True)])


def _squared(video: Frames, real: Frames) -> Errors:
    return np.square(video.astype(np.float32) - real).mean((1, 2, 3))


def _signs(video: Frames, poses: Poses) -> Looks:
    return looks(video[1:], video[0], moved_seconds(poses))


def _flatten(frames: Frames) -> Frames:
    """Frames (n, v, h, w, 3) of all sessions in one row."""
    return frames.reshape(-1, *frames.shape[2:])


def _again(frames: Frames, poses: Poses) -> float:
    """Mean squared levels between frames of one view, AGAIN_S seconds apart or more; nan where none comes again."""
    every = range(0, len(frames), 5)
    errors = []
    for late in every:
        early = np.arange(0, late - AGAIN_S * FPS + 1, 5)
        if not len(early):
            continue
        turn = np.abs(wrap_degrees(poses[early, 3:5] - poses[late, 3:5])).max(1)
        away = np.linalg.norm(poses[early, :3] - poses[late, :3], axis=1) / AGAIN_M + turn / AGAIN_DEG
        nearest = int(away.argmin())
        if away[nearest] < 1:
            errors.append(float(np.square(frames[late].astype(np.float32) - frames[early[nearest]]).mean()))
    return float(np.mean(errors)) if errors else float("nan")


def real_views(place: Place, poses: Poses) -> RealViews:
    """Features of the game's own frames nearest to poses (n, 6)."""
    even, odd = (place.library.nearest(poses, half) for half in (0, 1))
    return RealViews(*(_view_features(frames, frames, place.scorer) for frames in (even, odd, blur(even))))


def _view_features(small: Frames, full: Frames, scorer: IDMScorer | None) -> ViewFeatures:
    """Features of frames (n, h, w, 3), and of the same at full size."""
    seen = np.stack([look(frame[None]) for frame in small])
    return ViewFeatures(seen, None if scorer is None else scorer.pool_features(full))


def world_poses(poses: Poses, walks: Sequence[Walk], row: str) -> Poses:
    """Poses (n, v, 6) of sessions in the recording's world: a session from one image counts from its own start."""
    if row != IMAGE:
        return poses.reshape(-1, 6)
    result = []
    for walk, own in zip(walks, poses, strict=True):
        start = torch.from_numpy(walk.poses[0]).expand(len(own), 6)
        motion = relative_motion(torch.zeros(len(own), 6), torch.from_numpy(own))
        result.append(apply_motion(start, motion).numpy())
    return np.concatenate(result)


def real_signs(place: Place) -> SignsResult:
    """Signs of other real clips."""
    return SignsResult([_signs(shrink(clip.frames), Walk("", clip).poses) for clip in place.real])


def ruined_signs(place: Place) -> RuinedResult:
    """Signs of the held-out walks as they are, and ruined from their fifth second on, short ones from the first."""
    clips: dict[str, list[Looks]] = {name: [] for name in RUINS}
    for walk in place.walks:
        small = shrink(walk.clip.frames)
        late = slice(5 * FPS if len(small) > 10 * FPS else 1, None)
        for name, change in RUINS.items():
            video = small.copy()
            video[late] = change(small, late)
            clips[name].append(looks(video[1:], small[0], moved_seconds(walk.poses)))
    return RuinedResult(clips)


def blur(frames: Frames) -> Frames:
    """Frames with all but the coarsest detail gone: 8 x 8 cells each of one colour, smoothed."""
    import cv2

    height, width = frames.shape[1:3]
    small = [cv2.resize(frame, (width // 8, height // 8), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in small])


def fold_down(frames: Frames) -> Frames:
    """Frames whose lower half is their upper half mirrored."""
    half = frames.shape[1] // 2
    return np.concatenate([frames[:, :half], frames[:, :half][:, ::-1]], 1)


def burn(frames: Frames) -> Frames:
    """Frames whose colours have run away."""
    return np.clip((frames.astype(np.float32) - 128) * 4 + 150, 0, 255).astype(np.uint8)


RUINS: dict[str, Callable[[Frames, slice], Frames]] = {
    "as recorded": lambda small, late: small[late],
    "haze": lambda small, late: blur(small[late]),
    "folded": lambda small, late: fold_down(small[late]),
    "start mirrored": lambda small, late: np.broadcast_to(small[0, :, ::-1], small[late].shape),
    "frozen": lambda small, late: np.broadcast_to(small[late.start - 1], small[late].shape),
    "burnt out": lambda small, late: burn(small[late]),
}
"""Damaged videos that a collapse detector must flag, and one sound video that it must pass."""
