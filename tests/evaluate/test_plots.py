from xml.etree import ElementTree

from reverie.evaluate.plots import bar_chart, line_chart, ticks

COLOURS = {"a": "#000", "<b>": "#111"}


def test_ticks_are_round_and_cover() -> None:
    assert ticks(1.0) == [0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(3.0) == [0, 1, 2, 3]
    assert ticks(47.0) == [0, 20, 40]


def test_lines_are_placed_by_their_values() -> None:
    svg = line_chart("Title & all", {"a": [(1, 0.0), (10, 2.0)], "<b>": [(1, 1.0)]}, COLOURS, x_label="s", log_x=True)
    lines = [node.get("points", "") for node in ElementTree.fromstring(svg).iter("polyline")]
    (left, bottom), (right, top) = [tuple(map(float, point.split(","))) for point in lines[0].split()]
    assert left < right
    assert top < float(lines[1].split(",")[1]) < bottom, "up is smaller in SVG"
    assert line_chart("empty", {}, COLOURS, x_label="s") == ""


def test_bars_are_as_high_as_their_values() -> None:
    bars = list(ElementTree.fromstring(bar_chart("x", {"keys": {"a": 0.5, "<b>": 1.0}}, COLOURS)).iter("rect"))
    low, high = (float(bar.get("height", 0)) for bar in bars)
    assert abs(high - 2 * low) < 0.2
