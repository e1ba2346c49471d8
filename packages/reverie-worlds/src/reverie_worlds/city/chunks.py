"""One grid cell of the city as meshes and obstacles: its junction, two roads, and the block if it starts here."""

from __future__ import annotations

import numpy as np

from reverie_worlds.city import models
from reverie_worlds.city.blocks import fill_block
from reverie_worlds.city.buildings import Rect, top
from reverie_worlds.city.chunk import Chunk, NoMesh
from reverie_worlds.city.plan import EAST, HALF_AVENUE_M, KERB_M, NORTH, STEPS, Plan
from reverie_worlds.city.textures import LAYER
from reverie_worlds.panda.mesh import Mesh

ZEBRA_M = 3.4
ZEBRA_GAP_M = 0.6
"""A crossing lies this far out from the junction and is so wide."""

LANE_M = 3.2
PARK_SHARE = 0.42


def build_chunk(plan: Plan, i: int, j: int, *, detailed: bool = True) -> Chunk:
    """Everything of cell (i, j), the same every time; without its near mesh unless `detailed`."""
    chunk = Chunk() if detailed else Chunk(near=NoMesh())
    _junction(chunk, plan, i, j)
    for direction in (NORTH, EAST):
        if plan.arm(i, j, direction):
            _road(chunk, plan, i, j, direction)
    block = plan.block_at(i, j)
    if (block.i, block.j) == (i, j):
        fill_block(chunk, plan, block)
    return chunk


def has_signals(plan: Plan, i: int, j: int) -> bool:
    """Tests whether junction (i, j) has traffic lights: every crossing of an avenue does, and a quarter of the
    others."""
    wide = HALF_AVENUE_M in (plan.half_x(i), plan.half_y(j))
    return wide or (i * 7 + j * 3) % 4 == 0


def _junction(chunk: Chunk, plan: Plan, i: int, j: int) -> None:
    x, y, hx, hy = plan.x(i), plan.y(j), plan.half_x(i), plan.half_y(j)
    for mesh in (chunk.near, chunk.far):
        top(mesh, (x - hx, y - hy, x + hx, y + hy), 0.0, LAYER["asphalt"])
    if not has_signals(plan, i, j):
        return
    for direction in range(4):
        if not plan.arm(i, j, direction):
            continue
        dx, dy = STEPS[direction]
        side, out = plan.half_road(i, j, direction), plan.half_across(i, j, direction)
        # on the right of those who come in along this arm
        px, py = x + dx * (out + 4.6) - dy * (side + 0.7), y + dy * (out + 4.6) + dx * (side + 0.7)
        _signal_post(chunk, px, py, direction)


def _signal_post(chunk: Chunk, x: float, y: float, direction: int) -> None:
    yaw = 90.0 * direction  # it faces outwards along the arm
    post = Mesh()
    black = (0.12, 0.13, 0.13, 1.0)
    models.prism(post, 0, 0, KERB_M, 5.2, 0.09, 0.07, black, 4)
    post.box((0, -0.05, 5.05), (3.6, 0.05, 5.17), black, bottom=True)
    for head in ((3.4, 4.55), (0.0, 2.6)):
        post.box((head[0] - 0.2, -0.12, head[1] - 0.45), (head[0] + 0.2, 0.14, head[1] + 0.65), black, bottom=True)
    chunk.near.extend(post, (x, y, 0), yaw)
    chunk.circles.append((x, y, 0.15))
    chunk.heads.append((x, y, yaw, direction))


def _road(chunk: Chunk, plan: Plan, i: int, j: int, direction: int) -> None:
    """The road from junction (i, j) to the north or the east, with its crossings, and the cars parked along it."""
    half = plan.half_road(i, j, direction)
    if direction == NORTH:
        start, end, middle = plan.y(j) + plan.half_y(j), plan.y(j + 1) - plan.half_y(j + 1), plan.x(i)
    else:
        start, end, middle = plan.x(i) + plan.half_x(i), plan.x(i + 1) - plan.half_x(i + 1), plan.y(j)
    stripes = ZEBRA_GAP_M + ZEBRA_M
    near, far = chunk.near, chunk.far
    asphalt, crossing = LAYER["asphalt"], LAYER["zebra"]
    kind = LAYER["avenue" if half == HALF_AVENUE_M else "street"]
    for a, b in ((start, start + ZEBRA_GAP_M), (end - ZEBRA_GAP_M, end)):
        _strip(near, direction, middle - half, middle + half, a, b, asphalt, (0, 0, 1, 0.1))
    for a, b in ((start + ZEBRA_GAP_M, start + stripes), (end - stripes, end - ZEBRA_GAP_M)):
        _strip(near, direction, middle - half, middle + half, a, b, crossing, (0, 0, half / 4.4, 1))
    length = end - start - 2 * stripes
    v = max(round(length / 12), 1)
    # seen along the road: the right half has its kerb at the right, so its texture is mirrored
    for mesh in (near, far):
        a, b = (start + stripes, end - stripes) if mesh is near else (start, end)
        _strip(mesh, direction, middle - half, middle, a, b, kind, (0, 0, 1, v))
        _strip(mesh, direction, middle, middle + half, a, b, kind, (1, 0, 0, v))
    _stop_lines(near, direction, middle, half, start + stripes, end - stripes)
    _park(chunk, plan.rng(20, i, j, direction), direction, middle, half, start + stripes + 5, end - stripes - 5)


def _strip(
    mesh: Mesh, direction: int, left: float, right: float, a: float, b: float, layer: float, uv: Rect, z: float = 0.0
) -> None:
    """A piece of road between two distances along it; left and right of its middle as seen going north or east."""
    if direction == NORTH:
        quad = [(left, a, z), (right, a, z), (right, b, z), (left, b, z)]
    else:  # going east, the left is the north
        m = left + right
        left, right = m - left, m - right
        quad = [(a, left, z), (a, right, z), (b, right, z), (b, left, z)]
    mesh.quads([quad], (1, 1, 1, 1), uv, normals=(0, 0, 1), layer=layer)


def _stop_lines(mesh: Mesh, direction: int, middle: float, half: float, a: float, b: float) -> None:
    paint = (0.80, 0.80, 0.77, 1.0)
    for at, side in ((b - 1.0, 1), (a + 0.5, -1)):
        lo, hi = sorted((middle + side * 0.2, middle + side * (half - 0.3)))
        if direction == NORTH:
            quad = [(lo, at, 0.015), (hi, at, 0.015), (hi, at + 0.45, 0.015), (lo, at + 0.45, 0.015)]
        else:
            lo, hi = 2 * middle - hi, 2 * middle - lo
            quad = [(at, lo, 0.015), (at + 0.45, lo, 0.015), (at + 0.45, hi, 0.015), (at, hi, 0.015)]
        mesh.quads([quad], paint)


def _park(
    chunk: Chunk, rng: np.random.Generator, direction: int, middle: float, half: float, start: float, end: float
) -> None:
    """Cars along both kerbs, some places empty."""
    names = list(models.SHAPES)
    for side in (1, -1):
        at = start + rng.uniform(0, 3)
        while at + 5.5 < end:
            at += 6.0
            if rng.random() > PARK_SHARE:
                continue
            shape = models.SHAPES[names[rng.integers(len(names))]]
            across = middle + side * (half - 1.12 + rng.uniform(-0.08, 0.12))
            yaw = (0.0 if side > 0 else 180.0) + rng.normal(0, 1.0)
            number = int(rng.integers(len(models.PAINTS)))
            body = parked_car(names.index(_name_of(shape)), number)
            x, y = (across, at - 2.5) if direction == NORTH else (at - 2.5, 2 * middle - across)
            chunk.near.extend(body, (x, y, 0), yaw + 90.0 * direction)
            chunk.far.extend(models.coarse_car(shape, models.PAINTS[number]), (x, y, 0), yaw + 90.0 * direction)
            long, wide = shape.half_length, shape.half_width
            dx, dy = (wide, long) if direction == NORTH else (long, wide)
            chunk.low.append((x - dx, y - dy, x + dx, y + dy))


def _name_of(shape: models.CarShape) -> str:
    return next(name for name, known in models.SHAPES.items() if known is shape)


_parked: dict[tuple[int, int], Mesh] = {}


def parked_car(kind: int, paint: int) -> Mesh:
    """A whole car with its blob of shade, made once."""
    key = (kind, paint)
    if key not in _parked:
        shape = list(models.SHAPES.values())[kind]
        _parked[key] = models.car_body(shape, models.PAINTS[paint], wheels=True)
    return _parked[key]
