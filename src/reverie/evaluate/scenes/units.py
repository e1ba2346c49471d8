"""Rollouts in a scene, measured: along held-out walks, turned away and back, out and back, and long plays.

Frames are compared at half size, the size of the memory's views.  Legend: n sessions, f frames, (h w) = 64 x 112.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reverie.engine.engine import Engine
from reverie.evaluate import features, metrics, obedience, sheets
from reverie.evaluate.clips import EDGE_STEPS
from reverie.evaluate.collapse import look, looks, moved_seconds
from reverie.evaluate.consistency import opposite
from reverie.evaluate.fit import columns_of
from reverie.evaluate.plan import Judge
from reverie.evaluate.scenes.batch import Batch, Played, Poses, shrink
from reverie.evaluate.scenes.walks import IDLE_FRAMES, TURN_FRAMES, Place, Walk
from reverie.evaluate.store import Unit
from reverie.evaluate.subject import Subject
from reverie.models.ego_motion import apply_motion, relative_motion
from reverie.types import FPS, Action, Frames

Tick = Callable[[], None]

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


def open_batch(engine: Engine, place: Place, walks: Sequence[Walk], row: str, seed: int) -> Batch:
    """Sessions at the starts of walks: in the scene, or from each image alone."""
    images = np.stack([walk.image for walk in walks])
    if row == IMAGE:
        return Batch(engine, images, seed)
    poses = np.stack([walk.poses[0] for walk in walks])
    return Batch(engine, images, seed, scene=place.scene, poses=poses, memory_alone=row == MEMORY)


def along(engine: Engine, place: Place, row: str, seed: int, folder: Path, tick: Tick) -> Unit:
    """Rollouts along the held-out walks.  arrays as `_measure_walks` gives them."""
    actions = [place.fit.actions(walk.clip.actions[:-1]) for walk in place.walks]
    batch = open_batch(engine, place, place.walks, row, seed)
    led = np.stack([walk.poses[1:] for walk in place.walks]) if row in (MEMORY, LED) else None
    frames = batch.play(actions, led, tick=tick).frames
    return _measure_walks(place, row, list(frames), folder)


def real_along(subject: Subject, place: Place, row: str, folder: Path, tick: Tick) -> Unit:
    """The same of the recording itself, or of it through the model's tokenizer."""
    videos = []
    for walk in place.walks:
        rebuilt = subject.rebuild(walk.clip.frames) if row == REBUILT else walk.clip.frames
        assert rebuilt is not None, "a model with a memory has a tokenizer"
        videos.append(rebuilt)
        tick()
    return _measure_walks(place, row, videos, folder)


def _measure_walks(place: Place, row: str, videos: Sequence[Frames], folder: Path) -> Unit:
    """arrays: `error` (n, f) squared levels, `sharp` (n, s) by second, `looks` (n, s, SIGNS), `again` (n,) mean
    squared levels between frames of one view; of the game also `still` (n, f), as `error`, of its first frame; with a
    judge `said.K`, `asked.K` of walk k.  Writes a strip of each."""
    unit = Unit()
    error, sharp, signs, again = [], [], [], []
    for k, (walk, video) in enumerate(zip(place.walks, videos, strict=True)):
        real, small = shrink(walk.clip.frames), shrink(video)
        error.append(np.square(small.astype(np.float32) - real).mean((1, 2, 3)))
        sharp.append(metrics.sharpness(small[1::5]).reshape(-1, FPS // 5).mean(1))
        signs.append(looks(small[1:], small[0], moved_seconds(walk.poses)))
        again.append(_again(small, walk.poses))
        sheets.save_strip(video, SHOWN_S, folder / f"{place.name}-walk-{k}-{ROWS[row]}.jpg")
        if place.judge is not None and row != MEMORY:
            asked = columns_of(walk.clip.actions[:-1], place.fit.data, place.judge.space)
            unit.arrays[f"asked.{k}"] = asked[EDGE_STEPS:-EDGE_STEPS]
            unit.arrays[f"said.{k}"] = _said(place.judge, video)
    if row == GAME:
        small = [shrink(walk.clip.frames).astype(np.float32) for walk in place.walks]
        unit.arrays["still"] = np.stack([np.square(video - video[:1]).mean((1, 2, 3)) for video in small])
    unit.arrays.update(error=np.stack(error), sharp=np.stack(sharp), looks=np.stack(signs), again=np.array(again))
    return unit


def _said(judge: Judge, video: Frames) -> npt.NDArray[np.float32]:
    """The actions that the inverse-dynamics model names, its uncertain ends left out."""
    rows = judge.model.label(video)
    return columns_of(rows, judge.model.config.action_space, judge.space)[EDGE_STEPS:-EDGE_STEPS]


def _again(frames: Frames, poses: Poses) -> float:
    """Mean squared levels between frames of one view, AGAIN_S seconds apart or more; nan where none comes again."""
    every = range(0, len(frames), 5)
    errors = []
    for late in every:
        early = np.arange(0, late - AGAIN_S * FPS + 1, 5)
        if not len(early):
            continue
        turn = np.abs((poses[early, 3:5] - poses[late, 3:5] + 180) % 360 - 180).max(1)
        away = np.linalg.norm(poses[early, :3] - poses[late, :3], axis=1) / AGAIN_M + turn / AGAIN_DEG
        nearest = int(away.argmin())
        if away[nearest] < 1:
            errors.append(float(np.square(frames[late].astype(np.float32) - frames[early[nearest]]).mean()))
    return float(np.mean(errors)) if errors else float("nan")


def turn_back(engine: Engine, place: Place, row: str, count: int, seed: int, folder: Path, tick: Tick) -> Unit:
    """A half turn and back under the model's own camera, 4 s in all.

    arrays: `back` (n,) squared levels between before and after, `away` (n,) between before and half way; `half` (n, v,
    LOOK_SIZE) looks of frames of half turns; with a judge `half.features`.  facts: `turned_deg`.
    """
    walks = _first(place, count)
    script = [Action()] * IDLE_FRAMES + [Action(mouse=(0.0, TURN_DEG))] * TURN_FRAMES
    script += [Action(mouse=(0.0, -TURN_DEG))] * TURN_FRAMES + [Action()] * IDLE_FRAMES
    said = [place.fit.say(action) for action in script]
    played = open_batch(engine, place, walks, row, seed).play([said] * len(walks), tick=tick)
    small = shrink(played.frames)
    middle = IDLE_FRAMES + TURN_FRAMES
    unit = Unit({"turned_deg": _turned_deg(played.poses, middle)})
    before = small[:, IDLE_FRAMES - 3 : IDLE_FRAMES + 1].astype(np.float32)
    unit.arrays["back"] = np.square(small[:, -4:] - before).mean((1, 2, 3, 4))
    unit.arrays["away"] = np.square(small[:, middle - 3 : middle + 1] - before).mean((1, 2, 3, 4))
    _add_features(unit, "half", small[:, HALF_TURN], played.frames[:, HALF_TURN], place.judge)
    unit.arrays["poses"] = world_poses(played.poses[:, HALF_TURN], walks, row)
    shown = [0, IDLE_FRAMES + 25, middle, middle + 25, played.frames.shape[1] - 1]
    for k in range(min(3, len(walks))):
        strip = np.concatenate(played.frames[k, shown], 1)
        sheets.save_jpeg(strip, folder / f"{place.name}-turn-{k}-{ROWS[row]}.jpg")
    return unit


def real_views(place: Place, poses: Poses, tick: Tick) -> Unit:
    """The game's own frames nearest to poses (n, 6): of even episodes, and of odd ones.

    arrays: `even`, `odd`, and `blurred` ones of the even (n, LOOK_SIZE) looks; with a judge `even.features` and so on.
    """
    unit = Unit()
    for half, name in enumerate(("even", "odd")):
        frames = place.library.nearest(poses, half)
        _add_features(unit, name, frames[:, None], frames[:, None], place.judge)
        if name == "even":
            soft = blur(frames)[:, None]
            _add_features(unit, "blurred", soft, soft, place.judge)
        tick()
    return unit


def _add_features(unit: Unit, name: str, small: Frames, full: Frames, judge: Judge | None) -> None:
    """Looks, and with a judge its image features, of frames (n, v, h, w, 3) and the same at full size."""
    flat = small.reshape(-1, *small.shape[2:])
    unit.arrays[name] = np.stack([look(frame[None]) for frame in flat])
    if judge is not None:
        seen = features.picture_maps(judge.model, full.reshape(-1, *full.shape[2:]))
        unit.arrays[f"{name}.features"] = seen.mean((2, 3)).cpu().numpy()


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


def _turned_deg(poses: Poses, frame: int) -> float:
    turn = poses[:, frame, 3] - poses[:, 0, 3]
    return float(np.mean(turn))


def out_and_back(
    engine: Engine, place: Place, row: str, count: int, out_s: int, seed: int, folder: Path, tick: Tick
) -> Unit:
    """A way out under recorded actions and the model's own camera, and the very same way back with the camera led.

    arrays: `back` (n,) squared levels between the first second and the last one, reversed; `way` (n,) between all
    frames of the way out and those of the way back.
    """
    walks = _first(place, count)
    num_frames = -(-out_s * FPS // 4) * 4
    actions = [place.play_actions(k, num_frames) for k in range(len(walks))]
    batch = open_batch(engine, place, walks, row, seed)
    out = batch.play(actions, half=True, tick=tick)
    home = [[opposite(action) for action in reversed(one)] for one in actions]
    back = batch.play(home, out.poses[:, -2::-1], half=True, first=False, tick=tick)
    there, again = out.frames[:, :-1].astype(np.float32), back.frames[:, ::-1]
    error = np.square(there - again).mean((2, 3, 4))
    unit = Unit(arrays={"back": error[:, :FPS].mean(1), "way": error.mean(1)})
    shown = np.linspace(0, num_frames - 1, 5).round().astype(int)
    for k in range(min(3, len(walks))):
        strip = np.concatenate([*out.frames[k, shown], *back.frames[k, shown]], 1)
        sheets.save_jpeg(strip, folder / f"{place.name}-way-{k}-{ROWS[row]}.jpg")
    return unit


def play_long(
    engine: Engine, place: Place, row: str, count: int, play_s: int, seed: int, folder: Path, tick: Tick
) -> Unit:
    """Long plays under recorded actions and the model's own camera.

    arrays: `looks` (n, s, SIGNS), `sharp` (n, s).
    """
    walks = _first(place, count)
    actions = [place.play_actions(k, play_s * FPS) for k in range(len(walks))]
    played = open_batch(engine, place, walks, row, seed).play(actions, half=True, tick=tick)
    unit = Unit()
    unit.arrays["looks"] = np.stack([_signs(played, k) for k in range(len(walks))])
    unit.arrays["sharp"] = np.stack(
        [metrics.sharpness(video[1::5]).reshape(-1, FPS // 5).mean(1) for video in played.frames]
    )
    shown = [s * FPS for s in (0, 5, 10, 20, 30, 40, 50, 60) if s <= play_s]
    for k in range(len(walks)):
        strip = np.concatenate(played.frames[k, shown], 1)
        sheets.save_jpeg(strip, folder / f"{place.name}-long-{k}-{ROWS[row]}.jpg")
    return unit


def _signs(played: Played, k: int) -> npt.NDArray[np.float64]:
    video = played.frames[k]
    return looks(video[1:], video[0], moved_seconds(played.poses[k]))


def real_looks(place: Place) -> Unit:
    """Signs of other real clips; arrays: `looks.K`, and `frames` looks of single frames, one a second."""
    unit = Unit()
    for k, clip in enumerate(place.real):
        small = shrink(clip.frames)
        assert clip.poses is not None
        unit.arrays[f"looks.{k}"] = looks(small[1:], small[0], moved_seconds(clip.poses))
    return unit


def ruined(place: Place) -> Unit:
    """The held-out walks as they are and ruined in five ways from their fifth second on, short ones from the first.

    arrays: `KIND.K` looks.
    """
    unit = Unit()
    for k, walk in enumerate(place.walks):
        small, moved = shrink(walk.clip.frames), moved_seconds(walk.poses)
        for name, change in RUINS.items():
            video = small.copy()
            late = slice(5 * FPS if len(video) > 10 * FPS else 1, None)
            video[late] = change(small, late)
            unit.arrays[f"{name}.{k}"] = looks(video[1:], small[0], moved)
    return unit


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


def _first(place: Place, count: int) -> list[Walk]:
    """So many starts: the walks', then later frames of them, so that none is taken twice."""
    result = list(place.walks[:count])
    step = 4 * FPS
    for later in range(step, place.num_frames - FPS, step):
        for walk in place.walks:
            if len(result) == count:
                return result
            clip = walk.clip
            assert clip.poses is not None
            rest = type(clip)(clip.frames[later:], clip.actions[later:], clip.fps, clip.poses[later:])
            result.append(Walk(f"{walk.label} +{later // FPS} s", rest))
    return result


def judged_actions(unit: Unit) -> tuple[list[obedience.Rows], list[obedience.Rows]]:
    """Reads the judge's actions and the requested ones, walk by walk; empty without a judge."""
    count = sum(name.startswith("asked.") for name in unit.arrays)
    return [unit.arrays[f"said.{k}"] for k in range(count)], [unit.arrays[f"asked.{k}"] for k in range(count)]
