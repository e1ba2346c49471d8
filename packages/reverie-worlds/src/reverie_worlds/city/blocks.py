"""Builds the contents of a block: pavements with lamps and trees, then houses, towers, a park, a square, or water."""

from __future__ import annotations

import math

import numpy as np

from reverie_worlds.city import buildings, models
from reverie_worlds.city.buildings import BAY_M, Rect, inset, top
from reverie_worlds.city.chunk import Chunk
from reverie_worlds.city.plan import KERB_M, Block, Plan
from reverie_worlds.city.textures import LAYER
from reverie_worlds.panda.mesh import Mesh

KERB_STONE = (0.78, 0.77, 0.74, 1.0)


def fill_block(chunk: Chunk, plan: Plan, block: Block) -> None:
    """Add a whole block to its chunk."""
    rng = plan.rng(30, block.i, block.j)
    rect = (block.x0, block.y0, block.x1, block.y1)
    inner = inset(rect, plan.style.pavement_m)
    _pavement(chunk, rect, inner, "cobbles" if block.kind == "oldtown" and plan.city % 2 else "pavement")
    fill = {
        "towers": _towers, "oldtown": _row, "midrise": _row, "houses": _houses, "park": _park, "plaza": _plaza,
        "water": _water,
    }[block.kind]  # fmt: skip
    fill(chunk, inner, block.kind, rng, plan)
    _street_side(chunk, plan, rect, block.kind, rng)


def _pavement(chunk: Chunk, rect: Rect, inner: Rect, paving: str) -> None:
    x0, y0, x1, y1 = rect
    k = 0.32
    sides = [[(x0, y0), (x1, y0)], [(x1, y0), (x1, y1)], [(x1, y1), (x0, y1)], [(x0, y1), (x0, y0)]]
    faces = [[(*a, 0), (*b, 0), (*b, KERB_M), (*a, KERB_M)] for a, b in sides]
    chunk.near.quads(faces, (0.66, 0.65, 0.62, 1))
    ring(chunk.near, rect, inset(rect, k), KERB_M, LAYER["plain"], KERB_STONE)
    ring(chunk.near, inset(rect, k), inner, KERB_M, LAYER[paving])
    ring(chunk.far, rect, inner, KERB_M, LAYER[paving])


def ring(
    mesh: Mesh, outer: Rect, inner: Rect, z: float, layer: float, tint: models.RGBA = (1, 1, 1, 1), tile_m: float = 4.0
) -> None:
    """The level ground between two rectangles."""
    a0, b0, a1, b1 = outer
    c0, d0, c1, d1 = inner
    for piece in ((a0, b0, a1, d0), (a0, d1, a1, b1), (a0, d0, c0, d1), (c1, d0, a1, d1)):
        top(mesh, piece, z, layer, tint, tile_m)


def _street_side(chunk: Chunk, plan: Plan, rect: Rect, kind: str, rng: np.random.Generator) -> None:
    """Lamps, trees and small things along the kerb, on all four sides."""
    x0, y0, x1, y1 = rect
    green = {"towers": 0.4, "oldtown": 0.3, "houses": 0.75, "park": 0.3, "midrise": 0.7, "plaza": 0.5, "water": 0.6}[
        kind
    ]
    sort = "palm" if plan.style.name == "waterfront" else ("poplar" if plan.city % 3 == 0 else "broad")
    kinds = [_tree_pair(sort, k) for k in range(3)]
    edges = (
        (x0, y0, 1, 0, 90.0, x1 - x0), (x1, y0, 0, 1, 0.0, y1 - y0), (x1, y1, -1, 0, 270.0, x1 - x0),
        (x0, y1, 0, -1, 180.0, y1 - y0),
    )  # fmt: skip
    lamps = []
    for sx, sy, dx, dy, yaw, length in edges:
        inward = (-dy, dx)
        trees = rng.random() < green
        for n, along in enumerate(np.arange(7.0, length - 6.0, 7.5)):
            px, py = sx + dx * along + inward[0] * 0.75, sy + dy * along + inward[1] * 0.75
            if n % 3 == 1:
                lamps.append((px, py, yaw))
            elif trees:
                near, far = kinds[rng.integers(3)]
                turn = float(rng.uniform(0, 360))
                chunk.near.extend(near, (px, py, KERB_M), turn)
                chunk.far.extend(far, (px, py, KERB_M), turn)
                chunk.circles.append((px, py, 0.28))
            elif rng.random() < 0.4:
                _small_thing(chunk, px, py, rng)
    _lamp_posts(chunk, lamps)


_trees: dict[tuple[str, int], tuple[Mesh, Mesh]] = {}


def _tree_pair(kind: str, number: int) -> tuple[Mesh, Mesh]:
    """A tree in full and from far away, made once."""
    if (kind, number) not in _trees:
        _trees[kind, number] = (
            models.tree(kind, np.random.default_rng([9, number])),
            models.tree(kind, np.random.default_rng([9, number]), coarse=True),
        )
    return _trees[kind, number]


def _small_thing(chunk: Chunk, x: float, y: float, rng: np.random.Generator) -> None:
    z = KERB_M
    kind = rng.integers(4)
    if kind == 0:  # a bin
        models.prism(chunk.near, x, y, z, z + 0.95, 0.28, 0.32, (0.20, 0.30, 0.24, 1), 6)
    elif kind == 1:  # a hydrant
        models.prism(chunk.near, x, y, z, z + 0.7, 0.17, 0.12, (0.75, 0.16, 0.10, 1), 6)
    elif kind == 2:  # a letter box, or newspapers
        chunk.near.box((x - 0.3, y - 0.3, z), (x + 0.3, y + 0.3, z + 1.2), (0.15, 0.25, 0.5, 1))
    else:
        chunk.near.box((x - 0.55, y - 0.55, z), (x + 0.55, y + 0.55, z + 0.6), (0.55, 0.5, 0.45, 1))
        models.blob(chunk.near, (x, y, z + 0.85), (0.55, 0.55, 0.45), (0.36, 0.5, 0.22, 1), 6, 3, LAYER["leaves"])
    chunk.circles.append((x, y, 0.4))


def split(start: float, end: float, least: float, most: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """A stretch cut into pieces of whole window bays, between `least` and about `most` metres each."""
    edges = [start]
    while end - edges[-1] > most + least:
        edges.append(edges[-1] + round(rng.uniform(least, most) / BAY_M) * BAY_M)
    if end - edges[-1] > most:
        edges.append((edges[-1] + end) / 2)
    return list(zip(edges, [*edges[1:], end], strict=True))


def _row(chunk: Chunk, rect: Rect, kind: str, rng: np.random.Generator, plan: Plan) -> None:
    """Houses wall to wall round a courtyard."""
    x0, y0, x1, y1 = rect
    depth = float(rng.uniform(10, 13))
    if min(x1 - x0, y1 - y0) < 2 * depth + 5:
        depth = min(x1 - x0, y1 - y0) / 2
    lots = [(a, y0, b, y0 + depth) for a, b in split(x0, x1, 9, 16, rng)]
    lots += [(a, y1 - depth, b, y1) for a, b in split(x0, x1, 9, 16, rng)]
    if y1 - y0 > 2 * depth + 4:
        for a, b in split(y0 + depth, y1 - depth, 9, 16, rng):
            lots += [(x0, a, x0 + depth, b), (x1 - depth, a, x1, b)]
        yard = inset(rect, depth)
        for mesh in (chunk.near, chunk.far):
            top(mesh, yard, KERB_M, LAYER["grass" if rng.random() < 0.5 else "pavement"])
    floors = rng.integers(3, 6) if kind == "oldtown" else rng.integers(4, 9)
    for lot in lots:
        if rng.random() < 0.035:  # a gap between houses: a yard with a tree
            for mesh in (chunk.near, chunk.far):
                top(mesh, lot, KERB_M, LAYER["gravel"])
            plant(chunk, (lot[0] + lot[2]) / 2, (lot[1] + lot[3]) / 2, "broad", rng)
            continue
        n = max(2, int(floors + rng.integers(-1, 2)))
        buildings.town_house(chunk.near, chunk.far, lot, KERB_M, n, kind, rng)
        chunk.boxes.append(lot)


def _towers(chunk: Chunk, rect: Rect, kind: str, rng: np.random.Generator, plan: Plan) -> None:
    """A few high-rises that fill the block, with a lane between some of them."""
    for mesh in (chunk.near, chunk.far):
        top(mesh, rect, KERB_M, LAYER["pavement"], tile_m=4.0)
    columns = split(rect[0], rect[2], 20, 36, rng)
    for a, b in columns:
        for c, d in split(rect[1], rect[3], 20, 36, rng):
            if rng.random() < 0.06:
                plant(chunk, (a + b) / 2, (c + d) / 2, "broad", rng)
                continue
            gap = float(rng.choice((0.0, 0.0, 1.5)))
            lot = (a + gap, c + gap, b - gap, d - gap)
            floors = int(np.clip(rng.gamma(2.2, 5.5), 4, 34))
            buildings.tower(chunk.near, chunk.far, lot, KERB_M, floors, rng)
            chunk.boxes.append(lot)


def _houses(chunk: Chunk, rect: Rect, kind: str, rng: np.random.Generator, plan: Plan) -> None:
    """Detached houses with lawns, hedges and drives."""
    x0, y0, x1, y1 = rect
    for mesh in (chunk.near, chunk.far):
        top(mesh, rect, KERB_M, LAYER["grass"], (0.95, 1.0, 0.95, 1))
    deep = (y1 - y0) / 2
    for south in (True, False):
        for a, b in split(x0, x1, 15, 21, rng):
            w, d = rng.uniform(9.5, 11.5), rng.uniform(7.5, 9.5)
            back = rng.uniform(5, 8)
            hx = (a + b - w) / 2 + rng.uniform(-1, 1)
            hy = y0 + back if south else y1 - back - d
            house = (hx, hy, hx + w, hy + d)
            buildings.detached(chunk.near, chunk.far, house, KERB_M, rng)
            chunk.boxes.append(house)
            drive = (hx + 1, y0, hx + 4.5, hy) if south else (hx + w - 4.5, hy + d, hx + w - 1, y1)
            top(chunk.near, drive, KERB_M + 0.02, LAYER["pavement"])
            far_end = y0 + deep if south else y1 - deep
            lo, hi = sorted((far_end, y0 if south else y1))
            _hedge(chunk, (b - 0.4, lo + (0 if not south else 1), b + 0.4, hi - (0 if south else 1)), rng)
            edge = y0 + 0.4 if south else y1 - 1.2
            _hedge(chunk, (hx + 5.2, edge, b - 0.6, edge + 0.8), rng) if south else _hedge(
                chunk, (a + 0.6, edge, hx + w - 5.2, edge + 0.8), rng
            )
            for _ in range(rng.integers(1, 4)):
                tx = rng.uniform(a + 1.5, b - 1.5)
                ty = rng.uniform(hy + d + 2, far_end - 1) if south else rng.uniform(far_end + 1, hy - 2)
                plant(chunk, tx, ty, "broad" if rng.random() < 0.7 else "poplar", rng)
    _hedge(chunk, (x0 + 1, (y0 + y1) / 2 - 0.4, x1 - 1, (y0 + y1) / 2 + 0.4), rng)


def _hedge(chunk: Chunk, rect: Rect, rng: np.random.Generator) -> None:
    if rng.random() < 0.25 or rect[2] - rect[0] < 0.5 or rect[3] - rect[1] < 0.5:
        return
    x0, y0, x1, y1 = rect
    if rng.random() < 0.4:
        chunk.near.box((x0, y0, KERB_M), (x1, y1, KERB_M + 1.0), (0.92, 0.9, 0.86, 1))
    else:
        chunk.near.box((x0, y0, KERB_M), (x1, y1, KERB_M + rng.uniform(0.9, 1.5)), (0.30, 0.42, 0.18, 1))
    chunk.low.append(rect)


def plant(chunk: Chunk, x: float, y: float, kind: str, rng: np.random.Generator) -> None:
    """A tree."""
    near, far = _tree_pair(kind, int(rng.integers(3)))
    size, turn = float(rng.uniform(0.8, 1.25)), float(rng.uniform(0, 360))
    chunk.near.extend(near, (x, y, KERB_M), turn, size)
    chunk.far.extend(far, (x, y, KERB_M), turn, size)
    chunk.circles.append((x, y, 0.3 * size))


def _park(chunk: Chunk, rect: Rect, kind: str, rng: np.random.Generator, plan: Plan) -> None:
    """Lawns, two crossing paths, a pond or a fountain, trees and benches."""
    x0, y0, x1, y1 = rect
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    lawns = [(x0, y0, cx - 1.6, cy - 1.6), (cx + 1.6, y0, x1, cy - 1.6), (x0, cy + 1.6, cx - 1.6, y1),
             (cx + 1.6, cy + 1.6, x1, y1)]  # fmt: skip
    top(chunk.near, (cx - 1.6, y0, cx + 1.6, y1), KERB_M, LAYER["gravel"])
    top(chunk.near, (x0, cy - 1.6, cx - 1.6, cy + 1.6), KERB_M, LAYER["gravel"])
    top(chunk.near, (cx + 1.6, cy - 1.6, x1, cy + 1.6), KERB_M, LAYER["gravel"])
    top(chunk.far, rect, KERB_M, LAYER["grass"])
    for lawn in lawns:
        top(chunk.near, lawn, KERB_M, LAYER["grass"])
        for _ in range(int((lawn[2] - lawn[0]) * (lawn[3] - lawn[1]) / 95)):
            x, y = rng.uniform(lawn[0] + 1, lawn[2] - 1), rng.uniform(lawn[1] + 1, lawn[3] - 1)
            if math.hypot(x - cx, y - cy) > 6:
                plant(chunk, x, y, "broad" if rng.random() < 0.75 else "poplar", rng)
    fountain(chunk, cx, cy)


def fountain(chunk: Chunk, x: float, y: float) -> None:
    """A round basin with a column."""
    stone = (0.76, 0.73, 0.67, 1.0)
    models.prism(chunk.near, x, y, KERB_M, KERB_M + 0.55, 3.2, 3.2, stone, 12)
    models.blob(chunk.near, (x, y, KERB_M + 0.5), (3.1, 3.1, 0.06), (0.35, 0.55, 0.62, 0.3), 12, 2)
    models.prism(chunk.near, x, y, KERB_M, KERB_M + 2.4, 0.5, 0.22, stone, 7)
    models.blob(chunk.near, (x, y, KERB_M + 2.5), (0.9, 0.9, 0.22), stone, 8, 3)
    chunk.circles.append((x, y, 3.2))


def _plaza(chunk: Chunk, rect: Rect, kind: str, rng: np.random.Generator, plan: Plan) -> None:
    """A paved square: a fountain or a tall building in its middle, rows of trees in tubs."""
    for mesh in (chunk.near, chunk.far):
        top(mesh, rect, KERB_M, LAYER["cobbles"])
    x0, y0, x1, y1 = rect
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    if rng.random() < 0.5:
        r = min(x1 - x0, y1 - y0) * 0.22
        lot = (cx - r, cy - r, cx + r, cy + r)
        buildings.tower(chunk.near, chunk.far, lot, KERB_M, int(rng.integers(6, 18)), rng)
        chunk.boxes.append(lot)
    else:
        fountain(chunk, cx, cy)
    for x in np.arange(x0 + 4, x1 - 3, 9.0):
        for y in (y0 + 3.5, y1 - 3.5):
            chunk.near.box((x - 0.9, y - 0.9, KERB_M), (x + 0.9, y + 0.9, KERB_M + 0.5), (0.7, 0.68, 0.63, 1))
            plant(chunk, float(x), float(y), "broad", rng)
            chunk.low.append((float(x) - 0.9, y - 0.9, float(x) + 0.9, y + 0.9))


def _water(chunk: Chunk, rect: Rect, kind: str, rng: np.random.Generator, plan: Plan) -> None:
    """A basin of the canal: quay walls, a railing, water with boats."""
    x0, y0, x1, y1 = rect
    level = -1.4
    for mesh in (chunk.near, chunk.far):
        top(mesh, rect, level, LAYER["water"], (1, 1, 1, 0.25), 14.0)
    quay = [[(x1, y0), (x0, y0)], [(x1, y1), (x1, y0)], [(x0, y1), (x1, y1)], [(x0, y0), (x0, y1)]]
    faces = [[(*a, level), (*b, level), (*b, KERB_M), (*a, KERB_M)] for a, b in quay]
    for mesh in (chunk.near, chunk.far):
        mesh.quads(faces, (0.60, 0.57, 0.52, 1))
    rail = (0.80, 0.80, 0.78, 1.0)
    t = 0.12
    for low, high in (
        ((x0, y0), (x1, y0 + t)),
        ((x0, y1 - t), (x1, y1)),
        ((x0, y0), (x0 + t, y1)),
        ((x1 - t, y0), (x1, y1)),
    ):
        chunk.near.box((*low, KERB_M + 0.85), (*high, KERB_M + 1.0), rail, bottom=True)
        chunk.near.box((*low, KERB_M), (*high, KERB_M + 0.25), (0.62, 0.60, 0.56, 1))
    for _ in range(rng.integers(2, 5)):
        _boat(chunk.near, rng.uniform(x0 + 5, x1 - 5), rng.uniform(y0 + 6, y1 - 6), level, rng)
    chunk.low.append(rect)


def _boat(mesh: Mesh, x: float, y: float, z: float, rng: np.random.Generator) -> None:
    hull = Mesh()
    colour = (*models.CLOTHES[rng.integers(len(models.CLOTHES))], 1.0)
    hull.box((-1.2, -3.4, 0), (1.2, 2.2, 0.9), (0.92, 0.92, 0.9, 1))
    hull.quads([[(-1.2, 2.2, 0), (0, 4.2, 0.3), (0, 4.2, 1.1), (-1.2, 2.2, 0.9)][::-1]], (0.92, 0.92, 0.9, 1))
    hull.quads([[(1.2, 2.2, 0), (0, 4.2, 0.3), (0, 4.2, 1.1), (1.2, 2.2, 0.9)]], (0.92, 0.92, 0.9, 1))
    hull.quads([[(-1.2, 2.2, 0.9), (1.2, 2.2, 0.9), (0, 4.2, 1.1), (0, 4.2, 1.1)]], (0.8, 0.7, 0.55, 1))
    hull.box((-0.9, -2.2, 0.9), (0.9, 0.6, 2.1), colour)
    mesh.extend(hull, (x, y, z), float(rng.uniform(0, 360)))


def _lamp_posts(chunk: Chunk, points: list[tuple[float, float, float]]) -> None:
    """Street lamps at (x, y, yaw of the arm's side)."""
    lamp = models.street_lamp()
    for x, y, yaw in points:
        chunk.near.extend(lamp, (x, y, KERB_M), yaw)
        chunk.circles.append((x, y, 0.14))
        a = math.radians(yaw)
        chunk.lamps.append((x + 1.5 * math.cos(a), y - 1.5 * math.sin(a), 6.2))
