"""Small plots as SVG text: nothing to load, nothing to run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 30, 34
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
) -> str:
    """Lines by name over one pair of axes.  y starts at 0; y_top: the most that is shown.  level: a dashed line."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(max(x for x, _ in points), min(x for x, _ in points) + 1)
    highest = max([y for _, y in points] + [level or 0.0]) or 1.0
    y_high = min(highest * 1.08, y_top) if y_top is not None else highest * 1.08

    def place(x: float, y: float) -> tuple[float, float]:
        low, high, at = (math.log(max(v, 1e-9)) if log_x else v for v in (x_low, x_high, x))
        across = (at - low) / (high - low)
        up = min(max(y, 0.0), y_high) / y_high
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_frame(title, x_label)]
    for y in ticks(y_high):
        across = place(x_low, y)[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{across:.1f}" y2="{across:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{across + 3.5:.1f}" text-anchor="end">{y:g}</text>')
    marks = [x for x in (1, 2, 5, 10, 20, 60, 120, 300) if x_low <= x <= x_high] if log_x else ticks(x_high)
    for x in marks:
        if x >= x_low:
            along = place(x, 0)[0]
            parts.append(f'<text x="{along:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{x:g}</text>')
    if level is not None:
        across = place(x_low, level)[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{across:.1f}" y2="{across:.1f}" class="level"/>')
    for name, line in lines.items():
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, y) for x, y in line))
        parts.append(f'<polyline points="{path}" stroke="{colours[name]}" class="line"><title>{escape(name)}</title>')
        parts.append("</polyline>")
    return _svg(parts)


def bar_chart(
    title: str, groups: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], y_top: float = 1.0
) -> str:
    """Bars side by side for each group; groups: by name the bars by name."""
    if not groups:
        return ""
    parts = [_frame(title, "")]
    room, bottom = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM
    for y in ticks(y_top):
        at = bottom - y / y_top * (bottom - TOP)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 3.5:.1f}" text-anchor="end">{y:g}</text>')
    wide = room / len(groups)
    for i, (group, bars) in enumerate(groups.items()):
        middle = LEFT + (i + 0.5) * wide
        parts.append(f'<text x="{middle:.1f}" y="{bottom + 14}" text-anchor="middle">{escape(group)}</text>')
        thick = 0.82 * wide / max(1, len(bars))
        for j, (name, value) in enumerate(bars.items()):
            tall = min(max(value, 0.0), y_top) / y_top * (bottom - TOP)
            x = middle + (j - len(bars) / 2) * thick
            parts.append(
                f'<rect x="{x:.1f}" y="{bottom - tall:.1f}" width="{max(thick - 1, 1):.1f}" height="{tall:.1f}" '
                f'fill="{colours[name]}"><title>{escape(name)}: {value:.3f}</title></rect>'
            )
    return _svg(parts)


def legend(colours: Mapping[str, str]) -> str:
    """The names with their colours, as HTML."""
    items = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items())
    return f'<p class="legend">{"".join(items)}</p>'


def ticks(highest: float) -> list[float]:
    """0 and three to six round numbers up to `highest`."""
    rough = highest / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.99)
    return [round(i * step, 10) for i in range(int(highest / step + 1e-9) + 1)]


def _frame(title: str, x_label: str) -> str:
    return (
        f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>'
    )


def _svg(parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
