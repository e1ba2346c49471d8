"""Small plots as SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Environment(
    loader=PackageLoader("reverie.evaluate"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 12, 30, HEIGHT - 34
TIMES_S = (1, 2, 5, 10, 20, 60, 120, 300)
Points = Sequence[tuple[float, float]]


def line_chart(
    title: str,
    lines: Mapping[str, Points],
    colours: Mapping[str, str],
    *,
    x_label: str,
    log_x: bool = False,
    y_top: float | None = None,
    level: float | None = None,
) -> Markup:
    """Lines by name over one pair of axes.  y starts at 0; y_top: the most that is shown.  level: a dashed line."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup()
    scale = (lambda x: math.log(max(x, 1e-9))) if log_x else float
    x_low, x_high = min(x for x, _ in points), max(max(x for x, _ in points), min(x for x, _ in points) + 1)
    highest = 1.08 * (max([y for _, y in points] + [level or 0.0]) or 1.0)
    y_high = highest if y_top is None else min(highest, y_top)

    def along(x: float) -> float:
        return round(LEFT + (scale(x) - scale(x_low)) / (scale(x_high) - scale(x_low)) * (RIGHT - LEFT), 1)

    def up(y: float) -> float:
        return round(BOTTOM - min(max(y, 0.0), y_high) / y_high * (BOTTOM - TOP), 1)

    return _draw(
        title,
        x_label,
        y_ticks=[(up(y), f"{y:g}") for y in ticks(y_high)],
        x_ticks=[(along(x), f"{x:g}") for x in (TIMES_S if log_x else ticks(x_high)) if x_low <= x <= x_high],
        level=None if level is None else up(level),
        lines=[(name, colours[name], " ".join(f"{along(x)},{up(y)}" for x, y in line)) for name, line in lines.items()],
    )


def bar_chart(
    title: str, groups: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], y_top: float = 1.0
) -> Markup:
    """Bars side by side for each group; groups: by name the bars by name."""
    if not groups:
        return Markup()

    def high(y: float) -> float:
        return min(max(y, 0.0), y_top) / y_top * (BOTTOM - TOP)

    wide = (RIGHT - LEFT) / len(groups)
    middles = {group: LEFT + (i + 0.5) * wide for i, group in enumerate(groups)}
    bars = []
    for group, values in groups.items():
        thick = 0.82 * wide / max(1, len(values))
        for j, (name, value) in enumerate(values.items()):
            x = middles[group] + (j - len(values) / 2) * thick
            place = (x, BOTTOM - high(value), max(thick - 1, 1), high(value))
            bars.append((name, colours[name], *(round(number, 1) for number in place), value))
    return _draw(
        title,
        y_ticks=[(round(BOTTOM - high(y), 1), f"{y:g}") for y in ticks(y_top)],
        x_ticks=[(round(middle, 1), group) for group, middle in middles.items()],
        bars=bars,
    )


def ticks(highest: float) -> list[float]:
    """0 and three to six round numbers up to `highest`."""
    rough = highest / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.99)
    return [round(i * step, 10) for i in range(int(highest / step + 1e-9) + 1)]


def _draw(title: str, x_label: str = "", *, level: float | None = None, lines=(), bars=(), **axes: Any) -> Markup:
    size = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "bottom": BOTTOM}
    template = TEMPLATES.get_template("charts.html")
    return Markup(template.render(title=title, x_label=x_label, level=level, lines=lines, bars=bars, **axes, **size))
