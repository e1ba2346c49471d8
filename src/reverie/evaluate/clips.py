"""Rollouts under recorded actions, side by side with the real clip: what every row of a start gets measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie.evaluate import consistency, idm_scorer, metrics, sheets
from reverie.evaluate.action_mapping import Rows, columns_of
from reverie.evaluate.collapse import Looks, looks
from reverie.evaluate.controllability import controllability
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.held_actions import delay, freeze
from reverie.evaluate.idm_scorer import INSIDE, IDMScorer
from reverie.evaluate.perceptual import LPIPS
from reverie.evaluate.plan import LIKENESS_S, Game
from reverie.evaluate.rollout import Start, Tick
from reverie.evaluate.store import Record
from reverie.evaluate.tables import COPY, DREAM, REAL, REBUILT, SHUFFLED, STATIC, Metrics
from reverie.models.idm import Views, look
from reverie.types import FPS, Action, Frames

SMOOTH_FRAMES = slice(25, 46)
SHOWN_S = (0.2, 1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class RowResult(Record):
    """Measures of one video.  actions, features: of each step (f - 1, ...), by the inverse-dynamics model."""

    metrics: Metrics
    actions: Rows | None = None
    features: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class ClipResult(Record):
    """One start.  asked: its recorded actions.  rebuilt: signs by second of the tokenizer's reconstruction."""

    rows: dict[str, RowResult]
    asked: Rows | None = None
    rebuilt: Looks | None = None


def compare(
    experiment: Experiment,
    game: Game,
    start: Start,
    other: Sequence[Action],
    k: int,
    section: str,
    has_video: bool,
    tick: Tick,
) -> ClipResult:
    """Measures the rollout of start k under its recorded actions and under `other`, the real clip, and the controls.

    Writes a strip of the real clip and of the rollout, and a video of the rollout.
    """
    real, recorded = start.clip.frames, start.clip.actions[:-1]
    actions = game.mapping.map_rows(recorded)
    videos: dict[str, Frames] = {
        DREAM: experiment.roll(start.image, actions, k, tick),
        SHUFFLED: experiment.roll(start.image, other, k, tick),
        REAL: real,
        STATIC: freeze(real),
        COPY: delay(real),
    }
    if experiment.model.tokenizer is not None:
        videos[REBUILT] = experiment.model.rebuild(real)
    for name, row in (("real", REAL), ("dream", DREAM)):
        sheets.save_strip(videos[row], SHOWN_S, experiment.strip(f"{section}-{k}-{name}"))
    if has_video:
        sheets.save_video(videos[DREAM], actions, game.mapping.model, experiment.clip(f"{section}-{k}"))
    measured = {row: _measure(video, real, experiment.lpips) for row, video in videos.items()}
    signs = looks(videos[REBUILT][1:], videos[REBUILT][0]) if REBUILT in videos else None
    if game.scorer is None:
        return ClipResult({row: RowResult(found) for row, found in measured.items()}, rebuilt=signs)
    asked = columns_of(recorded, game.mapping.data, game.scorer.space)
    views = _look_at(videos)
    rows = {row: _score(game.scorer, video, real, views[row], asked, measured[row]) for row, video in videos.items()}
    return ClipResult(rows, asked, signs)


def _measure(video: Frames, real: Frames, lpips: LPIPS | None) -> Metrics:
    """PSNR, SSIM and LPIPS over the 4 frames that end at each of LIKENESS_S, and the video's own texture."""
    row: Metrics = {}
    for s, at in _moments(real):
        row[f"psnr_db_{s}s"] = float(metrics.psnr_db(video[at], real[at]).mean())
        row[f"ssim_{s}s"] = float(metrics.ssim(video[at], real[at]).mean())
        if lpips is not None:
            row[f"lpips_{s}s"] = lpips.distance(video[at], real[at])
    row["smoothness"] = consistency.motion_smoothness(video[SMOOTH_FRAMES])
    row["sharpness"] = float(metrics.sharpness(video[1::5]).mean())
    row["frame_change"] = float(metrics.frame_change(video[:26]).mean())
    return row


def _score(scorer: IDMScorer, video: Frames, real: Frames, views: Views, asked: Rows, measured: Metrics) -> RowResult:
    """Adds an inverse-dynamics model's figures: its actions against those asked, and distances of its features."""
    row = dict(measured)
    row["temporal"] = consistency.temporal_consistency(idm_scorer.image_maps(scorer.model, video[SMOOTH_FRAMES]))
    for s, at in _moments(real):
        row[f"picture_{s}s"] = float(idm_scorer.image_distance(scorer.model, video[at], real[at]).mean())
    actions = scorer.name_actions(video, views)
    row |= controllability([actions[INSIDE]], [asked[INSIDE]], scorer.space)
    return RowResult(row, actions, idm_scorer.play_features(scorer.model, video, views))


def _moments(real: Frames) -> list[tuple[int, slice]]:
    """Each of LIKENESS_S that the clip reaches, and the 4 frames that end there."""
    return [(s, slice(s * FPS - 3, s * FPS + 1)) for s in LIKENESS_S if len(real) > s * FPS]


def _look_at(videos: Mapping[str, Frames]) -> dict[str, Views]:
    """The inverse-dynamics model's inputs for each video; those of the controls are made of others'."""
    seen = {row: look(video) for row, video in videos.items() if row not in (STATIC, COPY)}
    still, real, steps = look(videos[STATIC][:2]), seen[REAL], len(videos[REAL]) - 1
    seen[STATIC] = Views(still.flow.repeat(steps, 0), still.pictures[:1].repeat(steps + 1, 0))
    flow = np.concatenate([still.flow, real.flow[:-1]])
    seen[COPY] = Views(flow, np.concatenate([real.pictures[:1], real.pictures[:-1]]))
    return seen
