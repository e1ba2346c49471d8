"""The evaluation of one model in one scene: every piece in order, and the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from reverie.evaluate import speed
from reverie.evaluate.collapse import detectors_of, look
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.long_play import SignsResult
from reverie.evaluate.report import GameReport, note_without_idm
from reverie.evaluate.rollout import Tick
from reverie.evaluate.scenes import tables, units
from reverie.evaluate.scenes.batch import shrink
from reverie.evaluate.scenes.streamed import MORE_STEPS, streaming_differences
from reverie.evaluate.scenes.units import GAME, IMAGE, LED, MEMORY, OWN, REBUILT, ROWS, SceneExperiment
from reverie.evaluate.scenes.walks import IDLE_FRAMES, TURN_FRAMES, Place, SceneSize
from reverie.evaluate.store import R, Record
from reverie.evaluate.tables import Metrics
from reverie.types import FPS

OWN_CAMERA = (MEMORY, OWN, IMAGE)


@dataclass(frozen=True, slots=True)
class StreamedResult(Record):
    """Largest differences between streams and whole clips, by row."""

    differences: dict[str, Metrics]


def evaluate_scene(experiment: Experiment, place: Place, size: SceneSize, bench: Path | None) -> GameReport:
    """Measures one model in one scene."""
    scene = SceneExperiment(experiment, place, size)

    def each(
        section: str, rows: Sequence[str], kind: type[R], make: Callable[[str, Tick], R], num_frames: int = 1
    ) -> dict[str, R]:
        return {row: experiment.get(f"{section}-{ROWS[row]}", kind, partial(make, row), num_frames) for row in rows}

    every = (GAME, REBUILT, MEMORY, LED, OWN, IMAGE)
    walks = each("walk", every, units.WalkResult, scene.walk, place.num_frames)
    turning = OWN_CAMERA if place.mapping.common.mouse else ()
    if not turning:
        place.notes.append("The game has no mouse: nobody turns away, and no half turns are seen.")
    turns = each("turn", turning, units.TurnResult, scene.turn_back, 2 * (IDLE_FRAMES + TURN_FRAMES))
    views = each("views", turning, units.RealViews, lambda row, tick: units.real_views(place, turns[row].poses))
    ways = each("way", OWN_CAMERA, units.WayResult, scene.out_and_back, 2 * size.out_s * FPS)
    plays = each("long", OWN_CAMERA, SignsResult, scene.play_long, size.play_s * FPS)
    runs = {row: found.clips for row, found in plays.items()}
    real = experiment.get("real", SignsResult, lambda tick: units.real_signs(place)).clips
    keyframes = np.stack([look(shrink(one[None])) for one in place.scene.scene.colour])
    detectors = detectors_of(real, list(walks[REBUILT].signs), place.notes, keyframes)
    ruined = experiment.get("ruined", units.RuinedResult, lambda tick: units.ruined_signs(place))
    streamed = experiment.get("streamed", StreamedResult, lambda tick: measure_streams(experiment, place))
    actions = place.mapping.map_rows(place.walks[0].clip.actions)
    engine = experiment.model.engine
    found = {
        "scene": tables.likeness(walks),
        "scene_returns": tables.returns(turns, ways, views, size, place.scorer is not None),
        "scene_play": tables.plays(runs, real, detectors, size.play_s),
        "scene_detector": tables.detector(ruined.clips, detectors),
        "scene_actions": tables.actions(walks, place.scorer),
        "scene_streamed": tables.streamed(streamed.differences, str(engine.dtype).removeprefix("torch.")),
        "speed": speed.measure(experiment, lambda: engine.open(scene=place.scene.scene), actions, size.speed_s, bench),
    }
    no_idm = note_without_idm("obedience to recorded actions and picture features")
    return GameReport(
        {name: table for name, table in found.items() if table is not None and table.rows},
        tables.curves(walks),
        {"scene": tables.per_start(walks[OWN]), "image": tables.per_start(walks[IMAGE])},
        place.notes if place.scorer is not None else [*place.notes, no_idm],
    )


def measure_streams(experiment: Experiment, place: Place) -> StreamedResult:
    """Compares streams with whole clips, from one image and in the scene."""
    engine, walk = experiment.model.engine, place.walks[0]
    num_frames = 4 * (engine.bundle.config.world.window + MORE_STEPS)
    actions = place.play_actions(0, num_frames)
    times = -(-(num_frames + 1) // len(walk.clip.frames))
    frames = np.concatenate([walk.clip.frames] * times)[: num_frames + 1]
    whole = {IMAGE: streaming_differences(engine, frames, actions)}
    whole[OWN] = streaming_differences(engine, frames, actions, place.scene, walk.poses[0])
    return StreamedResult(whole)
