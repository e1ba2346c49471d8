"""Rollouts under recorded actions, side by side with the real clip: what every row of a start gets measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.evaluate import consistency, features, metrics, obedience, sheets
from reverie.evaluate.collapse import looks
from reverie.evaluate.fit import columns_of
from reverie.evaluate.measure import delayed, static
from reverie.evaluate.plan import LIKENESS_S, Game, Judge
from reverie.evaluate.rollout import Start, roll
from reverie.evaluate.store import Unit
from reverie.evaluate.subject import Subject
from reverie.evaluate.tables import COPY, DREAM, REAL, REBUILT, SHUFFLED, STATIC
from reverie.models.idm import Views, look
from reverie.types import FPS, Action, Frames

EDGE_STEPS = 8
"""Steps at either end that the inverse-dynamics model is not asked about: there its context is cut."""

SMOOTH_FRAMES = slice(25, 46)
SHOWN_S = (0.2, 1, 2, 4, 8, 16)


def compare(
    subject: Subject,
    game: Game,
    start: Start,
    other: Sequence[Action],
    seed: int,
    picture_file: Path,
    clip_file: Path | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Unit:
    """One start: the rollout under its recorded actions and under `other`, the real clip, and the controls.

    facts: figures by row.  arrays: `asked`, and with a judge `said.ROW` and `features.ROW` (steps, width);
    `looks.rebuilt` by second.  Writes a strip of the real clip and of the rollout (picture_file with -real, -dream),
    and a video of the rollout.
    """
    num_frames = len(start.clip.frames) - 1
    real = start.clip.frames
    actions = game.fit.actions(start.clip.actions[:num_frames])
    videos: dict[str, Frames] = {
        DREAM: roll(subject.dreamer, start.picture, actions, seed, tick),
        SHUFFLED: roll(subject.dreamer, start.picture, other, seed, tick),
        REAL: real,
        STATIC: static(real),
        COPY: delayed(real),
    }
    rebuilt = subject.rebuild(real)
    if rebuilt is not None:
        videos[REBUILT] = rebuilt
    unit = Unit({"label": start.label, "rows": {row: _likeness(video, real) for row, video in videos.items()}})
    if rebuilt is not None:
        unit.arrays["looks.rebuilt"] = looks(rebuilt[1:], rebuilt[0])
    for row, video in videos.items():
        unit.facts["rows"][row].update(_texture(video))
    if game.judge is not None:
        asked = columns_of(start.clip.actions[:num_frames], game.fit.data, game.judge.space)
        unit.arrays["asked"] = asked
        _judge(unit, game.judge, videos)
    sheets.save_strip(real, SHOWN_S, picture_file.with_stem(picture_file.stem + "-real"))
    sheets.save_strip(videos[DREAM], SHOWN_S, picture_file.with_stem(picture_file.stem + "-dream"))
    if clip_file is not None:
        sheets.save_video(videos[DREAM], actions, game.fit.model, clip_file)
    return unit


def _likeness(video: Frames, real: Frames) -> dict[str, float]:
    """PSNR and SSIM over the 4 frames that end at each of LIKENESS_S."""
    row: dict[str, float] = {}
    for s in LIKENESS_S:
        if len(real) > s * FPS:
            at = slice(s * FPS - 3, s * FPS + 1)
            row[f"psnr_db_{s}s"] = float(metrics.psnr_db(video[at], real[at]).mean())
            row[f"ssim_{s}s"] = float(metrics.ssim(video[at], real[at]).mean())
    return row


def _texture(video: Frames) -> dict[str, float]:
    return {
        "smoothness": consistency.motion_smoothness(video[SMOOTH_FRAMES]),
        "sharpness": float(metrics.sharpness(video[1::5]).mean()),
        "frame_change": float(metrics.frame_change(video[:26]).mean()),
    }


def _judge(unit: Unit, judge: Judge, videos: dict[str, Frames]) -> None:
    """Stores the inverse-dynamics model's actions for every video, and the distances of its features."""
    seen = {row: look(video) for row, video in videos.items() if row not in (STATIC, COPY)}
    still = look(videos[STATIC][:2])
    steps = len(videos[REAL]) - 1
    seen[STATIC] = Views(still.flow.repeat(steps, 0), still.pictures[:1].repeat(steps + 1, 0))
    real = seen[REAL]
    seen[COPY] = Views(
        np.concatenate([still.flow, real.flow[:-1]]), np.concatenate([real.pictures[:1], real.pictures[:-1]])
    )
    for row, video in videos.items():
        figures: dict[str, Any] = unit.facts["rows"][row]
        said = judge.model.label(video, seen[row])
        unit.arrays[f"said.{row}"] = columns_of(said, judge.model.config.action_space, judge.space)
        unit.arrays[f"features.{row}"] = features.play_features(judge.model, video, seen[row]).astype(np.float32)
        maps = features.picture_maps(judge.model, video[SMOOTH_FRAMES])
        figures["temporal"] = consistency.temporal_consistency(maps)
        for s in LIKENESS_S:
            if steps >= s * FPS:
                at = slice(s * FPS - 3, s * FPS + 1)
                distance = features.picture_distance(judge.model, video[at], videos[REAL][at])
                figures[f"picture_{s}s"] = float(distance.mean())
        inside = slice(EDGE_STEPS, -EDGE_STEPS)
        named = unit.arrays[f"said.{row}"][inside]
        figures.update(obedience.obedience_figures([named], [unit.arrays["asked"][inside]], judge.space))
