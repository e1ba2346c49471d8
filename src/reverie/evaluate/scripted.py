"""Short rollouts under made-up actions: held ones, there and back, once round, and those of a published suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reverie.evaluate import consistency, sheets
from reverie.evaluate.action_mapping import Rows, columns_of
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.held_actions import PAIRS, Rate, delay, freeze, held_metrics, motion_rate, real_windows
from reverie.evaluate.idm_scorer import INSIDE, IDMScorer
from reverie.evaluate.plan import HELD_FRAMES, THERE_FRAMES, Game
from reverie.evaluate.rollout import Tick
from reverie.evaluate.store import Record
from reverie.evaluate.tables import COPY, DREAM, REAL, REBUILT, SHUFFLED, STATIC, Metrics
from reverie.types import Action, Clip


@dataclass(frozen=True, slots=True)
class HeldResult(Record):
    """Held actions from one start.  rates: by row."""

    rates: dict[str, list[Rate]]


@dataclass(frozen=True, slots=True)
class ReturnResult(Record):
    """There and back, and once round, from one start."""

    rows: dict[str, Metrics]


@dataclass(frozen=True, slots=True)
class SuiteResult(Record):
    """One action of a suite.  asked, and the actions named from the rollout and from a static video, (f, a)."""

    asked: Rows
    dream: Rows
    static: Rows


def hold(experiment: Experiment, game: Game, pairs: Sequence[str], k: int, tick: Tick) -> HeldResult:
    """Holds every action of `pairs` from start k, and writes a strip of where each leads to."""
    start, fov_deg = game.starts[k], game.fov_deg
    rates: dict[str, list[Rate]] = {DREAM: [], STATIC: []}
    shown = [start.image]
    for pair in pairs:
        for side, held in enumerate(PAIRS[pair]):
            video = experiment.roll(start.image, [game.mapping.map_action(held.action)] * HELD_FRAMES, k, tick)
            rates[DREAM].append(Rate(pair, side, motion_rate(pair, video, fov_deg)))
            rates[STATIC].append(Rate(pair, side, motion_rate(pair, video[[0] * 3], fov_deg)))
            shown.append(video[HELD_FRAMES // 2])
    sheets.save_frames(shown, experiment.strip(f"held-{k}"))
    real = start.clip.frames
    videos = {REAL: real, COPY: delay(real)}
    if experiment.model.tokenizer is not None:
        videos[REBUILT] = experiment.model.rebuild(real)
    for row, frames in videos.items():
        windows = real_windows(Clip(frames, start.clip.actions, poses=start.clip.poses), game.mapping.data)
        rates[row] = [Rate(pair, side, motion_rate(pair, window, fov_deg)) for pair, side, window in windows]
    return HeldResult(rates)


def held_rows(results: Sequence[HeldResult]) -> dict[str, Metrics]:
    """The table's rows from the results of all starts."""
    rows = {}
    for name in (DREAM, REAL, REBUILT, STATIC, COPY):
        rates = [rate for result in results for rate in result.rates.get(name, [])]
        if rates:
            rows[name] = held_metrics(rates, paired=name in (DREAM, STATIC))
    if len(results) > 1:
        swapped = (Rate(r.pair, r.side ^ (k % 2), r.rate) for k, one in enumerate(results) for r in one.rates[DREAM])
        rows[SHUFFLED] = held_metrics(swapped, paired=False)
    return rows


def walk_back(experiment: Experiment, game: Game, k: int, tick: Tick) -> ReturnResult:
    """Walks there and back, and once round where there is a mouse."""
    start, mapping = game.starts[k % len(game.starts)], game.mapping
    path = consistency.there_and_back(mapping.map_rows(start.clip.actions[:THERE_FRAMES]))
    video = experiment.roll(start.image, [mapping.model.restrict(action) for action in path], k, tick)
    videos = {DREAM: video, STATIC: freeze(video)}
    rows = {row: {"scenario": consistency.scenario_consistency(frames)} for row, frames in videos.items()}
    turn = consistency.full_turn(mapping.common)
    if turn:
        video = experiment.roll(start.image, [mapping.map_action(action) for action in turn], k, tick)
        for row, frames in {DREAM: video, STATIC: freeze(video)}.items():
            rows[row]["loop_db"] = consistency.loop_closure_db(frames)
    return ReturnResult(rows)


def act_suite(
    experiment: Experiment, game: Game, scorer: IDMScorer, actions: Sequence[Action], k: int, piece: str, tick: Tick
) -> SuiteResult:
    """Plays one action of a suite from start k.  piece: name of the video, if one is written."""
    start, space = game.starts[k % len(game.starts)], experiment.model.dreamer.action_space
    video = experiment.roll(start.image, [game.mapping.map_action(action) for action in actions], k, tick)
    if piece:
        sheets.save_video(video, actions, space, experiment.clip(piece))
    asked = columns_of(space.encode(actions), space, scorer.space)
    return SuiteResult(asked[INSIDE], scorer.name_actions(video)[INSIDE], scorer.name_actions(freeze(video))[INSIDE])
