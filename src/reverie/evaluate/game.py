"""The evaluation of one model on one game: every piece in order, and the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reverie.evaluate import clips, long_play, scripted, speed, summary
from reverie.evaluate.clips import ClipResult
from reverie.evaluate.collapse import Detector, Looks, detectors_of, looks
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.held_actions import delay, held_table, pair_names
from reverie.evaluate.idm_scorer import play_features
from reverie.evaluate.long_play import LongResult, ReferenceResult, SignsResult
from reverie.evaluate.plan import HELD_FRAMES, SHORT_S, THERE_FRAMES, TURN_FRAMES, Game, Size
from reverie.evaluate.report import GameReport, note_without_idm
from reverie.evaluate.rollout import Start, Tick, repeat_actions
from reverie.evaluate.scripted import HeldResult, ReturnResult, SuiteResult
from reverie.evaluate.suites import Suite
from reverie.evaluate.tables import COPY, DREAM, REAL, REBUILT, STATIC, Table
from reverie.types import FPS, Action, Frames

POOLED_STRIDE = 4
PLAY_CLIPS = 24
"""Real clips whose play is looked at for the Fréchet distance: flow takes time."""
REBUILT_CLIPS = 24
"""Real clips of 4 s as a reference for the game's looks through the model's tokenizer."""


def evaluate_game(
    experiment: Experiment, game: Game, size: Size, suite: Suite | None, bench: Path | None
) -> GameReport:
    """Measures one model on one game."""
    reference = experiment.get("bank", ReferenceResult, lambda tick: watch_reference(game))
    short = compare_starts(experiment, game, game.starts, "short", size.clips)
    longer = compare_starts(experiment, game, game.long_starts, "16s", 0)
    pairs = pair_names(game.mapping.common)
    held = experiment.each(
        "held",
        min(size.held, len(game.starts)) if pairs else 0,
        HeldResult,
        lambda k, tick: scripted.hold(experiment, game, pairs, k, tick),
        HELD_FRAMES * 2 * len(pairs),
    )
    runs = play_runs(experiment, game, size)
    detectors = fit_detectors(experiment, game, reference, short, runs.get(REBUILT, []))
    returns = experiment.each(
        "return",
        size.returns,
        ReturnResult,
        lambda k, tick: scripted.walk_back(experiment, game, k, tick),
        2 * THERE_FRAMES + TURN_FRAMES,
    )
    tables = {
        "obedience": summary.obedience(short, game.scorer),
        "true_actions": summary.true_actions(short),
        "held": held_table(scripted.held_rows(held)),
        "likeness": summary.likeness(short, longer, reference, game.scorer),
        "drift": summary.drift(runs, reference, detectors),
        "consistency": summary.consistency(short, returns),
        "tokenizer": summary.tokenizer(short),
        **act_suite(experiment, game, suite, size.clips),
        "speed": measure_speed(experiment, game, size, bench),
    }
    no_idm = (
        "obedience to recorded actions, picture distance, Fréchet distance of play, feature distance and temporal "
        "consistency"
    )
    return GameReport(
        {name: table for name, table in tables.items() if table is not None and table.rows},
        long_play.drift_curves(runs, reference, detectors),
        summary.per_start(short, longer, returns, runs.get(DREAM, []), detectors),
        game.notes if game.scorer is not None else [*game.notes, note_without_idm(no_idm)],
    )


def watch_reference(game: Game) -> ReferenceResult:
    """Measures the reference clips, and the scorer's features of them."""
    signs = np.concatenate([looks(clip[1:], clip[0]) for clip in game.reference])
    if game.scorer is None:
        return ReferenceResult(signs)
    pooled = np.concatenate([game.scorer.pool_features(clip[::POOLED_STRIDE]) for clip in game.reference])
    play = np.stack([play_features(game.scorer.model, clip) for clip in game.reference[:PLAY_CLIPS]])
    return ReferenceResult(signs, pooled, play)


def compare_starts(
    experiment: Experiment, game: Game, starts: Sequence[Start], section: str, num_videos: int
) -> list[ClipResult]:
    """Rolls out each start under its own actions, and under those of the next."""
    actions = [game.mapping.map_rows(start.clip.actions[:-1]) for start in starts]
    others = actions[1:] + actions[:1]
    if len(starts) == 1:  # there is no other start: actions of another clip, over and over
        source = (game.starts if starts[0] is not game.starts[-1] else game.plays)[-1]
        others = [repeat_actions(game.mapping.map_rows(source.clip.actions[:-1]), len(actions[0]))]
    num_frames = 2 * len(others[0]) if others else 0

    def make(k: int, tick: Tick) -> ClipResult:
        has_video = experiment.videos and k < num_videos
        return clips.compare(experiment, game, starts[k], others[k], k, section, has_video, tick)

    return experiment.each(section, len(starts), ClipResult, make, num_frames)


def play_runs(experiment: Experiment, game: Game, size: Size) -> dict[str, list[LongResult]]:
    """Long plays by row of the drift table: the model's, the real recording's, and the controls'."""

    def play(kind: str, count: int, seconds: int) -> list[LongResult]:
        def make(k: int, tick: Tick) -> LongResult:
            actions = [Action()] * (seconds * FPS) if kind == "idle" else game.play_actions(k, seconds * FPS)
            start, has_video = game.plays[k % len(game.plays)], experiment.videos and kind != "endurance" and not k
            return long_play.play_long(experiment, start, actions, game.scorer, k, kind, has_video, tick)

        return experiment.each(kind, count, LongResult, make, seconds * FPS)

    def watch(kind: str, watch_start: Callable[[Start], LongResult]) -> list[LongResult]:
        return experiment.each(kind, len(game.plays), LongResult, lambda k, tick: watch_start(game.plays[k]))

    def watch_changed(kind: str, change: Callable[[Frames], Frames]) -> list[LongResult]:
        return watch(kind, lambda start: long_play.watch_video(change(start.clip.frames), game.scorer))

    longest_s = max(size.play_s, size.endurance_s * bool(size.endurances))
    runs = {
        DREAM: play("play", size.plays, size.play_s) + play("endurance", size.endurances, size.endurance_s),
        summary.IDLE: play("idle", size.idles, size.idle_s),
        REAL: watch_changed("real", lambda frames: frames),
        REBUILT: [] if experiment.model.tokenizer is None else watch_changed("rebuilt", experiment.model.rebuild),
        COPY: watch_changed("copy", delay),
        STATIC: watch("static", lambda start: long_play.watch_still(start.image, game.scorer, longest_s)),
    }
    return {row: results for row, results in runs.items() if results}


def fit_detectors(
    experiment: Experiment,
    game: Game,
    reference: ReferenceResult,
    short: Sequence[ClipResult],
    rebuilt: Sequence[LongResult],
) -> list[Detector]:
    """Detectors of collapse: of the real game, and of the game through the model's tokenizer."""

    def rebuild(tick: Tick) -> SignsResult:
        videos = map(experiment.model.rebuild, game.reference[:REBUILT_CLIPS])
        return SignsResult([looks(video[1:], video[0]) for video in videos])

    through: list[Looks] = []
    if experiment.model.tokenizer is not None:
        through += experiment.get("bank-rebuilt", SignsResult, rebuild).clips
    through += [result.rebuilt for result in short if result.rebuilt is not None]
    through += [clip for result in rebuilt for clip in _split_clips(result.signs)]
    return detectors_of(_split_clips(reference.signs), through, game.notes)


def _split_clips(signs: Looks) -> list[Looks]:
    """Signs of clips of SHORT_S seconds one after another, clip by clip; what is left is a clip too."""
    return [signs[i : i + SHORT_S] for i in range(0, len(signs), SHORT_S)]


def act_suite(experiment: Experiment, game: Game, suite: Suite | None, num_videos: int) -> dict[str, Table]:
    """Plays a published suite's actions; its table by name."""
    scorer = game.scorer
    if suite is None or scorer is None:
        return {}
    actions = list(suite.sayable(game.mapping.common).values())
    seeded = replace(experiment, seed=suite.seed)

    def make(k: int, tick: Tick) -> SuiteResult:
        piece = f"{suite.name}-{k}" if experiment.videos and k < num_videos else ""
        return scripted.act_suite(seeded, game, scorer, actions[k], k, piece, tick)

    results = experiment.each(suite.name, len(actions), SuiteResult, make, len(actions[0]) if actions else 0)
    return {f"suite_{suite.name}": summary.suite(suite, results, scorer)}


def measure_speed(experiment: Experiment, game: Game, size: Size, bench: Path | None) -> Table:
    """Measures the model's speed from the first start, or reads it."""
    start, dreamer = game.starts[0], experiment.model.dreamer
    actions = game.mapping.map_rows(start.clip.actions)
    return speed.measure(experiment, lambda: dreamer.open(start.image, seed=0), actions, size.speed_s, bench)
