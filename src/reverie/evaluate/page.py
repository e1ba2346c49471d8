"""One HTML page of one report or of several side by side: tables, plots and images, all inside the one file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from reverie.evaluate import clips, long_play
from reverie.evaluate.held_actions import PAIRS
from reverie.evaluate.plots import TEMPLATES, bar_chart, line_chart
from reverie.evaluate.report import GameReport, Report
from reverie.evaluate.scenes import units
from reverie.evaluate.summary import IDLE
from reverie.evaluate.tables import COPY, DREAM, OTHER_REAL, REAL, REBUILT, SHUFFLED, STATIC, Column, Table

MAX_BYTES = 2_900_000
MODEL_COLOURS = ("#d9480f", "#1c7ed6", "#2f9e44", "#9c36b5", "#e8590c", "#0b7285")
SCENE_COLOURS = ("#495057", "#868e96", "#2f9e44", "#1c7ed6", "#d9480f", "#9c36b5", "#e8590c", "#0b7285")
REAL_COLOUR, STATIC_COLOUR = "#212529", "#adb5bd"
LAST = (OTHER_REAL, STATIC, COPY)
SHARED = (REAL, *LAST, "real time")
"""Rows that are the same whatever the model."""

SCENE_SHEETS = {
    "walk": f"One held-out walk, at {', '.join(f'{s:g}' for s in units.SHOWN_S)} s",
    "long": "Long play with the model's own camera: the start, then at 5, 10, 20, 30, 40, 50, 60 s",
    "turn": "A half turn and back: the start, a quarter, half way, a quarter, the end",
    "way": "Out, left to right, and back the same way",
}
"""File names and captions of the strips of an evaluation in a scene."""

Parts = Mapping[str, GameReport]
"""One game in each report that has it, by the report's label."""
Strips = list[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Strips under each other, each with its name.  strips: JPEG in base64."""

    caption: str
    strips: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class GameView:
    """One game on the page.  tables: each with its upsets; charts: each with a legend of its own, or without."""

    name: str
    data: str
    notes: list[str]
    models: list[str]
    colours: dict[str, str]
    charts: list[tuple[Markup, dict[str, str]]]
    tables: list[tuple[Table, list[str]]]


def write_page(reports: Sequence[Report], path: Path) -> int:
    """Write the page; returns its size in bytes.  Images that would make it larger than MAX_BYTES are left out."""
    names = list(dict.fromkeys(game for report in reports for game in report.games))
    games = [_view_game(name, reports) for name in names]
    template = TEMPLATES.get_template("report.html")
    title = f"{' and '.join(report.label for report in reports)}, evaluated"

    def render(figures: Mapping[str, Sequence[Figure]]) -> str:
        return template.render(title=title, reports=reports, games=games, figures=figures, best_model=best_model)

    room = MAX_BYTES - len(render({name: [] for name in names}).encode())
    figures: dict[str, list[Figure]] = {name: [] for name in names}
    for name in names:
        for figure in _load_figures(name, reports):
            size = 200 + sum(100 + len(data) for _, data in figure.strips)
            if size <= room:
                figures[name].append(figure)
                room -= size
    html = render(figures).encode()
    path.write_bytes(html)
    return len(html)


def merged_table(name: str, parts: Parts) -> Table:
    """The tables called `name` of several reports as one, its rows named by model."""
    tables = {label: part.tables[name] for label, part in parts.items() if name in part.tables}
    first = next(iter(tables.values()))
    columns = {column.key: column for table in tables.values() for column in table.columns}
    kinds = list(dict.fromkeys([REAL, REBUILT, DREAM, *(row for table in tables.values() for row in table.rows)]))
    kinds.sort(key=lambda kind: LAST.index(kind) if kind in LAST else -1)
    merged = Table(first.title, tuple(columns.values()), first.note)
    for kind in kinds:
        for label, table in tables.items():
            row = kind if kind in SHARED else _row_name(kind, label, len(tables) == 1)
            if kind in table.rows:
                merged.rows.setdefault(row, table.rows[kind])
    return merged


def _row_name(kind: str, label: str, is_alone: bool) -> str:
    if kind in (DREAM, IDLE):
        return label + kind.removeprefix(DREAM)
    return kind if is_alone else f"{label}, {kind}"


def _view_game(name: str, reports: Sequence[Report]) -> GameView:
    parts = {report.label: report.games[name] for report in reports if name in report.games}
    colours = {report.label: MODEL_COLOURS[i % len(MODEL_COLOURS)] for i, report in enumerate(reports)}
    colours = {REAL: REAL_COLOUR, **{label: colours[label] for label in parts}, STATIC: STATIC_COLOUR}
    charts = [(chart, {}) for chart in _charts(parts, colours) if chart]
    notes = list(dict.fromkeys(note for part in parts.values() for note in part.notes))
    tables = [
        (merged_table(table, parts), _upsets(table, parts))
        for table in dict.fromkeys(table for part in parts.values() for table in part.tables)
    ]
    data = next(iter(parts.values())).data
    return GameView(name, data, notes, list(parts), colours, charts + _scene_charts(parts), tables)


def _upsets(name: str, parts: Parts) -> list[str]:
    lines = {
        line if len(parts) == 1 or not line.startswith(SHUFFLED) else f"{label}, {line}": None
        for label, part in parts.items()
        if name in part.tables
        for line in part.tables[name].upsets()
    }
    return list(lines)


def best_model(column: Column, table: Table, models: Sequence[str]) -> str | None:
    """The model with the best figure, of two or more; ties have none."""
    figures = {model: table.rows[model][column.key] for model in models if column.key in table.rows.get(model, {})}
    if len(figures) < 2 or not column.best:
        return None
    cost = {"high": lambda v: -v, "low": lambda v: v, "one": lambda v: abs(v - 1)}[column.best]
    costs = sorted((cost(value), name) for name, value in figures.items())
    return costs[0][1] if costs[0][0] < costs[1][0] else None


def _charts(parts: Parts, colours: Mapping[str, str]) -> list[Markup]:
    shares = {"keyboard": "keyboard", "keyboard_balanced": "keyboard, balanced", "mouse": "mouse"}
    held = {"turn": "turn", "look": "look", "walk_clips": "walk", "strafe": "strafe"}
    charts = [
        bar_chart("Obedience: share of frames right", _bars("obedience", shares, parts), colours),
        bar_chart("Held actions: share of clips right", _bars("held", held, parts), colours),
    ]
    for name, title in {"sharpness": "Sharpness", "contrast": "Contrast", "saturation": "Colour"}.items():
        for kind, what in ((DREAM, "in play"), (IDLE, "standing still")):
            lines = _lines(name, kind, parts)
            if any(line not in (REAL, STATIC) for line in lines):
                text = f"{title} over the real game's, {what}"
                charts.append(line_chart(text, lines, colours, x_label="seconds", log_x=True, y_top=3.0, level=1.0))
    lines = _lines("collapsed", DREAM, parts)
    charts.append(line_chart("Share of plays collapsed", lines, colours, x_label="seconds", log_x=True, y_top=1.05))
    return charts


def _scene_charts(parts: Parts) -> list[tuple[Markup, dict[str, str]]]:
    """PSNR and sharpness along held-out walks, with a legend of their own."""
    titles = {"walk_psnr_db": "PSNR along held-out walks, dB", "walk_sharpness": "Sharpness over the game's"}
    charts = []
    for name, title in titles.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for label, part in parts.items():
            for row, values in part.curves.get(name, {}).items():
                own = row if len(parts) == 1 or row in (units.GAME, units.STILL) else f"{label}, {row}"
                lines.setdefault(own, list(enumerate(values, 1)))
        if lines:
            colours = {row: SCENE_COLOURS[i % len(SCENE_COLOURS)] for i, row in enumerate(lines)}
            charts.append((line_chart(title, lines, colours, x_label="seconds"), colours))
    return charts


def _bars(name: str, keys: Mapping[str, str], parts: Parts) -> dict[str, dict[str, float]]:
    if not any(name in part.tables for part in parts.values()):
        return {}
    rows = merged_table(name, parts).rows
    wanted = [row for row in (REAL, *parts, STATIC) if row in rows]
    groups = {label: {row: rows[row][key] for row in wanted if key in rows[row]} for key, label in keys.items()}
    return {label: bars for label, bars in groups.items() if bars}


def _lines(name: str, kind: str, parts: Parts) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for label, part in parts.items():
        curves = part.curves.get(name, {})
        for row, own in ((REAL, REAL), (kind, label), (STATIC, STATIC)):
            if row in curves:
                lines.setdefault(own, list(enumerate(curves[row], 1)))
    return lines


def _load_figures(game: str, reports: Sequence[Report]) -> list[Figure]:
    """The figures of a game that have more than the real frames, in order of weight."""
    reports = [report for report in reports if game in report.games]
    figures = []
    for k in range(4):
        for caption, strips in [*_strips(game, k, reports), *_scene_strips(game, k, reports)]:
            found = [(name, file) for name, file in strips if file.is_file()]
            if any(name not in ("real", units.GAME) for name, _ in found):
                images = [(name, base64.b64encode(file.read_bytes()).decode()) for name, file in found]
                figures.append(Figure(caption, images))
    return figures


def _strips(game: str, k: int, reports: Sequence[Report]) -> list[tuple[str, Strips]]:
    def of_reports(piece: str) -> Strips:
        return [(report.label, _strip(report, game, piece)) for report in reports]

    short, whole = (", ".join(f"{s:g}" for s in clips.SHOWN_S if s <= most) for most in (4, 16))
    times = ", ".join(f"{s:g}" for s in long_play.SHOWN_S)
    held = ", ".join(held.label for pair in PAIRS.values() for held in pair)
    found = []
    for section, at in (("short", short), ("16s", whole)) if k < 2 else (("short", short),):
        real = ("real", _strip(reports[0], game, f"{section}-{k}-real"))
        found.append((f"Same start, same actions, at {at} s", [real, *of_reports(f"{section}-{k}-dream")]))
    for kind, what in {"play": "Long play", "idle": "Standing still", "endurance": "Five minutes of play"}.items():
        caption = f"{what}: the start, then at {times} s, as long as it lasts"
        found.append((caption, of_reports(f"{kind}-{k}")))
    return [*found, (f"One start, then each action held for 0.6 s: {held}", of_reports(f"held-{k}"))]


def _scene_strips(game: str, k: int, reports: Sequence[Report]) -> list[tuple[str, Strips]]:
    """The same of an evaluation in a scene: the game, the memory alone, the model in the scene, and from one image."""
    found = []
    for section, caption in SCENE_SHEETS.items():
        strips = [(units.GAME, _strip(reports[0], game, f"{section}-{k}-{units.ROWS[units.GAME]}"))]
        for row in (units.MEMORY, units.LED, units.OWN, units.IMAGE):
            for report in reports:
                label = row if len(reports) == 1 else f"{report.label}, {row}"
                strips.append((label, _strip(report, game, f"{section}-{k}-{units.ROWS[row]}")))
        found.append((caption, strips))
    return found


def _strip(report: Report, game: str, piece: str) -> Path:
    return report.folder / "pictures" / f"{game}-{piece}.jpg"
