"""One HTML page of one report or of several side by side: tables, plots and images, all inside the one file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from reverie.evaluate import clips, long
from reverie.evaluate.plots import bar_chart, legend, line_chart
from reverie.evaluate.scenes import units
from reverie.evaluate.scripts import PAIRS
from reverie.evaluate.summary import IDLE
from reverie.evaluate.tables import COPY, DREAM, OTHER_REAL, REAL, REBUILT, SHUFFLED, STATIC, Column, Table

MAX_BYTES = 2_900_000
MODEL_COLOURS = ("#d9480f", "#1c7ed6", "#2f9e44", "#9c36b5", "#e8590c", "#0b7285")
SCENE_COLOURS = ("#495057", "#868e96", "#2f9e44", "#1c7ed6", "#d9480f", "#9c36b5", "#e8590c", "#0b7285")
FIXED_COLOURS = {REAL: "#212529", STATIC: "#adb5bd", COPY: "#ced4da", OTHER_REAL: "#495057", "real time": "#495057"}
SHARED = (REAL, STATIC, COPY, OTHER_REAL, "real time")
"""Rows that are the same whatever the model."""

SCENE_SHEETS = {
    "walk": f"One held-out walk, at {', '.join(f'{s:g}' for s in units.SHOWN_S)} s",
    "long": "Long play with the model's own camera: the start, then at 5, 10, 20, 30, 40, 50, 60 s",
    "turn": "A half turn and back: the start, a quarter, half way, a quarter, the end",
    "way": "Out, left to right, and back the same way",
}
"""File names and captions of the strips of an evaluation in a scene."""

STYLE = """
:root{color-scheme:light}body{font:15px/1.45 system-ui,sans-serif;color:#212529;max-width:1180px;margin:2rem auto;
padding:0 1rem}h1{font-size:1.7rem;margin-bottom:.2rem}h2{margin-top:2.6rem;border-bottom:2px solid #dee2e6}
h3{margin:1.8rem 0 .4rem}table{border-collapse:collapse;font-size:13px}th,td{padding:.22rem .6rem;text-align:right;
border-bottom:1px solid #e9ecef;white-space:nowrap}th:first-child{text-align:left;position:sticky;left:0;
background:#fff}thead th{vertical-align:bottom;white-space:normal;min-width:4.6rem;border-bottom:2px solid #adb5bd}
.scroll{overflow-x:auto}.model{background:#fff4e6}td.best{font-weight:700}.note{color:#495057;font-size:13px;
max-width:60rem;margin:.4rem 0}.upset{color:#a61e4d;font-size:13px;margin:.15rem 0}.plots{display:grid;gap:.6rem;
grid-template-columns:repeat(auto-fit,minmax(340px,1fr))}svg{width:100%;height:auto}svg text{font-size:11px;
fill:#495057}svg .title{font-size:13px;font-weight:600;fill:#212529}svg .grid{stroke:#e9ecef}svg .level{stroke:#868e96;
stroke-dasharray:4 3}svg .line{fill:none;stroke-width:2}.legend span{margin-right:1.1rem;font-size:13px}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}figure{margin:.9rem 0}
figure div{display:flex;align-items:center;margin:2px 0}figure b{width:9.5rem;flex:none;font-size:12px;
font-weight:500}figure img{width:calc(100% - 9.5rem);height:auto;object-fit:contain;object-position:left}
figcaption{font-size:13px;color:#495057}
"""


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report: its folder and its report.json."""

    folder: Path
    raw: dict[str, Any]
    label: str


def write_page(reports: Sequence[Report], path: Path) -> int:
    """Write the page; returns its size in bytes.  Images that would make it larger than MAX_BYTES are left out."""
    games = list(dict.fromkeys(game for report in reports for game in report.raw["games"]))
    colours = _colours(reports)
    names = " and ".join(report.label for report in reports)
    bodies = [_game(game, [r for r in reports if game in r.raw["games"]], colours) for game in games]
    room = MAX_BYTES - len(STYLE) - sum(len(text.encode()) for text, _ in bodies)
    sections = []
    for text, figures in bodies:
        shown, room = _figures(figures, room)
        sections.append(text.replace("<!-- figures -->", shown))
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(names)}, evaluated</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{escape(names)}, evaluated</h1>{_head(reports)}{''.join(sections)}</html>\n"
    )
    path.write_text(html, encoding="utf-8")
    return len(html.encode())


def _head(reports: Sequence[Report]) -> str:
    lines = [
        f"<li><b>{escape(r.label)}</b>: {escape(r.raw['fingerprint'])}, in {r.raw['seconds'] / 60:.1f} min</li>"
        for r in reports
    ]
    facts = _facts(reports[0].raw["settings"])
    return f'<ul>{"".join(lines)}</ul><p class="note">{facts}</p>'


def _facts(size: Mapping[str, Any]) -> str:
    if "walks" in size:
        return (
            f"In a scene: {size['walks']} held-out walks, {size['turns']} half turns, {size['returns']} ways out of "
            f"{size['out_s']} s and back, {size['plays']} plays of {size['play_s']} s; seed {size['seed']}."
        )
    return (
        f"{size['starts']} starts of 4 s, {size['long_starts']} of 16 s, {size['held']} for held actions; "
        f"{size['plays']} plays of {size['play_s']} s, {size['idles']} of {size['idle_s']} s standing still, "
        f"{size['endurances']} of {size['endurance_s']} s; seed {size['seed']}."
    )


def _colours(reports: Sequence[Report]) -> dict[str, str]:
    return {report.label: MODEL_COLOURS[i % len(MODEL_COLOURS)] for i, report in enumerate(reports)}


def merged_table(name: str, reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """The tables called `name` of several reports (a game's part of them, by model) as one, its rows named by model."""
    tables = {label: Table.from_json(name, raw["tables"][name]) for label, raw in reports.items()}
    columns: dict[str, Column] = {}
    for table in tables.values():
        columns.update({column.key: column for column in table.columns})
    first = next(iter(tables.values()))
    merged = Table(name, first.title, tuple(columns.values()), first.note)
    alone = len(tables) == 1
    kinds = list(dict.fromkeys([REAL, REBUILT, DREAM, *(row for table in tables.values() for row in table.rows)]))
    kinds.sort(key=lambda kind: (OTHER_REAL, STATIC, COPY).index(kind) if kind in (OTHER_REAL, STATIC, COPY) else -1)
    for kind in kinds:
        for label, table in tables.items():
            row = kind if kind in SHARED else _own_name(kind, label, alone)
            if kind in table.rows and row not in merged.rows:
                merged.rows[row] = dict(table.rows[kind])
    return merged


def _own_name(kind: str, label: str, alone: bool) -> str:
    if kind == DREAM:
        return label
    if kind == IDLE:
        return f"{label}, standing still"
    return kind if alone else f"{label}, {kind}"


def _game(game: str, reports: Sequence[Report], colours: dict[str, str]) -> tuple[str, list[tuple[str, list]]]:
    """The section of one game, with a place left for its figures, and the figures."""
    parts = {report.label: report.raw["games"][game] for report in reports}
    first = reports[0].raw["games"][game]
    notes = list(dict.fromkeys(note for part in parts.values() for note in part["notes"]))
    html = [f'<h2>{escape(game)}</h2><p class="note">Recording: {escape(first["data"])}</p>']
    html += [f'<p class="note">{escape(note)}</p>' for note in notes]
    html.append(_plots(parts, colours))
    names = dict.fromkeys(name for part in parts.values() for name in part["tables"])
    for name in names:
        having = {label: part for label, part in parts.items() if name in part["tables"]}
        html.append(_table(merged_table(name, having), list(having), having))
    html.append("<h3>What it looks like</h3><!-- figures -->")
    return "".join(html), _pictures(game, reports)


def _table(table: Table, models: list[str], parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Measures down, subjects across."""
    rows = list(table.rows)
    head = "".join(f"<th{_mark(row, models)}>{escape(row)}</th>" for row in rows)
    body = []
    for column in table.columns:
        if not any(column.key in table.rows[row] for row in rows):
            continue
        best = _best(column, {m: table.rows[m][column.key] for m in models if column.key in table.rows.get(m, {})})
        cells = []
        for row in rows:
            figure = table.rows[row].get(column.key)
            text = "" if figure is None else column.form.format(figure)
            kind = " ".join(["model"] * (row in models) + ["best"] * (row == best))
            cells.append(f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>")
        arrow = {"high": " ↑", "low": " ↓", "one": " →1"}.get(column.best, "")
        body.append(f"<tr><th>{escape(column.label)}{arrow}</th>{''.join(cells)}</tr>")
    upsets = dict.fromkeys(
        line if len(models) == 1 or not line.startswith(SHUFFLED) else f"{label}, {line}"
        for label in models
        for line in parts[label]["tables"][table.name]["upsets"]
    )
    lines = "".join(f'<p class="upset">{escape(line)}</p>' for line in upsets)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{note}{lines}"
    )


def _mark(row: str, models: Sequence[str]) -> str:
    return ' class="model"' if row in models else ""


def _best(column: Column, figures: Mapping[str, float]) -> str | None:
    """The model with the best figure, of two or more; ties have none."""
    if len(figures) < 2 or not column.best:
        return None
    cost = {"high": lambda v: -v, "low": lambda v: v, "one": lambda v: abs(v - 1)}[column.best]
    costs = sorted((cost(value), name) for name, value in figures.items())
    return costs[0][1] if costs[0][0] < costs[1][0] else None


def _plots(parts: Mapping[str, Mapping[str, Any]], colours: dict[str, str]) -> str:
    colours = {REAL: FIXED_COLOURS[REAL], **{label: colours[label] for label in parts}, STATIC: FIXED_COLOURS[STATIC]}
    charts = []
    shares = {"keyboard": "keyboard", "keyboard_balanced": "keyboard, balanced", "mouse": "mouse"}
    charts.append(bar_chart("Obedience: share of frames right", _bars("obedience", shares, parts), colours))
    held = {"turn": "turn", "look": "look", "walk_clips": "walk", "strafe": "strafe"}
    charts.append(bar_chart("Held actions: share of clips right", _bars("held", held, parts), colours))
    titles = {"sharpness": "Sharpness", "contrast": "Contrast", "saturation": "Colour"}
    for name, title in titles.items():
        for kind, what in ((DREAM, "in play"), (IDLE, "standing still")):
            lines = _lines(name, kind, parts)
            if any(line not in (REAL, STATIC) for line in lines):
                options = {"x_label": "seconds", "log_x": True, "y_top": 3.0, "level": 1.0}
                charts.append(line_chart(f"{title} over the real game's, {what}", lines, colours, **options))
    collapsed = _lines("collapsed", DREAM, parts)
    if collapsed:
        charts.append(
            line_chart("Share of plays collapsed", collapsed, colours, x_label="seconds", log_x=True, y_top=1.05)
        )
    charts += _scene_charts(parts)
    return legend(colours) + f'<div class="plots">{"".join(chart for chart in charts if chart)}</div>'


def _scene_charts(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """PSNR and sharpness along held-out walks, with a legend of their own."""
    charts = []
    for name, title in {
        "walk_psnr_db": "PSNR along held-out walks, dB",
        "walk_sharpness": "Sharpness over the game's",
    }.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for label, part in parts.items():
            for row, values in part["curves"].get(name, {}).items():
                own = row if len(parts) == 1 or row in (units.GAME, units.STILL) else f"{label}, {row}"
                lines.setdefault(own, list(enumerate(values, 1)))
        if lines:
            colours = {row: SCENE_COLOURS[i % len(SCENE_COLOURS)] for i, row in enumerate(lines)}
            chart = line_chart(title, lines, colours, x_label="seconds")
            charts.append(f"<div>{chart}{legend(colours)}</div>")
    return charts


def _bars(table: str, keys: Mapping[str, str], parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    having = {label: part for label, part in parts.items() if table in part["tables"]}
    if not having:
        return {}
    rows = merged_table(table, having).rows
    wanted = [row for row in (REAL, *having, STATIC) if row in rows]
    groups = {label: {row: rows[row][key] for row in wanted if key in rows[row]} for key, label in keys.items()}
    return {label: bars for label, bars in groups.items() if bars}


def _lines(name: str, kind: str, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for label, part in parts.items():
        curves = part["curves"].get(name, {})
        for row, own in ((REAL, REAL), (kind, label), (STATIC, STATIC)):
            if row in curves and own not in lines:
                lines[own] = [(second, value) for second, value in enumerate(curves[row], 1)]
    return lines


def _pictures(game: str, reports: Sequence[Report]) -> list[tuple[str, list[tuple[str, Path]]]]:
    """(caption, strips with their names) in order of weight."""
    found: list[tuple[str, list[tuple[str, Path]]]] = []
    first = reports[0].folder

    def under(label: str, name: str) -> list[tuple[str, Path]]:
        return [(r.label if len(reports) > 1 else label, r.folder / "pictures" / name) for r in reports]

    short = ", ".join(f"{s:g}" for s in clips.SHOWN_S if s <= 4)
    whole = ", ".join(f"{s:g}" for s in clips.SHOWN_S)
    far = ", ".join(f"{s:g}" for s in long.SHOWN_S)
    for k in range(4):
        for section, times in (("short", short), ("16s", whole)) if k < 2 else (("short", short),):
            real = ("real", first / "pictures" / f"{game}-{section}-{k}-real.jpg")
            strips = under(reports[0].label, f"{game}-{section}-{k}-dream.jpg")
            found.append((f"Same start, same actions, at {times} s", [real, *strips]))
        for kind, what in (("play", "Long play"), ("idle", "Standing still"), ("endurance", "Five minutes of play")):
            caption = f"{what}: the start, then at {far} s, as long as it lasts"
            found.append((caption, under(reports[0].label, f"{game}-{kind}-{k}.jpg")))
        found += _scene_pictures(game, k, reports)
        caption = "One start, then each action held for 0.6 s: " + ", ".join(
            h.label for pair in PAIRS.values() for h in pair
        )
        found.append((caption, under(reports[0].label, f"{game}-held-{k}.jpg")))
    return [(caption, [s for s in strips if s[1].is_file()]) for caption, strips in found]


def _scene_pictures(game: str, k: int, reports: Sequence[Report]) -> list[tuple[str, list[tuple[str, Path]]]]:
    """The same of an evaluation in a scene: the game, the memory alone, the model in the scene, and from one image."""
    found = []
    for section, caption in SCENE_SHEETS.items():
        strips = []
        for row, name in units.ROWS.items():
            if row == units.REBUILT:
                continue
            files = [(r.label, r.folder / "pictures" / f"{game}-{section}-{k}-{name}.jpg") for r in reports]
            shared = row == units.GAME or len(reports) == 1
            labels = [(row if shared else f"{label}, {row}", file) for label, file in files[: 1 if shared else None]]
            strips += labels
        strips.sort(key=lambda strip: strip[0] != units.GAME)
        found.append((caption, strips))
    return found


def _figures(figures: Sequence[tuple[str, list[tuple[str, Path]]]], room: int) -> tuple[str, int]:
    html = []
    for caption, strips in figures:
        if not strips or (len(strips) == 1 and strips[0][0] in ("real", units.GAME)):
            continue
        rows = "".join(f'<div><b>{escape(name)}</b><img alt="" src="{_uri(path)}"></div>' for name, path in strips)
        if len(rows) > room:
            continue
        room -= len(rows) + 200
        html.append(f"<figure>{rows}<figcaption>{escape(caption)}</figcaption></figure>")
    return "".join(html), room


def _uri(path: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
