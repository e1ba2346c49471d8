"""Short rollouts under made-up actions: held ones, there and back, once round, and those of a published suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reverie.evaluate import consistency, measure, sheets
from reverie.evaluate.clips import EDGE_STEPS
from reverie.evaluate.fit import Rows, columns_of
from reverie.evaluate.measure import real_windows
from reverie.evaluate.plan import HELD_FRAMES, THERE_FRAMES, Game, Judge
from reverie.evaluate.rollout import Start, roll
from reverie.evaluate.scripts import PAIRS
from reverie.evaluate.store import Unit
from reverie.evaluate.subject import Subject
from reverie.evaluate.tables import COPY, DREAM, REAL, REBUILT, SHUFFLED, STATIC
from reverie.types import FPS, Action, Clip, Frames

Tick = Callable[[], None]


def hold(
    subject: Subject,
    game: Game,
    start: Start,
    pairs: Sequence[str],
    seed: int,
    picture_file: Path,
    tick: Tick,
) -> Unit:
    """Every action of `pairs` held for a clip.  facts: `rates`, by row a list of (pair, side, rate)."""
    rates: dict[str, list[tuple[str, int, float]]] = {row: [] for row in (DREAM, REAL, REBUILT, STATIC, COPY)}
    fov_deg = game.fov_deg
    shown = [start.picture]
    captions = [f"start, {start.label}"]
    for pair in pairs:
        for side, held in enumerate(PAIRS[pair]):
            video = roll(subject.dreamer, start.picture, [game.fit.say(held.action)] * HELD_FRAMES, seed, tick)
            rates[DREAM].append((pair, side, measure.rate_of(pair, video, fov_deg)))
            rates[STATIC].append((pair, side, measure.rate_of(pair, video[[0] * 3], fov_deg)))
            shown.append(video[HELD_FRAMES // 2])
            captions.append(f"{held.label} {HELD_FRAMES / 2 / FPS:.1f} s")
    real, space = start.clip, game.fit.data
    others = {REAL: real.frames, COPY: measure.delayed(real.frames)}
    rebuilt = subject.rebuild(real.frames)
    if rebuilt is not None:
        others[REBUILT] = rebuilt
    for row, frames in others.items():
        for pair, side, window in real_windows(Clip(frames, real.actions, poses=real.poses), space):
            rates[row].append((pair, side, measure.rate_of(pair, window, fov_deg)))
    sheets.save_jpeg(np.concatenate(shown, axis=1), picture_file)
    return Unit({"rates": rates, "captions": captions})


def held_rows(units: Sequence[Unit], fov_deg: float) -> dict[str, dict[str, float]]:
    """The table's rows from the units of all starts."""
    rows: dict[str, dict[str, float]] = {}
    for name in (DREAM, REAL, REBUILT, STATIC, COPY):
        collected = measure.Obedience(fov_deg)
        for unit in units:
            for pair, side, rate in unit.facts["rates"][name]:
                collected.add_rate(pair, side, rate)
        figures = collected.figures(paired=name in (DREAM, STATIC))
        if figures["clips"]:
            rows[name] = figures
    swapped = measure.Obedience(fov_deg)
    for k, unit in enumerate(units):
        for pair, side, rate in unit.facts["rates"][DREAM]:
            swapped.add_rate(pair, side ^ (k % 2), rate)
    if len(units) > 1:
        rows[SHUFFLED] = swapped.figures(paired=False)
    return rows


def walk_back(subject: Subject, game: Game, start: Start, seed: int, tick: Tick) -> Unit:
    """There and back, and once round where there is a mouse.  facts: figures by row."""
    there = game.fit.actions(start.clip.actions[:THERE_FRAMES])
    path = consistency.there_and_back(there)
    back = roll(subject.dreamer, start.picture, [game.fit.model.restrict(a) for a in path], seed, tick)
    still = measure.static(back)
    rows = {row: {"scenario": consistency.scenario_consistency(v)} for row, v in ((DREAM, back), (STATIC, still))}
    turn = consistency.full_turn(game.fit.common)
    if turn:
        video = roll(subject.dreamer, start.picture, [game.fit.say(action) for action in turn], seed, tick)
        rows[DREAM]["loop_db"] = consistency.loop_closure_db(video)
        rows[STATIC]["loop_db"] = consistency.loop_closure_db(measure.static(video))
    return Unit({"rows": rows})


def act_suite(
    subject: Subject,
    game: Game,
    judge: Judge,
    start: Start,
    actions: Sequence[Action],
    seed: int,
    clip_file: Path | None,
    tick: Tick,
) -> Unit:
    """One action of a suite from one start.  arrays: `asked`, and `said` of the rollout and of the static video."""
    said = [game.fit.say(action) for action in actions]
    video = roll(subject.dreamer, start.picture, said, seed, tick)
    unit = Unit({"label": start.label})
    inside = slice(EDGE_STEPS, -EDGE_STEPS)
    unit.arrays["asked"] = _rows(subject, judge, actions)[inside]
    for row, frames in ((DREAM, video), (STATIC, measure.static(video))):
        unit.arrays[f"said.{row}"] = _said(judge, frames)[inside]
    if clip_file is not None:
        sheets.save_video(video, actions, subject.dreamer.action_space, clip_file)
    return unit


def _rows(subject: Subject, judge: Judge, actions: Sequence[Action]) -> Rows:
    space = subject.dreamer.action_space
    return columns_of(space.encode(actions), space, judge.space)


def _said(judge: Judge, frames: Frames) -> Rows:
    return columns_of(judge.model.label(frames), judge.model.config.action_space, judge.space)
