"""A dataset's coverage, drawn with Pillow: one image, or one self-contained page."""

from __future__ import annotations

import base64
import html
import io
import itertools
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from reverie.data.coverage import PITCH_EDGES, SPEED_EDGES, Coverage
from reverie.overlay import FAINT, INK, LIT, PAPER, fit_text, font_of

WIDTH = 520
ROW = 18
MAX_BARS = 24
HEAT_PX = 164
MAX_PLACES = 24

STYLE = (
    "body{background:#121216;color:#ebebeb;font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1080px;"
    "padding:0 1rem}table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .8rem .15rem 0;"
    "text-align:left}td:not(:first-child){text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%}"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}"
)


def draw_report(found: Coverage) -> Image.Image:
    """Every chart on one image, in two columns, under a line that sums it up."""
    charts = list(draw_charts(found).values())
    columns: list[list[Image.Image]] = [[], []]
    for chart in charts:
        min(columns, key=lambda column: sum(one.height for one in column)).append(chart)
    height = max(sum(one.height + 12 for one in column) for column in columns)
    lines = summary(found)
    sheet = Image.new("RGB", (2 * WIDTH + 36, height + 12 + 20 * len(lines) + 12), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((12, 10 + 20 * i), line, fill=INK, font=font_of(14))
    for x, column in zip((12, WIDTH + 24), columns, strict=True):
        y = 20 * len(lines) + 24
        for chart in column:
            sheet.paste(chart, (x, y))
            y += chart.height + 12
    return sheet


def _data_url(chart: Image.Image) -> str:
    packed = io.BytesIO()
    chart.save(packed, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"


def draw_page(found: Coverage) -> str:
    """One HTML page with the figures as tables and the charts inside it."""
    parts = [f"<h1>{html.escape(found.dataset)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in summary(found)[1:])]
    rows = [
        (key, f"{use.share:.1%}", str(use.presses), f"{use.median_s:.2f}", f"{use.p90_s:.2f}", f"{use.longest_s:.1f}")
        for key, use in found.keys.items()
    ]
    parts.append("<h2>Keys</h2>" + _html_table(("key", "held", "presses", "median s", "90% s", "longest s"), rows))
    for name, chart in draw_charts(found).items():
        parts.append(f'<img alt="{html.escape(name)}" src="{_data_url(chart)}">')
    for name, counts in found.counts.items():
        rows = [(value, str(count)) for value, count in counts.items()]
        parts.append(f"<h2>Episodes by {html.escape(name)}</h2>" + _html_table((name, "episodes"), rows))
    title = html.escape(f"What {found.dataset} covers")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"{''.join(parts)}</html>\n"
    )


def summary(found: Coverage) -> list[str]:
    """The report in a few lines of text."""
    stuck = "unknown (no poses)" if found.stuck_clips is None else f"{found.stuck_clips:.1%}"
    lines = [
        f"{found.dataset}: {found.hours:.2f} h, {found.episodes} episodes, {found.frames} frames"
        + (f" of {found.world}" if found.world else ""),
        f"{len(found.counts.get('map', {}))} maps, {found.distinct_seeds} seeds; idle {found.idle['share']:.1%} of the"
        f" frames, {found.idle['stretches_3s']:.0f} stretches of 3 s and more, the longest"
        f" {found.idle['longest_s']:.1f} s",
        f"of clips of 2 s: {stuck} stuck, {found.static_clips:.1%} near-static ({found.sampled_clips} looked at)",
    ]
    if found.turns_right is not None:
        lines.append(f"turns to the right: {found.turns_right:.0%}")
    return lines


def draw_charts(found: Coverage) -> dict[str, Image.Image]:
    """The charts by title."""
    edges = [f"{edge:g}" for edge in SPEED_EDGES]
    bins = [f"{low}-{high}" for low, high in zip(edges, [*edges[1:], ""], strict=True)]
    charts: dict[str, Mapping[str, float]] = {
        "Keys held, share of frames": {key: use.share for key, use in found.keys.items()},
        "Held together, share of frames": found.combinations,
    }
    for name, shares in found.camera_speed.items():
        charts[f"Camera speed, {name}, degrees a second"] = dict(zip(bins, shares, strict=True))
    if found.view_pitch:
        steps = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(PITCH_EDGES)]
        charts["Looking up (+) and down (-), degrees"] = dict(zip(steps, found.view_pitch, strict=True))
    drawn = {title: bar_chart(title, values) for title, values in charts.items()}
    if found.places:
        drawn["Places"] = heat_maps("Places, by time spent (each map has its own scale)", found.places)
    return drawn


def bar_chart(title: str, values: Mapping[str, float]) -> Image.Image:
    """A bar a value, with its share."""
    shown = list(values.items())[:MAX_BARS]
    chart = Image.new("RGB", (WIDTH, 28 + ROW * max(1, len(shown))), PAPER)
    draw = ImageDraw.Draw(chart)
    draw.text((0, 2), title, fill=INK, font=font_of(14))
    most = max((value for _, value in shown), default=0.0) or 1.0
    left, right = 190, WIDTH - 60
    for i, (name, value) in enumerate(shown):
        y = 26 + ROW * i
        draw.text((left - 6, y + ROW / 2), fit_text(draw, name, left - 10), fill=INK, font=font_of(11), anchor="rm")
        draw.rectangle((left, y + 3, right, y + ROW - 3), fill=(30, 30, 36))
        if value > 0:
            draw.rectangle((left, y + 3, left + max(1.0, (right - left) * value / most), y + ROW - 3), fill=LIT)
        draw.text((right + 6, y + ROW / 2), f"{value:.1%}", fill=INK, font=font_of(11), anchor="lm")
    return chart


def heat_maps(title: str, places: Mapping[str, dict]) -> Image.Image:
    """A small map a place, brighter where more time was spent (by the logarithm), with its name and hours."""
    shown = list(places.items())[:MAX_PLACES]
    columns = 3
    line = HEAT_PX + 24
    chart = Image.new("RGB", (WIDTH, 28 + line * -(-len(shown) // columns)), PAPER)
    draw = ImageDraw.Draw(chart)
    draw.text((0, 2), title, fill=INK, font=font_of(14))
    for i, (name, place) in enumerate(shown):
        x, y = i % columns * (WIDTH // columns), 26 + i // columns * line
        heat = np.log1p(np.asarray(place["heat"], np.float64))
        level = heat / max(heat.max(), 1e-9)
        low, high = np.array(FAINT, np.float64), np.array(LIT, np.float64)
        pixels = np.where(level[..., None] > 0, low + (high - low) * level[..., None], (26, 26, 32)).astype(np.uint8)
        chart.paste(Image.fromarray(pixels).resize((HEAT_PX, HEAT_PX), Image.Resampling.NEAREST), (x, y))
        label = f"{name}, {place['frames'] / 1500:.1f} min"
        draw.text((x, y + HEAT_PX + 3), fit_text(draw, label, HEAT_PX), fill=INK, font=font_of(11))
    return chart


def _html_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"
