"""The city's surfaces, painted with numpy: one texture array, each layer 256 x 256 RGBA that repeats.

Alpha is the emission of a spot when the lamps are on (lit windows, signs).  A facade layer is 12 m wide and
four floors of 3.3 m high; a shop layer is 12 m wide and one ground floor of 4 m high.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from reverie_worlds.panda.mesh import tileable_noise

SIZE_PX = 256
FACADE_M = 12.0
FLOOR_M = 3.3
SHOP_M = 4.0

Canvas = npt.NDArray[np.float32]
RGB = tuple[float, float, float]

LIT = ((0.42, 0.33, 0.18), (0.44, 0.38, 0.27), (0.36, 0.35, 0.33), (0.46, 0.30, 0.14))
"""Colours of lit windows by day: dim, so that at night they can be made to shine."""


def canvas(rgb: RGB, rng: np.random.Generator, grain: float = 0.03, stains: float = 0.06) -> Canvas:
    """A wall of one colour with grain and stains, `(256, 256, 4)` of 0..1, shining nowhere."""
    whole = np.zeros((SIZE_PX, SIZE_PX, 4), np.float32)
    shade = 1 + stains * (tileable_noise(rng, SIZE_PX, 3, 5) - 0.5) * 2
    shade += rng.normal(0, grain, shade.shape).astype(np.float32)
    whole[:, :, :3] = np.asarray(rgb, np.float32) * shade[:, :, None]
    return whole


def rect(a: Canvas, x0: float, y0: float, x1: float, y1: float, rgb: RGB, shine: float = 0.0) -> None:
    """Fill a rectangle, pixels from the top left."""
    part = a[max(int(y0), 0) : int(y1), max(int(x0), 0) : int(x1)]
    part[:, :, :3] = rgb
    part[:, :, 3] = shine


def shade(a: Canvas, x0: float, y0: float, x1: float, y1: float, factor: float) -> None:
    """Darken or lighten a rectangle."""
    a[max(int(y0), 0) : int(y1), max(int(x0), 0) : int(x1), :3] *= factor


def glass(a: Canvas, x0: float, y0: float, x1: float, y1: float, rng: np.random.Generator, lit: float = 0.4) -> None:
    """A pane: dark with some sky in it, or a room behind it that may be lit."""
    if rng.random() < lit:
        rect(a, x0, y0, x1, y1, LIT[rng.integers(len(LIT))], float(rng.uniform(0.45, 1.0)))
        if rng.random() < 0.6:
            shade(a, x0, y0, x1, y0 + (y1 - y0) * rng.uniform(0.2, 0.5), 0.75)
        return
    base = np.array((0.16, 0.20, 0.26)) * rng.uniform(0.7, 1.5)
    rows = np.linspace(1.5, 0.8, max(int(y1) - int(y0), 1))[:, None, None]
    part = a[int(y0) : int(y1), int(x0) : int(x1)]
    part[:, :, :3] = base * rows[: len(part)]
    part[:, :, 3] = 0
    if rng.random() < 0.35:  # curtains
        rect(a, x0, y0, x0 + (x1 - x0) * 0.25, y1, (0.62, 0.6, 0.55))
        rect(a, x1 - (x1 - x0) * 0.25, y0, x1, y1, (0.62, 0.6, 0.55))


def window(
    a: Canvas, x: float, y: float, w: float, h: float, rng: np.random.Generator, frame: RGB, bars: tuple[int, int]
) -> None:
    """A framed window with bars (columns, rows), a sill and its shadow."""
    shade(a, x - 3, y - 3, x + w + 3, y, 0.72)
    rect(a, x - 2, y - 1, x + w + 2, y + h + 2, frame)
    glass(a, x, y + 1, x + w, y + h, rng)
    for k in range(1, bars[0]):
        rect(a, x + w * k / bars[0] - 1, y, x + w * k / bars[0] + 1, y + h, frame)
    for k in range(1, bars[1]):
        rect(a, x, y + h * k / bars[1] - 1, x + w, y + h * k / bars[1] + 1, frame)
    rect(a, x - 4, y + h + 2, x + w + 4, y + h + 5, (0.86, 0.84, 0.8))
    shade(a, x - 4, y + h + 5, x + w + 4, y + h + 9, 0.75)


def _cells(columns: int = 4, rows: int = 4) -> list[tuple[int, int]]:
    return [(SIZE_PX * c // columns, SIZE_PX * r // rows) for r in range(rows) for c in range(columns)]


def stucco(rng: np.random.Generator) -> Canvas:
    a = canvas((0.93, 0.91, 0.87), rng)
    for x, y in _cells():
        shutter = (0.33, 0.43, 0.40) if rng.random() < 0.9 else (0.45, 0.36, 0.28)
        window(a, x + 22, y + 14, 20, 34, rng, (0.9, 0.88, 0.84), (2, 2))
        rect(a, x + 11, y + 13, x + 20, y + 50, shutter)
        rect(a, x + 44, y + 13, x + 53, y + 50, shutter)
    return a


def brick(rng: np.random.Generator) -> Canvas:
    a = canvas((0.62, 0.42, 0.34), rng, 0.05, 0.12)
    a[::4, :, :3] *= 0.84
    for x, y in _cells():
        rect(a, x + 17, y + 9, x + 47, y + 14, (0.82, 0.78, 0.7))
        window(a, x + 19, y + 14, 26, 36, rng, (0.88, 0.86, 0.82), (1, 2))
    return a


def stone(rng: np.random.Generator) -> Canvas:
    a = canvas((0.84, 0.80, 0.72), rng, 0.03, 0.1)
    a[::16, :, :3] *= 0.9
    for y in range(0, SIZE_PX, 64):
        rect(a, 0, y, SIZE_PX, y + 4, (0.9, 0.87, 0.8))
        shade(a, 0, y + 4, SIZE_PX, y + 8, 0.7)
    for x, y in _cells():
        rect(a, x + 16, y + 12, x + 48, y + 54, (0.9, 0.87, 0.8))
        window(a, x + 20, y + 17, 24, 34, rng, (0.35, 0.33, 0.3), (2, 1))
    return a


def curtain_wall(rng: np.random.Generator) -> Canvas:
    a = canvas((0.36, 0.48, 0.58), rng, 0.01, 0.15)
    for x, y in _cells(8, 8):
        tone = rng.uniform(0.75, 1.2)
        rect(a, x, y, x + 32, y + 32, (0.30 * tone, 0.42 * tone, 0.52 * tone))
        if rng.random() < 0.22:
            rect(a, x, y, x + 32, y + 22, LIT[rng.integers(len(LIT))], float(rng.uniform(0.3, 0.9)))
        rect(a, x, y + 22, x + 32, y + 32, (0.20, 0.27, 0.33))
        rect(a, x, y, x + 3, y + 32, (0.62, 0.66, 0.7))
        rect(a, x, y, x + 32, y + 2, (0.55, 0.6, 0.64))
    return a


def ribbons(rng: np.random.Generator) -> Canvas:
    a = canvas((0.80, 0.79, 0.76), rng, 0.02, 0.08)
    for y in range(0, SIZE_PX, 64):
        for x in range(0, SIZE_PX, 32):
            glass(a, x, y + 16, x + 32, y + 48, rng, 0.35)
            rect(a, x, y + 16, x + 2, y + 48, (0.25, 0.25, 0.26))
        shade(a, 0, y + 48, SIZE_PX, y + 52, 0.75)
        rect(a, 0, y + 14, SIZE_PX, y + 16, (0.3, 0.3, 0.31))
    return a


def concrete(rng: np.random.Generator) -> Canvas:
    a = canvas((0.66, 0.64, 0.60), rng, 0.03, 0.14)
    for x, y in _cells():
        shade(a, x + 6, y + 6, x + 58, y + 12, 0.55)
        rect(a, x + 6, y + 10, x + 58, y + 56, (0.42, 0.41, 0.4))
        glass(a, x + 9, y + 14, x + 31, y + 46, rng)
        glass(a, x + 33, y + 14, x + 55, y + 46, rng)
        rect(a, x + 9, y + 47, x + 55, y + 55, (0.58, 0.42, 0.30) if rng.random() < 0.5 else (0.55, 0.55, 0.53))
    return a


def balconies(rng: np.random.Generator) -> Canvas:
    a = canvas((0.95, 0.92, 0.84), rng)
    for x, y in _cells():
        rect(a, x + 17, y + 8, x + 47, y + 56, (0.97, 0.95, 0.9))
        window(a, x + 21, y + 12, 22, 40, rng, (0.5, 0.4, 0.3), (2, 1))
        for k in range(x + 12, x + 53, 4):
            rect(a, k, y + 40, k + 1.5, y + 56, (0.14, 0.14, 0.15))
        rect(a, x + 12, y + 39, x + 52, y + 41, (0.12, 0.12, 0.13))
        rect(a, x + 10, y + 55, x + 54, y + 59, (0.8, 0.77, 0.7))
        shade(a, x + 10, y + 59, x + 54, y + 64, 0.68)
    return a


def piers(rng: np.random.Generator) -> Canvas:
    a = canvas((0.78, 0.68, 0.55), rng, 0.03, 0.1)
    for x, y in _cells(4, 4):
        rect(a, x + 14, y, x + 50, y + 64, (0.40, 0.33, 0.28))
        glass(a, x + 16, y + 8, x + 31, y + 46, rng)
        glass(a, x + 33, y + 8, x + 48, y + 46, rng)
        rect(a, x + 30, y, x + 34, y + 64, (0.66, 0.57, 0.46))
        shade(a, x + 50, y, x + 53, y + 64, 0.8)
    return a


def panels(rng: np.random.Generator) -> Canvas:
    a = canvas((0.88, 0.88, 0.87), rng, 0.015, 0.05)
    for x, y in _cells():
        tone = rng.uniform(0.82, 1.0)
        rect(a, x, y, x + 63, y + 63, (0.9 * tone, 0.89 * tone, 0.87 * tone))
        w = 50 if rng.random() < 0.4 else 24
        left = x + 7 if rng.random() < 0.5 else x + 57 - w
        rect(a, left - 2, y + 10, left + w + 2, y + 54, (0.2, 0.2, 0.22))
        glass(a, left, y + 12, left + w, y + 52, rng)
        rect(a, x, y, x + 1.5, y + 64, (0.6, 0.6, 0.6))
        rect(a, x, y, x + 64, y + 2, (0.6, 0.6, 0.6))
    return a


def siding(rng: np.random.Generator) -> Canvas:
    a = canvas((0.93, 0.93, 0.9), rng, 0.01, 0.04)
    a[::6, :, :3] *= 0.86
    for x, y in _cells(2, 4):
        rect(a, x + 38, y + 8, x + 90, y + 54, (0.97, 0.97, 0.95))
        window(a, x + 42, y + 12, 20, 36, rng, (0.95, 0.95, 0.93), (2, 2))
        window(a, x + 66, y + 12, 20, 36, rng, (0.95, 0.95, 0.93), (2, 2))
    return a


SIGNS: tuple[RGB, ...] = (
    (0.65, 0.12, 0.12), (0.10, 0.25, 0.50), (0.12, 0.38, 0.22), (0.85, 0.60, 0.12), (0.15, 0.15, 0.17),
    (0.50, 0.18, 0.40), (0.82, 0.80, 0.74), (0.08, 0.42, 0.45), (0.75, 0.35, 0.12),
)  # fmt: skip


def shops(rng: np.random.Generator) -> Canvas:
    """Three or four shops in a row: a sign, an awning's edge, a lit window, a door."""
    a = canvas((0.5, 0.47, 0.43), rng, 0.03, 0.1)
    edges = (0, 86, 171, 256) if rng.random() < 0.6 else (0, 64, 128, 192, 256)
    for x0, x1 in pairwise(edges):
        sign = SIGNS[rng.integers(len(SIGNS))]
        frame = tuple(0.6 * v for v in sign) if rng.random() < 0.5 else (0.2, 0.19, 0.18)
        rect(a, x0 + 4, 34, x1 - 4, 256, (frame[0], frame[1], frame[2]))
        rect(a, x0 + 3, 22, x1 - 3, 66, sign, 0.35)
        ink = (0.95, 0.93, 0.86) if sum(sign) < 1.4 else (0.15, 0.12, 0.1)
        x = x0 + 14 + int(rng.integers(8))
        while x < x1 - 18:
            w = int(rng.integers(4, 11))
            if rng.random() < 0.85:
                rect(a, x, 34, x + w, 54, ink, 0.9)
            x += w + 3
        door = x0 + 10 if rng.random() < 0.5 else x1 - 36
        warm = LIT[rng.integers(len(LIT))]
        rect(a, x0 + 10, 78, x1 - 10, 222, warm, 0.8)
        for _ in range(7):  # what is in the window
            x, w, h = rng.uniform(x0 + 10, x1 - 22), rng.uniform(6, 16), rng.uniform(14, 60)
            tone = rng.uniform(0.15, 0.6, 3)
            rect(a, x, 222 - h, min(x + w, x1 - 10), 222, (tone[0], tone[1], tone[2]), 0.4)
        a[78:120, x0 + 10 : x1 - 10, :3] = a[78:120, x0 + 10 : x1 - 10, :3] * 0.6 + np.array((0.10, 0.13, 0.17))
        rect(a, door, 86, door + 26, 250, (0.12, 0.12, 0.13))
        rect(a, door + 4, 92, door + 22, 240, warm, 0.55)
    rect(a, 0, 248, SIZE_PX, 256, (0.32, 0.31, 0.3))
    rect(a, 0, 0, SIZE_PX, 16, (0.72, 0.69, 0.63))
    shade(a, 0, 16, SIZE_PX, 23, 0.55)
    return a


def entrance(rng: np.random.Generator) -> Canvas:
    """A ground floor of flats: rusticated stone, tall windows and one big door."""
    a = canvas((0.74, 0.70, 0.63), rng, 0.03, 0.1)
    a[::21, :, :3] *= 0.72
    rect(a, 0, 0, SIZE_PX, 14, (0.85, 0.82, 0.75))
    shade(a, 0, 14, SIZE_PX, 22, 0.6)
    for x in (14, 142, 206):
        window(a, x, 62, 36, 112, rng, (0.88, 0.86, 0.8), (2, 3))
    rect(a, 74, 46, 124, 252, (0.9, 0.87, 0.8))
    rect(a, 80, 56, 118, 252, SIGNS[rng.integers(3)])
    rect(a, 80, 56, 118, 86, (0.5, 0.42, 0.25), 0.9)
    rect(a, 98, 86, 100, 252, (0.1, 0.1, 0.1))
    return a


def lobby(rng: np.random.Generator) -> Canvas:
    """The glass ground floor of an office."""
    a = canvas((0.3, 0.31, 0.33), rng, 0.01, 0.05)
    for x in range(0, SIZE_PX, 64):
        rect(a, x + 6, 30, x + 60, 244, (0.40, 0.37, 0.30), 0.55)
        rect(a, x + 6, 30, x + 60, 90, (0.26, 0.30, 0.34), 0.3)
        rect(a, x + 32, 30, x + 34, 244, (0.2, 0.2, 0.21))
    rect(a, 0, 0, SIZE_PX, 26, (0.6, 0.6, 0.6))
    shade(a, 0, 20, SIZE_PX, 30, 0.6)
    return a


def asphalt(rng: np.random.Generator) -> Canvas:
    return canvas((0.36, 0.36, 0.37), rng, 0.03, 0.12)


PAINT: RGB = (0.82, 0.82, 0.78)


def street(rng: np.random.Generator) -> Canvas:
    """Half a street: kerb at the left (5.2 m), the middle line at the right; 12 m long."""
    a = asphalt(rng)
    rect(a, 0, 0, 12, SIZE_PX, (0.45, 0.45, 0.44))
    a[:, 120:180, :3] *= 0.9  # where wheels and oil have been
    rect(a, 250, 0, 256, 128, PAINT)
    for y in (0, 128):
        rect(a, 12, y, 96, y + 3, (0.62, 0.62, 0.6))
    rect(a, 94, 0, 97, SIZE_PX, (0.56, 0.56, 0.54))
    return a


def avenue(rng: np.random.Generator) -> Canvas:
    """Half an avenue: kerb at the left (8.6 m), a double line at the right; 12 m long."""
    a = asphalt(rng)
    rect(a, 0, 0, 8, SIZE_PX, (0.45, 0.45, 0.44))
    rect(a, 58, 0, 60, SIZE_PX, (0.56, 0.56, 0.54))
    rect(a, 154, 0, 158, 110, PAINT)
    rect(a, 246, 0, 250, SIZE_PX, (0.85, 0.66, 0.22))
    rect(a, 253, 0, 256, SIZE_PX, (0.85, 0.66, 0.22))
    return a


def zebra(rng: np.random.Generator) -> Canvas:
    """A crossing: u across the road, stripes of half a metre each 1.1 m when 8.8 m wide."""
    a = asphalt(rng)
    for x in range(8, SIZE_PX, 32):
        rect(a, x, 24, x + 17, 232, PAINT)
    return a


def pavement(rng: np.random.Generator) -> Canvas:
    a = canvas((0.64, 0.62, 0.58), rng, 0.02, 0.08)
    for x, y in _cells(4, 4):
        a[y : y + 64, x : x + 64, :3] *= rng.uniform(0.92, 1.06)
    a[::64, :, :3] *= 0.75
    a[:, ::64, :3] *= 0.75
    return a


def cobbles(rng: np.random.Generator) -> Canvas:
    a = canvas((0.58, 0.53, 0.47), rng, 0.03, 0.1)
    for x, y in _cells(16, 16):
        a[y : y + 16, x : x + 16, :3] *= rng.uniform(0.8, 1.12)
    a[::16, :, :3] *= 0.75
    a[:, ::16, :3] *= 0.75
    return a


def grass(rng: np.random.Generator) -> Canvas:
    a = canvas((0.38, 0.50, 0.22), rng, 0.10, 0.22)
    a[:, :, 0] *= 0.9 + 0.2 * tileable_noise(rng, SIZE_PX, 5, 3)
    return a


def gravel(rng: np.random.Generator) -> Canvas:
    return canvas((0.72, 0.64, 0.52), rng, 0.06, 0.1)


def water(rng: np.random.Generator) -> Canvas:
    a = canvas((0.13, 0.24, 0.28), rng, 0.02, 0.35)
    ripples = tileable_noise(rng, SIZE_PX, 14, 3) > 0.66
    a[ripples, :3] *= 1.35
    return a


def leaves(rng: np.random.Generator) -> Canvas:
    a = canvas((0.72, 0.80, 0.55), rng, 0.16, 0.3)
    a[:, :, :3] *= np.where(tileable_noise(rng, SIZE_PX, 20, 3) > 0.55, 1.25, 0.72)[:, :, None]
    return a


def tiles(rng: np.random.Generator) -> Canvas:
    a = canvas((0.66, 0.38, 0.27), rng, 0.04, 0.2)
    for y in range(0, SIZE_PX, 16):
        a[y : y + 5, :, :3] *= 0.72
    a[:, ::12, :3] *= 0.85
    return a


def slate(rng: np.random.Generator) -> Canvas:
    a = canvas((0.40, 0.42, 0.46), rng, 0.04, 0.15)
    for y in range(0, SIZE_PX, 16):
        a[y : y + 3, :, :3] *= 0.7
    return a


def flat_roof(rng: np.random.Generator) -> Canvas:
    return canvas((0.50, 0.49, 0.47), rng, 0.05, 0.18)


def fence(rng: np.random.Generator) -> Canvas:
    a = canvas((0.85, 0.82, 0.76), rng, 0.03, 0.1)
    a[:, ::16, :3] *= 0.5
    a[:, 1::16, :3] *= 0.7
    return a


def plain(rng: np.random.Generator) -> Canvas:
    return np.concatenate([np.ones((SIZE_PX, SIZE_PX, 3), np.float32), np.zeros((SIZE_PX, SIZE_PX, 1), np.float32)], 2)


def shining(rng: np.random.Generator) -> Canvas:
    return np.ones((SIZE_PX, SIZE_PX, 4), np.float32)


def garage(rng: np.random.Generator) -> Canvas:
    """A house's ground floor: a garage door and a front door; 12 m wide."""
    a = siding(rng)
    rect(a, 0, 0, SIZE_PX, SIZE_PX, (0.9, 0.9, 0.87))
    a[::12, :, :3] *= 0.88
    rect(a, 20, 70, 120, 256, (0.97, 0.97, 0.95))
    rect(a, 26, 78, 114, 256, (0.78, 0.78, 0.76))
    for y in range(78, 256, 28):
        rect(a, 26, y, 114, y + 3, (0.6, 0.6, 0.58))
    rect(a, 146, 60, 186, 256, (0.97, 0.97, 0.95))
    rect(a, 152, 68, 180, 256, SIGNS[rng.integers(3)])
    rect(a, 158, 76, 174, 120, (0.4, 0.33, 0.2), 0.9)
    window(a, 204, 80, 36, 90, rng, (0.95, 0.95, 0.93), (2, 2))
    return a


PAINTERS: tuple[tuple[str, Callable[[np.random.Generator], Canvas]], ...] = (
    ("plain", plain), ("shining", shining), ("asphalt", asphalt), ("street", street), ("avenue", avenue),
    ("zebra", zebra), ("pavement", pavement), ("cobbles", cobbles), ("grass", grass), ("gravel", gravel),
    ("water", water), ("leaves", leaves), ("tiles", tiles), ("slate", slate), ("flat_roof", flat_roof),
    ("fence", fence), ("stucco", stucco), ("stucco2", stucco), ("brick", brick), ("brick2", brick), ("stone", stone),
    ("stone2", stone), ("curtain", curtain_wall), ("curtain2", curtain_wall), ("ribbons", ribbons),
    ("concrete", concrete), ("balconies", balconies), ("balconies2", balconies), ("piers", piers), ("panels", panels),
    ("panels2", panels), ("siding", siding), ("garage", garage), ("shops0", shops), ("shops1", shops),
    ("shops2", shops), ("shops3", shops), ("shops4", shops), ("entrance", entrance), ("lobby", lobby),
)  # fmt: skip

LAYER = {name: float(k) for k, (name, _) in enumerate(PAINTERS)}
"""The number of each surface in the array."""


@cache
def paint_layers() -> npt.NDArray[np.uint8]:
    """All layers, `(n, 256, 256, 4)` uint8; the same in every city."""
    whole = [painter(np.random.default_rng([77, k])) for k, (_, painter) in enumerate(PAINTERS)]
    return (np.clip(np.stack(whole), 0, 1) * 255 + 0.5).astype(np.uint8)
