"""Drawing of the player's actions: a strip of keys under a frame, and contact sheets.  Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from reverie.types import Action, ActionSpace

INK, PAPER, FAINT, LIT = (235, 235, 235), (18, 18, 22), (58, 58, 66), (255, 176, 32)
FULL_TURN_DEG = 8.0
"""The turn per frame that fills the mouse's gauge."""

KEY_MARGIN = 7
"""Pixels of a key beside its word."""

Picture = npt.NDArray[np.uint8]


def strip_height(width: int) -> int:
    """Height in pixels of the strip under a frame `width` pixels wide; even, as video wants it."""
    return max(20, round(width / 11 / 2) * 2)


def add_keys(frame: Picture, action: Action, space: ActionSpace) -> Picture:
    """`frame` (H, W, 3) with a strip below it: the space's keys, lit while held, and a gauge of the mouse's turn.

    Returns (H + strip_height(W), W, 3).
    """
    width = frame.shape[1]
    strip = Image.new("RGB", (width, strip_height(width)), PAPER)
    draw = ImageDraw.Draw(strip)
    gauge = strip.height if space.mouse else 0
    size, cells = _key_cells(draw, space.keys, width - gauge)
    for key, (left, right) in zip(space.keys, cells, strict=True):
        _draw_key(draw, (left + 1, 2, right - 2, strip.height - 3), key, key in action.keys, size)
    if space.mouse:
        _draw_turn(draw, width - gauge / 2, strip.height / 2, gauge / 2 - 3, action.mouse)
    return np.concatenate([frame, np.asarray(strip)])


def add_arrow(frame: Picture, turn: tuple[float, float]) -> Picture:
    """`frame` (H, W, 3) with an arrow from its middle the way the mouse turns; none for less than half a degree."""
    if max(map(abs, turn)) < 0.5:
        return frame
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    x, y = picture.width / 2, picture.height / 2
    pitch, yaw = (max(-1.0, min(1.0, degrees / FULL_TURN_DEG)) for degrees in turn)
    reach = 0.3 * picture.height
    tip = (x + yaw * reach, y - pitch * reach)
    left, right = _arrow_sides((x, y), tip, max(3.0, picture.height / 26))
    for width, colour in ((4, PAPER), (2, LIT)):
        draw.line((x, y, *tip), fill=colour, width=width)
        draw.line((*left, *tip, *right), fill=colour, width=width, joint="curve")
    return np.asarray(picture)


def _arrow_sides(tail: tuple[float, float], tip: tuple[float, float], head: float) -> list[tuple[float, float]]:
    """The two ends of an arrow's head."""
    length = math.dist(tail, tip)
    along = ((tip[0] - tail[0]) / length, (tip[1] - tail[1]) / length)
    return [
        (tip[0] - head * along[0] + side * head * along[1], tip[1] - head * along[1] - side * head * along[0])
        for side in (0.8, -0.8)
    ]


def contact_sheet(pictures: Sequence[Picture], captions: Sequence[str], columns: int | None = None) -> Image.Image:
    """Images (H, W, 3) in rows, each with its caption below it."""
    height, width = pictures[0].shape[:2]
    columns = columns or max(1, round(math.sqrt(len(pictures) * height / width)))
    rows = math.ceil(len(pictures) / columns)
    line, gap = 16, 4
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + line + gap) + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + line + gap)
        sheet.paste(Image.fromarray(picture), (x, y))
        draw.text((x + 2, y + height + 1), fit_text(draw, caption, width - 4), fill=INK, font=font_of(11))
    return sheet


def _key_cells(draw: ImageDraw.ImageDraw, keys: Sequence[str], width: float) -> tuple[int, list[tuple[float, float]]]:
    """The largest size of letters at which all keys fit side by side, and where each begins and ends: long words have
    wide keys, so that all share one size."""
    size, cells = 14, list[float]()
    for size in range(14, 5, -1):
        cells = [draw.textlength(key, font=font_of(size)) + KEY_MARGIN for key in keys]
        if sum(cells) <= width:
            break
    edges = [width * edge / sum(cells) for edge in accumulate(cells, initial=0.0)] if cells else []
    return size, list(pairwise(edges))


def _draw_key(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], key: str, held: bool, size: int
) -> None:
    draw.rounded_rectangle(box, 3, fill=LIT if held else FAINT)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, key, fill=PAPER if held else INK, font=font_of(size), anchor="mm")


def _draw_turn(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, turn: tuple[float, float]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=FAINT)
    pitch, yaw = (max(-1.0, min(1.0, degrees / FULL_TURN_DEG)) for degrees in turn)
    draw.line((x, y, x + yaw * radius, y - pitch * radius), fill=LIT, width=2)
    draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=INK)


def fit_text(draw: ImageDraw.ImageDraw, text: str, width: float) -> str:
    """`text`, cut to `width` pixels."""
    while len(text) > 1 and draw.textlength(text, font=font_of(11)) > width:
        text = text[:-2] + "…"
    return text


def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
