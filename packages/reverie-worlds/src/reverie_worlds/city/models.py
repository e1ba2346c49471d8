"""The city's things as meshes: cars, people, trees, lamps.  Each stands on z = 0 at the origin and looks north (+y)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from reverie_worlds.city.textures import LAYER
from reverie_worlds.panda.mesh import Mesh, Vec3

RGBA = tuple[float, float, float, float]
DULL: RGBA = (1, 1, 1, 1)
GLASS: RGBA = (0.10, 0.12, 0.15, 0.35)
RUBBER: RGBA = (0.10, 0.10, 0.11, 1)
SHINING = LAYER["shining"]


@dataclass(frozen=True, slots=True)
class CarShape:
    """A car's outline: rows of (y, belt height, roof height) from the rear to the front, and where the glass is.

    rear_glass, roof, wind_screen: the stretch (row) that is the rear window, the roof's first and last, the windscreen.
    """

    rows: tuple[tuple[float, float, float], ...]
    half_width: float
    roof_width: float
    cabin: tuple[int, int]
    wheel_y: tuple[float, float]
    wheel_m: float

    @property
    def half_length(self) -> float:
        return self.rows[-1][0]


SHAPES = {
    "coupe": CarShape(
        ((-2.2, 0.62, 0.62), (-2.1, 0.88, 0.9), (-1.65, 0.92, 0.95), (-0.75, 0.88, 1.27), (0.05, 0.86, 1.3),
         (0.95, 0.84, 0.88), (1.85, 0.70, 0.72), (2.2, 0.52, 0.53)), 0.94, 0.62, (2, 5), (-1.35, 1.38), 0.34),
    "sedan": CarShape(
        ((-2.25, 0.66, 0.66), (-2.15, 0.94, 0.96), (-1.55, 0.97, 1.0), (-0.95, 0.94, 1.41), (0.25, 0.92, 1.44),
         (1.0, 0.91, 0.95), (1.95, 0.80, 0.82), (2.25, 0.58, 0.59)), 0.9, 0.64, (2, 5), (-1.35, 1.4), 0.33),
    "hatch": CarShape(
        ((-1.9, 0.7, 0.7), (-1.85, 0.95, 0.98), (-1.75, 0.98, 1.05), (-1.35, 0.97, 1.45), (0.25, 0.93, 1.48),
         (0.95, 0.92, 0.97), (1.7, 0.80, 0.83), (1.92, 0.58, 0.6)), 0.86, 0.66, (2, 5), (-1.2, 1.2), 0.31),
    "suv": CarShape(
        ((-2.2, 0.8, 0.8), (-2.15, 1.1, 1.12), (-2.1, 1.12, 1.2), (-1.8, 1.12, 1.74), (0.35, 1.08, 1.78),
         (1.05, 1.06, 1.12), (2.0, 0.98, 1.0), (2.25, 0.7, 0.72)), 0.95, 0.74, (2, 5), (-1.4, 1.4), 0.38),
    "van": CarShape(
        ((-2.5, 0.8, 0.8), (-2.48, 1.15, 1.9), (-2.45, 1.2, 2.1), (-2.4, 1.25, 2.16), (1.1, 1.2, 2.16),
         (1.95, 1.12, 1.2), (2.35, 0.95, 0.98), (2.5, 0.6, 0.62)), 0.98, 0.9, (3, 5), (-1.5, 1.6), 0.36),
}  # fmt: skip

PAINTS: tuple[RGBA, ...] = (
    (0.72, 0.10, 0.09, 0.55), (0.90, 0.90, 0.90, 0.6), (0.13, 0.14, 0.16, 0.5), (0.62, 0.64, 0.67, 0.5),
    (0.10, 0.22, 0.48, 0.55), (0.16, 0.34, 0.26, 0.55), (0.93, 0.72, 0.10, 0.6), (0.45, 0.30, 0.20, 0.6),
    (0.35, 0.52, 0.66, 0.55), (0.85, 0.45, 0.12, 0.55),
)  # fmt: skip


def car_body(shape: CarShape, paint: RGBA, *, wheels: bool, taxi: bool = False) -> Mesh:
    """The whole car but its brake lights; wheels=False leaves the wheels to be drawn apart."""
    mesh = Mesh()
    trim: RGBA = (0.13, 0.13, 0.14, 1)
    w, rw = shape.half_width, shape.roof_width
    for k, ((ya, ba, ra), (yb, bb, rb)) in enumerate(zip(shape.rows, shape.rows[1:], strict=False)):
        glazed = shape.cabin[0] <= k < shape.cabin[1]
        roof = glazed and abs(ra - rb) < 0.12
        na = 0.9 if k == 0 else 1.0
        nb = 0.86 if k == len(shape.rows) - 2 else 1.0
        wa, wb = w * na, w * nb
        up_a = rw if ra > ba + 0.15 else w * 0.9 * na
        up_b = rw if rb > bb + 0.15 else w * 0.9 * nb
        side = GLASS if glazed else paint
        for s in (1, -1):
            low = [(s * wa, ya, 0.24), (s * wb, yb, 0.24), (s * wb, yb, bb), (s * wa, ya, ba)]
            high = [(s * wa, ya, ba), (s * wb, yb, bb), (s * up_b, yb, rb), (s * up_a, ya, ra)]
            if s < 0:
                low, high = low[::-1], high[::-1]
            mesh.quads([low], paint)
            mesh.quads([high], side)
        top = [(-up_a, ya, ra), (up_a, ya, ra), (up_b, yb, rb), (-up_b, yb, rb)]
        mesh.quads([top], GLASS if glazed and not roof else paint)
    rear, front = shape.rows[0], shape.rows[-1]
    wr, wf = w * 0.9, w * 0.86
    y, z = rear[0], rear[1]
    mesh.quads([[(wr, y, 0.24), (-wr, y, 0.24), (-wr, y, z), (wr, y, z)][::-1]], paint, normals=(0, -1, 0))
    y, z = front[0], front[1]
    mesh.quads([[(-wf, y, 0.24), (wf, y, 0.24), (wf, y, z), (-wf, y, z)][::-1]], trim, normals=(0, 1, 0))
    mesh.box((-w, -shape.half_length + 0.02, 0.18), (w, shape.half_length - 0.02, 0.36), trim)
    _lights(mesh, shape)
    if taxi:
        mesh.box((-0.3, -0.5, 1.4), (0.3, -0.25, 1.62), (1, 0.9, 0.5, 1), layer=SHINING)
    if wheels:
        for x in (-1, 1):
            for wy in shape.wheel_y:
                mesh.extend(wheel(shape.wheel_m, 7, sides_shown=(x,)), (x * (w - 0.1), wy, shape.wheel_m))
    return mesh


def coarse_car(shape: CarShape, paint: RGBA) -> Mesh:
    """A car from far away: a lower and an upper box."""
    mesh = Mesh()
    w, length = shape.half_width, shape.half_length
    waist, roof = shape.rows[2][1], max(row[2] for row in shape.rows)
    mesh.box((-w, -length, 0.25), (w, length, waist - 0.06), paint)
    mesh.box((-w * 0.75, -length * 0.6, waist - 0.06), (w * 0.75, length * 0.3, roof), (0.2, 0.22, 0.25, 1))
    return mesh


def _lights(mesh: Mesh, shape: CarShape) -> None:
    w, h = shape.half_width, shape.rows[0][1]
    y = shape.rows[0][0] - 0.015
    for x in (-w * 0.85, w * 0.85 - 0.42):
        quad = [(x, y, h - 0.02), (x + 0.42, y, h - 0.02), (x + 0.42, y - 0.0, h + 0.14), (x, y, h + 0.14)]
        mesh.quads([quad], (0.55, 0.03, 0.03, 1), normals=(0, -1, 0), layer=SHINING)
    mesh.quads(
        [[(-0.26, y, 0.45), (0.26, y, 0.45), (0.26, y, 0.57), (-0.26, y, 0.57)]], (0.9, 0.9, 0.8, 1), normals=(0, -1, 0)
    )
    y, h = shape.rows[-1][0] + 0.015, shape.rows[-1][1]
    for x in (-w * 0.84, w * 0.84 - 0.4):
        quad = [(x + 0.4, y, h - 0.12), (x, y, h - 0.12), (x, y, h + 0.04), (x + 0.4, y, h + 0.04)]
        mesh.quads([quad], (0.98, 0.96, 0.85, 1), normals=(0, 1, 0), layer=SHINING)


def brake_lights(shape: CarShape) -> Mesh:
    """Bright red over the rear lights, for while the brakes are on."""
    mesh = Mesh()
    w, h, y = shape.half_width, shape.rows[0][1], shape.rows[0][0] - 0.03
    for x in (-w * 0.87, w * 0.87 - 0.46):
        quad = [(x, y, h - 0.04), (x + 0.46, y, h - 0.04), (x + 0.46, y, h + 0.16), (x, y, h + 0.16)]
        mesh.quads([quad], (1.0, 0.12, 0.08, 1))
    return mesh


def wheel(radius_m: float, sides: int = 14, sides_shown: tuple[float, ...] = (1.0, -1.0)) -> Mesh:
    """A wheel about its own middle, its axle along x; sides_shown: 1 its right face, -1 its left one."""
    mesh = Mesh()
    angles = np.linspace(0, 2 * math.pi, sides, endpoint=False)
    ring = np.stack([np.zeros(sides), np.cos(angles), np.sin(angles)], 1)
    nxt = np.roll(ring, -1, 0)
    half = np.array((0.115, 0, 0))
    tread = np.stack([ring * radius_m - half, ring * radius_m + half, nxt * radius_m + half, nxt * radius_m - half], 1)
    mesh.quads(tread[:, ::-1], RUBBER, normals=ring)
    for s in sides_shown:
        for radius, colour, out in ((radius_m, RUBBER, 0.0), (radius_m * 0.64, (0.62, 0.63, 0.65, 0.6), 0.01)):
            rim = ring * radius + np.array((s * (0.115 + out), 0, 0))
            points = np.concatenate([rim, [[s * (0.115 + out), 0, 0]]])
            k = np.arange(sides)
            fan = np.stack([k, np.roll(k, -1), np.full(sides, sides)], 1)
            tint = np.tile(np.asarray(colour, np.float32), (sides + 1, 1))
            if out:  # spokes
                tint[:sides:3, :3] *= 0.35
            mesh.add(points, fan if s > 0 else fan[:, ::-1], (s, 0, 0), tint)
    return mesh


def blob(
    mesh: Mesh, centre: Vec3, radius: Vec3, colour: RGBA, around: int = 6, rings: int = 3, layer: float = 0
) -> None:
    """A rounded lump, darker below."""
    up = np.linspace(-math.pi / 2, math.pi / 2, rings + 1)
    turn = np.linspace(0, 2 * math.pi, around + 1)
    u, t = np.meshgrid(up, turn, indexing="ij")
    unit = np.stack([np.cos(u) * np.cos(t), np.cos(u) * np.sin(t), np.sin(u)], -1)
    wobble = 1 + 0.12 * np.sin(3 * t + 5 * u + centre[0] * 7)[..., None]
    points = unit * wobble * np.asarray(radius) + np.asarray(centre)
    tint = np.tile(np.asarray(colour, np.float32), (*u.shape, 1))
    tint[..., :3] *= (0.72 + 0.28 * unit[..., 2:]) * 1.05
    k = np.arange((rings + 1) * (around + 1)).reshape(rings + 1, around + 1)
    a, b, c, d = k[:-1, :-1], k[:-1, 1:], k[1:, 1:], k[1:, :-1]
    triangles = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
    uv = np.stack([t / (2 * math.pi) * 2, u / math.pi * 1.5], -1)
    mesh.add(points.reshape(-1, 3), triangles, unit.reshape(-1, 3), tint.reshape(-1, 4), uv.reshape(-1, 2), layer)


def prism(mesh: Mesh, x: float, y: float, z0: float, z1: float, r0: float, r1: float, colour: RGBA, n: int = 5) -> None:
    """A round post that may taper."""
    angles = np.linspace(0, 2 * math.pi, n, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(n)], 1)
    nxt = np.roll(ring, -1, 0)
    low, high = np.array((x, y, z0)), np.array((x, y, z1))
    mesh.quads(np.stack([ring * r0 + low, nxt * r0 + low, nxt * r1 + high, ring * r1 + high], 1), colour)


def tree(kind: str, rng: np.random.Generator, *, coarse: bool = False) -> Mesh:
    """A broadleaf tree, a poplar or a palm; coarse: a lump on a stick, for far away."""
    mesh = Mesh()
    bark: RGBA = (0.40, 0.32, 0.25, 1)
    leaf = LAYER["leaves"]
    green = np.array((0.36, 0.50, 0.20)) * rng.uniform(0.75, 1.2) + rng.uniform(-0.04, 0.06, 3) * (1, 0.6, 0.2)
    tint: RGBA = (float(green[0]), float(green[1]), float(max(green[2], 0.05)), 1)
    height = rng.uniform(6, 9)
    if kind == "palm":
        prism(mesh, 0, 0, 0, height, 0.2, 0.13, (0.55, 0.46, 0.36, 1), 4 if coarse else 5)
        for k in range(4 if coarse else 9):
            a = k * 2 * math.pi / (4 if coarse else 9) + rng.uniform(0, 0.4)
            out = np.array((math.cos(a), math.sin(a), 0))
            side = np.array((-math.sin(a), math.cos(a), 0)) * 0.42
            base, mid, tip = np.array((0, 0, height)), np.array((0, 0, height + 0.5)), np.array((0, 0, height - 1.1))
            mid, tip = mid + out * 1.5, tip + out * 3.0
            for quad in (
                [base - side * 0.3, mid - side, mid + side, base + side * 0.3],
                [mid - side, tip, tip, mid + side],
            ):
                for turned in (quad, quad[::-1]):
                    mesh.quads([turned], (0.30, 0.46, 0.18, 1), normals=(0.2 * out[0], 0.2 * out[1], 0.95), layer=leaf)
        return mesh
    if kind == "poplar":
        prism(mesh, 0, 0, 0, 2.2, 0.2, 0.15, bark, 4)
        blob(mesh, (0, 0, height * 0.62), (1.2, 1.2, height * 0.52), tint, 4 if coarse else 6, 2 if coarse else 4, leaf)
        return mesh
    prism(mesh, 0, 0, 0, height * 0.5, 0.24, 0.15, bark, 3 if coarse else 4)
    if coarse:
        blob(mesh, (0, 0, height * 0.66), (2.4, 2.4, height * 0.34), tint, 5, 2, leaf)
        return mesh
    spread = rng.uniform(1.7, 2.3)
    for k in range(4):
        a = k * math.pi / 1.7 + rng.uniform(0, 1)
        out = 0.0 if k == 3 else spread * 0.5
        z = height * (0.82 if k == 3 else rng.uniform(0.55, 0.68))
        blob(mesh, (out * math.cos(a), out * math.sin(a), z), (spread, spread, spread * 0.85), tint, 6, 3, leaf)
    return mesh


def street_lamp() -> Mesh:
    """A pole with an arm to the east; the light hangs 1.7 m out, 6.4 m high."""
    mesh = Mesh()
    grey: RGBA = (0.25, 0.26, 0.27, 1)
    prism(mesh, 0, 0, 0, 6.4, 0.10, 0.06, grey, 4)
    mesh.box((0, -0.05, 6.35), (1.6, 0.05, 6.45), grey, bottom=True)
    mesh.box((1.1, -0.14, 6.28), (1.9, 0.14, 6.42), grey)
    lamp = [(1.15, 0.12, 6.27), (1.85, 0.12, 6.27), (1.85, -0.12, 6.27), (1.15, -0.12, 6.27)]
    mesh.quads([lamp], (1, 0.85, 0.6, 1), layer=SHINING)
    return mesh


SKINS = ((0.86, 0.68, 0.56), (0.72, 0.52, 0.40), (0.48, 0.34, 0.26), (0.92, 0.76, 0.65))
CLOTHES = (
    (0.70, 0.16, 0.15), (0.16, 0.24, 0.42), (0.85, 0.84, 0.80), (0.20, 0.20, 0.22), (0.30, 0.42, 0.28),
    (0.78, 0.62, 0.30), (0.45, 0.30, 0.42), (0.30, 0.50, 0.60),
)  # fmt: skip
WALK_PHASES = 8


@cache
def person(look: int, phase: int) -> Mesh:
    """Someone walking, at one of `WALK_PHASES` moments of the stride; phase -1 stands."""
    rng = np.random.default_rng([5, look])
    skin = (*SKINS[rng.integers(len(SKINS))], 1.0)
    coat = (*CLOTHES[rng.integers(len(CLOTHES))], 1.0)
    legs = (*(np.array(CLOTHES[rng.integers(len(CLOTHES))]) * 0.6), 1.0)
    hair = np.array((0.25, 0.18, 0.12)) * rng.uniform(0.4, 2.2)
    skirt = rng.random() < 0.3
    swing = 0.0 if phase < 0 else 0.55 * math.sin(2 * math.pi * phase / WALK_PHASES)
    mesh = Mesh()
    for s in (-1, 1):
        _limb(mesh, (s * 0.1, 0, 0.88), 0.86, s * swing, (0.085, 0.10), legs)
        _limb(mesh, (s * 0.27, 0, 1.42), 0.62, -s * swing * 0.9, (0.06, 0.07), coat)
    mesh.box((-0.21, -0.13, 0.62 if skirt else 0.84), (0.21, 0.13, 1.18), coat)
    mesh.box((-0.24, -0.14, 1.15), (0.24, 0.14, 1.48), coat)
    blob(mesh, (0, 0, 1.64), (0.12, 0.13, 0.16), skin, 6, 4)
    blob(mesh, (0, -0.03, 1.70), (0.135, 0.135, 0.12), (hair[0], hair[1], hair[2], 1), 6, 3)
    return mesh


def _limb(mesh: Mesh, top: Vec3, length: float, angle: float, half: tuple[float, float], colour: RGBA) -> None:
    """A leg or an arm that hangs from `top`, swung forward by `angle` radians."""
    down = np.array((0, math.sin(angle), -math.cos(angle)))
    front = np.array((0, math.cos(angle), math.sin(angle)))
    right = np.array((1.0, 0, 0))
    start = np.asarray(top, float)
    ends = [start + right * sx * half[0] + front * sy * half[1] for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    feet = [p + down * length for p in ends]
    mesh.quads([[feet[k], feet[(k + 1) % 4], ends[(k + 1) % 4], ends[k]] for k in range(4)], colour)
