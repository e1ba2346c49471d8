"""One model on all its games: opens everything, measures, writes the report."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reverie.data.dataset import Dataset
from reverie.engine.engine import Engine
from reverie.engine.loading.scenes import LoadedScene
from reverie.errors import CheckpointError, DataError
from reverie.evaluate import sheets
from reverie.evaluate.display import SILENT, Display
from reverie.evaluate.evaluation import Evaluation
from reverie.evaluate.fit import Fit, check_pictures, fit_actions, match_idm, shared_space
from reverie.evaluate.merge import open_report
from reverie.evaluate.page import write_page
from reverie.evaluate.plan import Game, Judge, Size, game_names, pick_game, size_of
from reverie.evaluate.scenes.evaluation import SceneEvaluation
from reverie.evaluate.scenes.walks import Place, SceneSize, pick_place
from reverie.evaluate.store import VERSION, Store, make_folder
from reverie.evaluate.subject import Subject, open_subject
from reverie.evaluate.suites import Suite, load_suite
from reverie.evaluate.tables import Table
from reverie.models.checkpoint import write_json_atomic
from reverie.models.idm import WEIGHTS, InverseDynamics, load_idm
from reverie.paths import own_files
from reverie.vision.projection import turn_scale

NUM_SHEET_ROWS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """One model, the recordings that it is measured on, and how: fields as `reverie evaluate --help` explains them.

    output: folder of the report, runs/evaluate/MODEL if left out.
    """

    model: str
    data: tuple[Path, ...]
    output: Path | None = None
    idm: tuple[Path, ...] = ()
    scene: tuple[str, ...] = ()
    starts: int | None = None
    long_s: int | None = None
    quick: bool = False
    suite: str | None = None
    bench: Path | None = None
    any_split: bool = False
    seed: int = 0
    videos: bool = True
    fov_deg: float = 105.4
    device: str = "auto"
    dtype: str = "auto"

    @property
    def folder(self) -> Path:
        """Folder of the report."""
        return self.output or Path("runs/evaluate") / Path(self.model).name


def run(config: EvaluationConfig, size: Size | SceneSize | None = None, display: Display = SILENT) -> dict[str, Any]:
    """Evaluate config.model into config.folder; returns the report.  size: other numbers than the config's."""
    began = time.monotonic()
    if size is None:
        size_for = SceneSize.of if config.scene else size_of
        size = size_for(config.quick, config.starts, config.long_s)
    suite = load_suite(config.suite) if config.suite else None
    if suite is not None and not config.idm:
        raise DataError(f"the suite {suite.name} is judged by an inverse-dynamics model: say --idm DIR too")
    datasets = [Dataset(path) for path in config.data]
    judges = [(path, *load_idm(path)) for path in config.idm]
    folder = make_folder(config.folder)
    with display.status(f"loading {config.model}"):
        subject = open_subject(config.model, config.device, config.dtype)
    scenes = [_engine_of(subject).load_scene(scene) for scene in config.scene]
    fits = [_fit(subject, dataset) for dataset in datasets]
    store = Store(folder, _stamp(config, subject, size, datasets, scenes))
    told = _told(store)
    if told:
        display.line(told)
    games: list[Game | Place] = []
    for index, (name, dataset, fit) in enumerate(zip(game_names(config.data), datasets, fits, strict=True)):
        judge = _judge(judges, fit, index, len(datasets))
        with display.status(f"reading {dataset.path}"):
            if isinstance(size, SceneSize):
                games.append(
                    pick_place(
                        name,
                        dataset,
                        scenes[index],
                        _engine_of(subject),
                        fit,
                        judge,
                        size,
                        config.seed,
                        any_split=config.any_split,
                    )
                )
                continue
            games.append(
                pick_game(
                    name,
                    dataset.path,
                    dataset,
                    fit,
                    judge,
                    size,
                    config.seed,
                    fov_deg=dataset.fov_deg or config.fov_deg,
                    any_split=config.any_split,
                )
            )
    if suite is not None and not any(game.judge for game in games):
        raise DataError(
            f"no --idm is of a recorded game, so the suite {suite.name} has no judge; train one of the game"
        )
    report = _measure(config, subject, size, games, store, folder, suite, display)
    report["seconds"] = round(_earlier_s(folder) + time.monotonic() - began, 1)
    write_json_atomic(folder / "work" / "seconds.json", {"seconds": report["seconds"]})
    _write(folder, report)
    return report


def _engine_of(subject: Subject) -> Engine:
    """The engine of a model of ours.  Raises CheckpointError for a rival's."""
    if not isinstance(subject.dreamer, Engine):
        raise CheckpointError(f"{subject.name} is behind a file of its own, so it opens no scenes; leave --scene out")
    return subject.dreamer


def _fit(subject: Subject, dataset: Dataset) -> Fit:
    check_pictures(subject.dreamer.resolution, dataset.resolution, subject.fps, dataset.fps)
    scale = turn_scale(dataset.fov_deg, subject.fov_deg)
    return fit_actions(subject.dreamer.action_space, dataset.action_space, str(dataset.path), scale)


def _judge(
    judges: Sequence[tuple[Path, InverseDynamics, dict[str, float]]], fit: Fit, index: int, num_data: int
) -> Judge | None:
    place = match_idm(fit.data, [model.config.action_space for _, model, _ in judges], index, num_data)
    if place is None:
        return None
    path, model, figures = judges[place]
    space = shared_space(fit.common, model.config.action_space)
    return Judge(path.resolve().name, model, figures, space)


def _stamp(
    config: EvaluationConfig,
    subject: Subject,
    size: Size | SceneSize,
    datasets: Sequence[Dataset],
    scenes: Sequence[LoadedScene],
) -> dict[str, Any]:
    """Fingerprint of all inputs of the figures: results of another stamp do not mix with these."""
    from reverie.engine.runtime import hash_files

    return {
        "version": VERSION,
        "model": subject.fingerprint,
        "data": [f"{dataset.path.resolve().name}/{dataset.num_frames}" for dataset in datasets],
        "idm": [f"{path.resolve().name}/{hash_files([path / WEIGHTS])}" for path in config.idm],
        "scenes": [scene.fingerprint for scene in scenes],
        "settings": _settings(config, size),
    }


def _settings(config: EvaluationConfig, size: Size | SceneSize) -> dict[str, Any]:
    return {**asdict(size), "seed": config.seed, "fov_deg": config.fov_deg, "suite": config.suite or ""}


def _told(store: Store) -> str:
    done = len(own_files(store.folder.glob("*.npz")))
    return f"{store.folder.parent} holds {done} finished pieces of this evaluation: going on from there" if done else ""


def _earlier_s(folder: Path) -> float:
    try:
        return float(json.loads((folder / "work" / "seconds.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _measure(
    config: EvaluationConfig,
    subject: Subject,
    size: Size | SceneSize,
    games: Sequence[Game | Place],
    store: Store,
    folder: Path,
    suite: Suite | None,
    display: Display,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "version": VERSION,
        "model": subject.name,
        "fingerprint": subject.fingerprint,
        "settings": _settings(config, size),
        "games": {},
    }
    with display.bars() as progress:
        shared = {"seed": config.seed, "progress": progress, "bench": config.bench}
        for game in games:
            if isinstance(game, Place):
                assert isinstance(size, SceneSize)
                evaluation = SceneEvaluation(subject, _engine_of(subject), game, size, store, folder, **shared)
            else:
                assert isinstance(size, Size)
                evaluation = Evaluation(subject, game, size, store, folder, videos=config.videos, suite=suite, **shared)
            result = evaluation.run()
            result["tables"] = {table.name: table.to_json() for table in result["tables"]}
            judge = {"name": game.judge.name, "held_out": game.judge.figures} if game.judge else None
            report["games"][game.name] = {
                "data": game.path.resolve().name,
                "heldout": not config.any_split,
                "idm": judge,
                **result,
            }
    return report


def _write(folder: Path, report: dict[str, Any]) -> None:
    """report.json last but for the page: where it is, all of it is."""
    lines = [f"# {report['model']}, evaluated\n", f"Weights {report['fingerprint']}, {report['seconds']:.0f} s.\n"]
    for name, game in report["games"].items():
        lines += [f"## {name}\n", *(f"{note}\n" for note in game["notes"])]
        lines += [table.to_markdown() for table in tables_of(game)]
        _sheets(folder, name)
    (folder / "report.md").write_text("\n".join(lines), encoding="utf-8")
    write_json_atomic(folder / "report.json", report)
    write_page([open_report(folder)], folder / "report.html")


def tables_of(game: dict[str, Any]) -> list[Table]:
    """The tables of a game's part of a report."""
    return [Table.from_json(table, raw) for table, raw in game["tables"].items()]


def _sheets(folder: Path, game: str) -> None:
    """PNG sheets of the strips: what was compared, held, played and idled."""
    for sheet, patterns in {
        "compared": ("short-*-real", "short-*-dream"),
        "compared-16s": ("16s-*-real", "16s-*-dream"),
        "held": ("held-*",),
        "play": ("play-*", "endurance-*"),
        "idle": ("idle-*",),
    }.items():
        columns = [sorted((folder / "pictures").glob(f"{game}-{pattern}.jpg")) for pattern in patterns]
        if len(patterns) == 2 and sheet.startswith("compared"):
            files = [file for pair in zip(*columns, strict=False) for file in pair]
        else:
            files = [file for column in columns for file in column]
        if files:
            sheets.stack_strips(files[:NUM_SHEET_ROWS], folder / f"{game}-{sheet}.png")
