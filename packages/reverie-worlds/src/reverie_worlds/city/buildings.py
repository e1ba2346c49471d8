"""Buildings: boxes with painted facades, shop fronts, cornices, balconies, roofs; and detached houses."""

from __future__ import annotations

import numpy as np

from reverie_worlds.city.models import RGBA
from reverie_worlds.city.textures import FACADE_M, FLOOR_M, LAYER, SHOP_M
from reverie_worlds.panda.mesh import Mesh

BAY_M = FACADE_M / 4

Rect = tuple[float, float, float, float]
"""x0, y0, x1, y1 in metres."""

WALLS = {
    "towers": ("curtain", "curtain2", "ribbons", "concrete", "piers", "panels", "stone", "curtain"),
    "oldtown": ("stucco", "stucco2", "brick", "brick2", "stone", "stone2", "balconies", "balconies2"),
    "midrise": ("panels", "panels2", "concrete", "ribbons", "balconies", "piers", "brick2"),
}
TINTS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "stucco": ((1, 0.93, 0.78), (1, 0.82, 0.68), (0.93, 0.90, 0.86), (0.90, 0.72, 0.60), (0.98, 0.88, 0.66)),
    "balconies": ((1, 0.95, 0.86), (0.95, 0.85, 0.72), (0.86, 0.88, 0.90), (1.0, 0.80, 0.66)),
    "panels": ((1, 1, 1), (0.78, 0.86, 0.92), (0.95, 0.85, 0.74), (0.82, 0.80, 0.78)),
    "brick": ((1, 1, 1), (1.0, 0.88, 0.80), (0.82, 0.78, 0.78), (1.0, 0.95, 0.75)),
    "": ((1, 1, 1), (0.92, 0.94, 0.96), (1, 0.96, 0.90), (0.85, 0.85, 0.86)),
}


def walls(mesh: Mesh, rect: Rect, z0: float, z1: float, layer: float, floors: float, tint: RGBA) -> None:
    """Four facades; floors: how many storeys of the layer to show (4 are one repeat)."""
    x0, y0, x1, y1 = rect
    faces = [
        [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
        [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
        [(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)],
        [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)],
    ]
    across, along = max(1, round((x1 - x0) / BAY_M)) / 4, max(1, round((y1 - y0) / BAY_M)) / 4
    top = floors / 4
    uv = [(0, 0, across, top), (0, 0, along, top), (0, 0, across, top), (0, 0, along, top)]
    mesh.quads(faces, tint, uv, layer=layer)


def top(mesh: Mesh, rect: Rect, z: float, layer: float, tint: RGBA = (1, 1, 1, 1), tile_m: float = 8.0) -> None:
    """A level surface, its texture fixed to the world."""
    x0, y0, x1, y1 = rect
    quad = [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]
    uv = (x0 / tile_m, y0 / tile_m, x1 / tile_m, y1 / tile_m)
    mesh.quads([quad], tint, uv, normals=(0, 0, 1), layer=layer)


def inset(rect: Rect, by: float) -> Rect:
    x0, y0, x1, y1 = rect
    return x0 + by, y0 + by, x1 - by, y1 - by


def hipped(mesh: Mesh, rect: Rect, z: float, rise: float, run: float, layer: float, tint: RGBA) -> None:
    """A roof that leans in from all four sides by `run` over `rise`, flat (or a ridge) on top."""
    low, high = rect, inset(rect, run)
    xs, ys = [(low[0], low[1]), (low[2], low[1]), (low[2], low[3]), (low[0], low[3])], [
        (high[0], high[1]), (high[2], high[1]), (high[2], high[3]), (high[0], high[3])
    ]  # fmt: skip
    faces = [[(*xs[k], z), (*xs[(k + 1) % 4], z), (*ys[(k + 1) % 4], z + rise), (*ys[k], z + rise)] for k in range(4)]
    wide = max(rect[2] - rect[0], rect[3] - rect[1]) / 4
    mesh.quads(faces, tint, (0, 0, wide, max(rise, run) / 4), layer=layer)
    if high[2] - high[0] > 0.5 and high[3] - high[1] > 0.5:
        top(mesh, high, z + rise, LAYER["flat_roof"])


def gable(mesh: Mesh, rect: Rect, z: float, rise: float, layer: float, wall: RGBA, roof: RGBA) -> None:
    """A roof with its ridge along the longer side and walls at both ends."""
    x0, y0, x1, y1 = rect
    o = 0.5
    if x1 - x0 >= y1 - y0:
        ym = (y0 + y1) / 2
        slopes = [
            [(x0 - o, y0 - o, z - 0.2), (x1 + o, y0 - o, z - 0.2), (x1 + o, ym, z + rise), (x0 - o, ym, z + rise)],
            [(x1 + o, y1 + o, z - 0.2), (x0 - o, y1 + o, z - 0.2), (x0 - o, ym, z + rise), (x1 + o, ym, z + rise)],
        ]
        ends = [
            [(x1, y0, z), (x1, y1, z), (x1, ym, z + rise), (x1, ym, z + rise)],
            [(x0, y1, z), (x0, y0, z), (x0, ym, z + rise), (x0, ym, z + rise)],
        ]
    else:
        xm = (x0 + x1) / 2
        slopes = [
            [(x1 + o, y0 - o, z - 0.2), (x1 + o, y1 + o, z - 0.2), (xm, y1 + o, z + rise), (xm, y0 - o, z + rise)],
            [(x0 - o, y1 + o, z - 0.2), (x0 - o, y0 - o, z - 0.2), (xm, y0 - o, z + rise), (xm, y1 + o, z + rise)],
        ]
        ends = [
            [(x0, y0, z), (x1, y0, z), (xm, y0, z + rise), (xm, y0, z + rise)],
            [(x1, y1, z), (x0, y1, z), (xm, y1, z + rise), (xm, y1, z + rise)],
        ]
    mesh.quads(slopes, roof, (0, 0, 3, 1.5), layer=layer)
    mesh.quads(ends, wall)


def tint_of(wall: str, rng: np.random.Generator) -> RGBA:
    """A paint for this kind of wall; glass is glossy."""
    family = next((name for name in TINTS if name and wall.startswith(name)), "")
    r, g, b = TINTS[family][rng.integers(len(TINTS[family]))]
    tone = rng.uniform(0.9, 1.05)
    gloss = 0.55 if wall.startswith("curtain") else 1.0
    return r * tone, g * tone, b * tone, gloss


def town_house(near: Mesh, far: Mesh, rect: Rect, z: float, floors: int, kind: str, rng: np.random.Generator) -> None:
    """A house in a row: a ground floor of shops or flats, `floors` above it, a cornice, a roof."""
    wall = str(rng.choice(WALLS[kind]))
    tint = tint_of(wall, rng)
    ground = f"shops{rng.integers(5)}" if rng.random() < 0.62 else "entrance"
    z1 = z + SHOP_M
    z2 = z1 + floors * FLOOR_M
    stone: RGBA = (0.80, 0.77, 0.71, 1)
    for mesh in (near, far):
        walls(mesh, rect, z, z1, LAYER[ground], 4, (1, 1, 1, 1))
        walls(mesh, rect, z1, z2, LAYER[wall], floors, tint)
    if ground != "entrance" and rng.random() < 0.7:
        awnings(near, rect, z + 2.95, rng)
    x0, y0, x1, y1 = rect
    near.box((x0 - 0.3, y0 - 0.3, z2 - 0.35), (x1 + 0.3, y1 + 0.3, z2 + 0.15), stone, bottom=True)
    if kind == "oldtown" and rng.random() < 0.65:
        layer = LAYER["slate" if rng.random() < 0.5 else "tiles"]
        rise = rng.uniform(2.2, 3.6)
        run = min(rise * rng.uniform(0.5, 1.1), (x1 - x0) / 2 - 0.3, (y1 - y0) / 2 - 0.3)
        for mesh in (near, far):
            hipped(mesh, rect, z2 + 0.15, rise, run, layer, (1, 1, 1, 1))
        for _ in range(rng.integers(1, 3)):
            cx, cy = rng.uniform(x0 + 1, x1 - 1.5), rng.uniform(y0 + 1, y1 - 1.5)
            near.box((cx, cy, z2), (cx + 0.7, cy + 0.9, z2 + rise + 1.2), (0.55, 0.36, 0.30, 1))
    else:
        for mesh in (near, far):
            top(mesh, rect, z2 + 0.16, LAYER["flat_roof"])
        roof_things(near, rect, z2 + 0.15, rng)
    if wall.startswith(("balconies", "panels", "concrete")) and rng.random() < 0.7:
        real_balconies(near, rect, z1, floors, rng)


def awnings(mesh: Mesh, rect: Rect, z: float, rng: np.random.Generator) -> None:
    """Slanted cloth over the shop windows, on all sides that have room."""
    x0, y0, x1, y1 = rect
    colours = ((0.70, 0.15, 0.13, 1), (0.12, 0.36, 0.24, 1), (0.16, 0.26, 0.46, 1), (0.86, 0.78, 0.62, 1))
    colour = colours[rng.integers(len(colours))]
    out, drop = 1.2, 0.5
    a, b = x0 + 0.6, x1 - 0.6
    c, d = y0 + 0.6, y1 - 0.6
    mesh.quads(
        [
            [(a, y0 - out, z - drop), (b, y0 - out, z - drop), (b, y0, z), (a, y0, z)],
            [(b, y1 + out, z - drop), (a, y1 + out, z - drop), (a, y1, z), (b, y1, z)],
            [(x1 + out, c, z - drop), (x1 + out, d, z - drop), (x1, d, z), (x1, c, z)],
            [(x0 - out, d, z - drop), (x0 - out, c, z - drop), (x0, c, z), (x0, d, z)],
        ],
        colour,
    )


def real_balconies(mesh: Mesh, rect: Rect, z: float, floors: int, rng: np.random.Generator) -> None:
    """One stack of balconies on each long side."""
    x0, y0, x1, y1 = rect
    at = BAY_M * int(rng.integers(0, max(1, int((x1 - x0) // BAY_M) - 1)))
    pale: RGBA = (0.80, 0.79, 0.77, 1)
    for k in range(floors):
        h = z + k * FLOOR_M + 0.1
        mesh.box((x0 + at, y0 - 1.0, h), (x0 + at + 2.8, y0, h + 0.95), pale, bottom=True)
        mesh.box((x0 + at, y1, h), (x0 + at + 2.8, y1 + 1.0, h + 0.95), pale, bottom=True)


def roof_things(mesh: Mesh, rect: Rect, z: float, rng: np.random.Generator) -> None:
    """Adds the fittings of a flat roof: a parapet, a lift's hut, boxes of air conditioning, sometimes a water tank."""
    x0, y0, x1, y1 = rect
    w, d = x1 - x0, y1 - y0
    wall: RGBA = (0.62, 0.60, 0.57, 1)
    t = 0.3
    for low, high in (
        ((x0, y0), (x1, y0 + t)),
        ((x0, y1 - t), (x1, y1)),
        ((x0, y0), (x0 + t, y1)),
        ((x1 - t, y0), (x1, y1)),
    ):
        mesh.box((*low, z), (*high, z + 0.7), wall)
    hx, hy = x0 + w * rng.uniform(0.2, 0.5), y0 + d * rng.uniform(0.2, 0.5)
    mesh.box((hx, hy, z), (hx + min(4, w / 3), hy + min(4, d / 3), z + 2.8), wall)
    for _ in range(rng.integers(1, 4)):
        ax, ay = x0 + rng.uniform(0.1, 0.8) * w, y0 + rng.uniform(0.1, 0.8) * d
        mesh.box((ax, ay, z), (ax + 1.6, ay + 1.2, z + 1.1), (0.72, 0.73, 0.74, 1))


def tower(near: Mesh, far: Mesh, rect: Rect, z: float, floors: int, rng: np.random.Generator) -> None:
    """A high-rise: lobby or shops below, one to three steps back on the way up, things on its roof."""
    wall = str(rng.choice(WALLS["towers"]))
    tint = tint_of(wall, rng)
    ground = "lobby" if rng.random() < 0.55 else f"shops{rng.integers(5)}"
    z1 = z + SHOP_M + 1
    for mesh in (near, far):
        walls(mesh, rect, z, z1, LAYER[ground], 4, (1, 1, 1, 1))
    near.box(
        (rect[0] - 0.4, rect[1] - 0.4, z1 - 0.5), (rect[2] + 0.4, rect[3] + 0.4, z1), (0.5, 0.5, 0.5, 1), bottom=True
    )
    steps = 1 if floors < 9 else int(rng.integers(1, 4))
    here, low = rect, z1
    shares = np.sort(rng.uniform(0.3, 0.9, steps - 1)) if steps > 1 else np.zeros(0)
    tops = [*(int(s * floors) for s in shares), floors]
    done = 0
    for k, upto in enumerate(tops):
        storeys = max(upto - done, 1)
        high = low + storeys * FLOOR_M
        for mesh in (near, far):
            walls(mesh, here, low, high, LAYER[wall], storeys, tint)
            top(mesh, here, high, LAYER["flat_roof"])
        done, low = upto, high
        if k < len(tops) - 1:
            by = rng.uniform(1.5, 3.5)
            if min(here[2] - here[0], here[3] - here[1]) > 2 * by + 8:
                here = inset(here, by)
    roof_things(near, here, low, rng)
    if floors > 14 and rng.random() < 0.5:
        cx, cy = (here[0] + here[2]) / 2, (here[1] + here[3]) / 2
        near.box((cx - 0.25, cy - 0.25, low), (cx + 0.25, cy + 0.25, low + 12), (0.7, 0.2, 0.18, 1))


def detached(near: Mesh, far: Mesh, rect: Rect, z: float, rng: np.random.Generator) -> None:
    """A house with a garden round it: one or two storeys under a gable."""
    storeys = 1 if rng.random() < 0.4 else 2
    tints = ((1, 1, 1, 1), (0.92, 0.86, 0.74, 1), (0.74, 0.80, 0.84, 1), (0.80, 0.84, 0.74, 1), (0.90, 0.74, 0.66, 1))
    tint = tints[rng.integers(len(tints))]
    roofs = ((1, 1, 1, 1), (0.8, 0.75, 0.75, 1), (0.7, 0.66, 0.66, 1))
    roof, layer = roofs[rng.integers(len(roofs))], LAYER["tiles" if rng.random() < 0.55 else "slate"]
    z1 = z + 3.2
    z2 = z1 + (storeys - 1) * 3.0
    for mesh in (near, far):
        walls(mesh, rect, z, z1, LAYER["garage"], 4, tint)
        if storeys > 1:
            walls(mesh, rect, z1, z2, LAYER["siding"], 1, tint)
        gable(mesh, rect, z2, rng.uniform(2.0, 3.2), layer, tint, roof)
    cx = rect[0] + (rect[2] - rect[0]) * rng.uniform(0.2, 0.8)
    cy = (rect[1] + rect[3]) / 2 + 0.8
    near.box((cx, cy, z2), (cx + 0.8, cy + 0.8, z2 + 4.0), (0.55, 0.36, 0.30, 1))
