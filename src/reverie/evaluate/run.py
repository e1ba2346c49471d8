"""One model on all its games: opens everything, measures, writes the report."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from reverie.data.dataset import Dataset
from reverie.engine.loading.scenes import LoadedScene
from reverie.engine.runtime import hash_files
from reverie.errors import DataError
from reverie.evaluate.action_mapping import ActionMapping, check_frames, match_actions, match_idm, shared_space
from reverie.evaluate.config import EvaluationConfig
from reverie.evaluate.display import Display, Silent
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.game import evaluate_game
from reverie.evaluate.idm_scorer import IDMScorer
from reverie.evaluate.model_under_test import ModelUnderTest, open_model
from reverie.evaluate.page import write_page
from reverie.evaluate.perceptual import LPIPS, open_lpips
from reverie.evaluate.plan import Game, Size, game_names, pick_game, size_of
from reverie.evaluate.report import GameReport, Report, ScorerNote
from reverie.evaluate.scenes.evaluation import evaluate_scene
from reverie.evaluate.scenes.walks import Place, SceneSize, pick_place
from reverie.evaluate.sheets import stack_strips
from reverie.evaluate.store import VERSION, Store, make_folder
from reverie.evaluate.suites import Suite, load_suite
from reverie.models.checkpoint import write_json_atomic
from reverie.models.idm import WEIGHTS, InverseDynamics, load_idm
from reverie.paths import own_files
from reverie.vision.projection import turn_scale

NUM_SHEET_ROWS = 8
SHEETS = {
    "compared": ("short-*-real", "short-*-dream"),
    "compared-16s": ("16s-*-real", "16s-*-dream"),
    "held": ("held-*",),
    "play": ("play-*", "endurance-*"),
    "idle": ("idle-*",),
}
"""Strips on each sheet: what was compared, in pairs, held, played and idled."""


def run(config: EvaluationConfig, size: Size | SceneSize | None = None, display: Display | None = None) -> Report:
    """Evaluate config.model into config.folder.  size: other numbers than the config's."""
    began, display = time.monotonic(), display or Silent()
    if size is None:
        size_for = SceneSize.of if config.scene else size_of
        size = size_for(config.quick, config.starts, config.long_s)
    suite = load_suite(config.suite) if config.suite else None
    if suite is not None and not config.idm:
        raise DataError(f"the suite {suite.name} is judged by an inverse-dynamics model: say --idm DIR too")
    datasets = [Dataset(path) for path in config.data]
    idms = [(path, *load_idm(path)) for path in config.idm]
    folder = make_folder(config.folder)
    with display.status(f"loading {config.model}"):
        model = open_model(config.model, config.device, config.dtype)
    scenes = [model.engine.load_scene(scene) for scene in config.scene]
    mappings = [_map_actions(model, dataset) for dataset in datasets]
    settings = {**asdict(size), "seed": config.seed, "fov_deg": config.fov_deg, "suite": config.suite or ""}
    lpips = None if config.scene else open_lpips()
    stamp = _stamp(config, model, settings, datasets, scenes) | ({"lpips": lpips.fingerprint} if lpips else {})
    store = Store(folder, stamp)
    done = len(own_files(store.folder.glob("*.npz")))
    if done:
        display.line(f"{folder} holds {done} finished pieces of this evaluation: going on from there")
    games: list[Game | Place] = []
    for index, (name, dataset, mapping) in enumerate(zip(game_names(config.data), datasets, mappings, strict=True)):
        scorer = _pick_scorer(idms, mapping, index, len(datasets))
        with display.status(f"reading {dataset.path}"):
            if isinstance(size, SceneSize):
                place = (scenes[index], model.engine, mapping, scorer, size, config.seed)
                games.append(pick_place(name, dataset, *place, any_split=config.any_split))
            else:
                options = {"fov_deg": dataset.fov_deg or config.fov_deg, "any_split": config.any_split}
                games.append(pick_game(name, dataset.path, dataset, mapping, scorer, size, config.seed, **options))
    if suite is not None and not any(game.scorer for game in games):
        raise DataError(
            f"no --idm is of a recorded game, so the suite {suite.name} has no judge; train one of the game"
        )
    reports = {game.name: _evaluate(config, model, game, size, store, suite, display, lpips) for game in games}
    seconds = round(_earlier_s(store) + time.monotonic() - began, 1)
    write_json_atomic(store.folder / "seconds.json", {"seconds": seconds})
    report = Report(model.name, model.fingerprint, settings, reports, seconds, folder, model.name)
    _write(report)
    return report


def _map_actions(model: ModelUnderTest, dataset: Dataset) -> ActionMapping:
    check_frames(model.dreamer.resolution, dataset.resolution, model.fps, dataset.fps)
    scale = turn_scale(dataset.fov_deg, model.fov_deg)
    return match_actions(model.dreamer.action_space, dataset.action_space, str(dataset.path), scale)


def _pick_scorer(
    idms: Sequence[tuple[Path, InverseDynamics, dict[str, float]]], mapping: ActionMapping, index: int, num_data: int
) -> IDMScorer | None:
    place = match_idm(mapping.data, [model.config.action_space for _, model, _ in idms], index, num_data)
    if place is None:
        return None
    path, model, held_out = idms[place]
    return IDMScorer(path.resolve().name, model, held_out, shared_space(mapping.common, model.config.action_space))


def _stamp(
    config: EvaluationConfig,
    model: ModelUnderTest,
    settings: dict[str, Any],
    datasets: Sequence[Dataset],
    scenes: Sequence[LoadedScene],
) -> dict[str, Any]:
    """Fingerprint of all inputs of the figures: results of another stamp do not mix with these."""
    return {
        "version": VERSION,
        "model": model.fingerprint,
        "data": [f"{dataset.path.resolve().name}/{dataset.num_frames}" for dataset in datasets],
        "idm": [f"{path.resolve().name}/{hash_files([path / WEIGHTS])}" for path in config.idm],
        "scenes": [scene.fingerprint for scene in scenes],
        "settings": settings,
    }


def _earlier_s(store: Store) -> float:
    try:
        return float(json.loads((store.folder / "seconds.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _evaluate(
    config: EvaluationConfig,
    model: ModelUnderTest,
    game: Game | Place,
    size: Size | SceneSize,
    store: Store,
    suite: Suite | None,
    display: Display,
    lpips: LPIPS | None,
) -> GameReport:
    experiment = Experiment(
        name=game.name,
        model=model,
        store=store,
        folder=config.folder,
        display=display,
        seed=config.seed,
        videos=config.videos,
        lpips=lpips,
    )
    if isinstance(game, Place):
        assert isinstance(size, SceneSize)
        report = evaluate_scene(experiment, game, size, config.bench)
    else:
        assert isinstance(size, Size)
        report = evaluate_game(experiment, game, size, suite, config.bench)
    idm = ScorerNote(game.scorer.name, game.scorer.held_out) if game.scorer else None
    return replace(report, data=game.path.resolve().name, heldout=not config.any_split, idm=idm)


def _write(report: Report) -> None:
    """report.json last but for the page: where it is, all of it is."""
    for name in report.games:
        _stack_sheets(report.folder, name)
    (report.folder / "report.md").write_text(report.to_markdown(), encoding="utf-8")
    write_json_atomic(report.folder / "report.json", report.to_json())
    write_page([report], report.folder / "report.html")


def _stack_sheets(folder: Path, game: str) -> None:
    """PNG sheets of the strips of a game."""
    for sheet, patterns in SHEETS.items():
        columns = [sorted((folder / "pictures").glob(f"{game}-{pattern}.jpg")) for pattern in patterns]
        if sheet.startswith("compared"):
            columns = list(zip(*columns, strict=False))
        files = [file for column in columns for file in column]
        if files:
            stack_strips(files[:NUM_SHEET_ROWS], folder / f"{game}-{sheet}.png")
