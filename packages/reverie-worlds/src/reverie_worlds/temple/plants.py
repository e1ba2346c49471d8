"""Builders of the scenery beside the track: rocks with trees that rise from the depth, ruined towers, statues,
ferns."""

from __future__ import annotations

import math

import numpy as np

from reverie_worlds.temple.leg_builder import LegBuilder
from reverie_worlds.temple.mesh import quad_indices, ring_angles
from reverie_worlds.temple.track import HALF_WIDTH


def line_the_way(b: LegBuilder) -> None:
    """Both sides of the leg, the view behind its end, and small plants along the edges."""
    begin, end = (-14.0 if b.first else 11.0), b.leg.length - 11.0
    for side in (-1, 1):
        s = begin + float(b.rng.uniform(0, 5))
        while s < end:
            _sight(b, side * float(b.rng.uniform(5.8, 9.5)), s)
            if b.rng.random() < 0.5:
                _rock(b, side * float(b.rng.uniform(13, 22)), s + 2.0, 2.2, float(b.rng.uniform(-4, 3)))
            s += float(b.rng.uniform(5.5, 10.5))
    for x in (-13.0, 0.0, 12.0):
        far = b.leg.length + float(b.rng.uniform(15, 26))
        _rock(b, x + float(b.rng.uniform(-3, 3)), far, float(b.rng.uniform(2.5, 4.5)), float(b.rng.uniform(-1, 5)))
    _undergrowth(b)


def _sight(b: LegBuilder, x: float, s: float) -> None:
    roll = float(b.rng.random())
    top = float(b.rng.uniform(-3.5, 0.6))
    if roll < 0.62:
        _rock(b, x, s, float(b.rng.uniform(1.7, 2.9)), top)
    elif roll < 0.82:
        _tower(b, x, s, top)
    else:
        _statue(b, x, s, top)


def _rock(b: LegBuilder, x: float, s: float, radius: float, top: float) -> None:
    """A spire from the depth, grown over on its head."""
    biome, shapes = b.biome, b.at(s).solid
    floor = b.floor(s)
    low = floor - biome.depth_m - 7.0
    heights = np.linspace(low, floor + top, 5)
    sway = np.cumsum(b.rng.uniform(-0.3, 0.3, (5, 2)), axis=0)
    path = np.stack([x + sway[:, 0], s + sway[:, 1], heights], 1)
    sizes = radius * np.array([1.5, 1.2, 1.0, 1.05, 0.88])
    shapes.turned(
        path, sizes, "rock", b.tone(biome.rock), sides=9, rough=0.16, metres=3.5, foot=0.7,
        cap="ground", cap_colour=b.tone(biome.ground),
    )  # fmt: skip
    head = (float(path[-1, 0]), float(path[-1, 1]), float(path[-1, 2]))
    if b.rng.random() < 0.75 * min(biome.trees, 1.0):
        tree(b, head, float(b.rng.uniform(0.85, 1.3)))
    for _ in range(int(b.rng.poisson(1.0 * biome.trees))):
        way, out = float(b.rng.uniform(0, 2 * np.pi)), radius * float(b.rng.uniform(0.3, 0.8))
        fern(b, (head[0] + out * math.cos(way), head[1] + out * math.sin(way), head[2]), 0.9)


def _tower(b: LegBuilder, x: float, s: float, top: float) -> None:
    """A ruined tower or a row of columns on a pedestal."""
    biome, shapes, floor = b.biome, b.at(s).solid, b.floor(s)
    deep = biome.depth_m + 7.0
    base = floor + top
    shapes.box(
        (x, s, base - deep / 2), (1.7, 1.7, deep / 2), "brick", b.tone(biome.stone), metres=3.0, foot=0.5, taper=0.92
    )
    shapes.box((x, s, base + 0.15), (1.85, 1.85, 0.22), "trim", b.tone(biome.trim), foot=0.7)
    if b.rng.random() < 0.5:
        for i in range(int(b.rng.integers(1, 4))):
            high = float(b.rng.uniform(1.0, 1.4))
            wide = 1.35 - 0.25 * i
            shapes.box(
                (x, s, base + 0.9 + 1.5 * i),
                (wide, wide, high / 2 + 0.3),
                "relief",
                b.tone(biome.stone),
                metres=1.8,
                foot=0.6,
                taper=0.93,
            )
        return
    for dx, ds in ((-1.2, -1.2), (1.2, -1.2), (-1.2, 1.2), (1.2, 1.2)):
        high = float(b.rng.uniform(0.8, 3.4))
        points = [(x + dx, s + ds, base + 0.3), (x + dx, s + ds, base + 0.3 + high)]
        shapes.turned(points, (0.3, 0.26), "brick", b.tone(biome.stone), sides=7, metres=1.0, foot=0.65, cap="plain")


def _statue(b: LegBuilder, x: float, s: float, top: float) -> None:
    """A great seated idol that faces the way."""
    biome, shapes, floor = b.biome, b.at(s).solid, b.floor(s)
    deep, base, to_way = biome.depth_m + 7.0, floor + top, -math.copysign(1.0, x)
    stone = b.tone(biome.stone)
    shapes.box((x, s, base - deep / 2), (1.5, 1.5, deep / 2), "brick", b.tone(biome.stone), metres=3.0, foot=0.5)
    shapes.box((x, s, base + 0.9), (1.1, 1.2, 0.9), "relief", stone, metres=1.4, foot=0.6, taper=0.9)
    shapes.box((x + to_way * 0.9, s, base + 0.55), (0.5, 1.2, 0.5), "brick", stone, foot=0.6)
    shapes.box((x, s, base + 2.65), (0.75, 0.85, 0.8), "brick", stone, taper=0.85, foot=0.6)
    shapes.box((x, s, base + 3.6), (0.9, 1.0, 0.18), "trim", b.tone(biome.trim))
    shapes.box((x, s, base + 4.05), (0.6, 0.65, 0.35), "relief", b.tone(biome.trim), metres=0.9, taper=0.6)
    for ds in (-0.33, 0.33):
        shapes.box((x + to_way * 0.7, s + ds, base + 2.9), (0.08, 0.14, 0.1), "plain", (0.1, 0.08, 0.07))
    shapes.box((x + to_way * 0.74, s, base + 2.3), (0.08, 0.4, 0.09), "plain", (0.12, 0.1, 0.08))
    shapes.box((x + to_way * 0.78, s, base + 2.62), (0.14, 0.12, 0.2), "brick", stone)


def tree(b: LegBuilder, foot: tuple[float, float, float], size: float) -> None:
    """A tree of the biome's kind."""
    {"broadleaf": _broadleaf, "palm": _palm, "pine": _pine, "dead": _dead}[b.biome.tree](b, foot, size)


def _broadleaf(b: LegBuilder, foot: tuple[float, float, float], size: float) -> None:
    x, s, z = foot
    tall, stretch = float(b.rng.uniform(2.4, 4.2)) * size, b.at(foot[1])
    lean = b.rng.uniform(-0.5, 0.5, 2)
    top = (x + lean[0], s + lean[1], z + tall)
    stretch.solid.turned(
        [foot, ((x + top[0]) / 2, (s + top[1]) / 2 + 0.15, z + tall / 2), top],
        (0.32, 0.22, 0.14),
        "bark",
        b.biome.trunk,
        sides=6,
        foot=0.7,
    )
    leaf = b.tone(b.biome.leaf, 0.2)
    for i, way in enumerate(ring_angles(6, float(b.rng.uniform(0, 3)))):
        out, wide = 0.75 * size * (i > 0), float(b.rng.uniform(2.0, 3.0)) * size
        cx, cs = top[0] + out * math.cos(way), top[1] + out * math.sin(way)
        cz = top[2] + float(b.rng.uniform(-0.9, 0.6)) * size
        turn = way + 1.57 + float(b.rng.uniform(-0.5, 0.5))
        right = (wide * math.cos(turn), wide * math.sin(turn), float(b.rng.uniform(-0.4, 0.4)))
        up = (0.35 * wide * math.sin(turn), -0.35 * wide * math.cos(turn), wide * 0.85)
        normal = (0.55 * math.cos(way), 0.55 * math.sin(way), 0.75)
        corner = (cx - (right[0] + up[0]) / 2, cs - (right[1] + up[1]) / 2, cz - (right[2] + up[2]) / 2)
        stretch.leaves.card(corner, right, up, "leaves", leaf, normal, 0.55)


def _palm(b: LegBuilder, foot: tuple[float, float, float], size: float) -> None:
    x, s, z = foot
    tall, stretch = float(b.rng.uniform(3.0, 5.0)) * size, b.at(foot[1])
    lean = float(b.rng.uniform(-1.0, 1.0))
    path = [(x + lean * t * t, s + 0.3 * lean * t, z + tall * t) for t in (0, 0.33, 0.66, 1.0)]
    stretch.solid.turned(path, (0.26, 0.2, 0.17, 0.14), "bark", b.biome.trunk, sides=6, metres=0.8, foot=0.75)
    _crown(b, path[-1], 8, 1.9 * size, b.tone(b.biome.leaf, 0.15))


def _crown(b: LegBuilder, top: tuple[float, float, float], count: int, long: float, colour: tuple[float, ...]) -> None:
    """Fronds round a spot: each rises a little, then hangs."""
    x, s, z = top
    for way in ring_angles(count, float(b.rng.uniform(0, 3))):
        out, aside = np.array([math.cos(way), math.sin(way), 0.0]), np.array([-math.sin(way), math.cos(way), 0.0])
        first = out * long * 0.5 + (0, 0, 0.16 * long)
        second = out * long * 0.48 + (0, 0, -0.30 * long)
        wide = aside * long * 0.34
        start = np.array([x, s, z])
        points = [start - wide / 2, start + first - wide / 2, start + first + wide / 2, start + wide / 2]
        points += [
            start + first - wide / 2,
            start + first + second - wide / 2,
            start + first + second + wide / 2,
            start + first + wide / 2,
        ]
        uv = [(0, 0), (0.5, 0), (0.5, 1), (0, 1), (0.5, 0), (1, 0), (1, 1), (0.5, 1)]
        tints = np.array([0.7, 1, 1, 0.7, 1, 0.85, 0.85, 1])[:, None] * np.asarray(colour)
        normal = (0.3 * out[0], 0.3 * out[1], 0.9)
        b.at(s).leaves.add(points, normal, tints, uv, "frond", [0, 1, 2, 0, 2, 3, 4, 5, 6, 4, 6, 7])


def _pine(b: LegBuilder, foot: tuple[float, float, float], size: float) -> None:
    x, s, z = foot
    shapes, snow = b.at(s).solid, b.biome.ground
    shapes.turned([foot, (x, s, z + 1.0)], (0.2, 0.18), "bark", b.biome.trunk, sides=6)
    for i in range(4):
        low, wide = z + (0.7 + 0.95 * i) * size, (1.45 - 0.3 * i) * size
        path = [(x, s, low), (x, s, low + 0.55 * size), (x, s, low + 1.5 * size)]
        shapes.turned(
            path[:2],
            (wide, wide * 0.62),
            "leaves",
            b.tone(b.biome.leaf, 0.15),
            sides=9,
            rough=0.14,
            foot=0.55,
            metres=1.2,
        )
        shapes.turned(path[1:], (wide * 0.62, 0.05), "ground", snow, sides=9, rough=0.1, metres=1.2)


def _dead(b: LegBuilder, foot: tuple[float, float, float], size: float) -> None:
    x, s, z = foot
    shapes, tall = b.at(s).solid, float(b.rng.uniform(2.2, 3.6)) * size
    bend = b.rng.uniform(-0.5, 0.5, 2)
    top = (x + bend[0], s + bend[1], z + tall)
    shapes.turned([foot, top], (0.3, 0.1), "bark", b.biome.trunk, sides=6)
    for _ in range(5):
        t, way = float(b.rng.uniform(0.4, 0.95)), float(b.rng.uniform(0, 2 * np.pi))
        root = (x + bend[0] * t, s + bend[1] * t, z + tall * t)
        long = float(b.rng.uniform(0.7, 1.4)) * size
        tip = (root[0] + long * math.cos(way), root[1] + long * math.sin(way), root[2] + 0.7 * long)
        shapes.turned([root, tip], (0.1, 0.03), "bark", b.biome.trunk, sides=4)


def fern(b: LegBuilder, foot: tuple[float, float, float], size: float) -> None:
    """A small bush: fronds where things grow, nothing among lava."""
    if b.biome.tree != "dead":
        _rosette(b, foot, size, b.tone(b.biome.leaf, 0.2))


def _rosette(b: LegBuilder, foot: tuple[float, float, float], size: float, colour: tuple[float, ...]) -> None:
    """Five straight fronds from one root, all in one piece."""
    way = np.array(ring_angles(5, float(b.rng.uniform(0, 3))))
    out = np.stack([np.cos(way), np.sin(way), np.full(5, 0.55)], 1) * size * 0.9
    wide = np.stack([-np.sin(way), np.cos(way), np.zeros(5)], 1) * size * 0.20
    root = np.asarray(foot) + np.array((0, 0, 0.02))
    points = np.stack([root - wide, root + out - wide, root + out + wide, root + wide], 1).reshape(-1, 3)
    tints = np.tile(np.array([0.6, 1, 1, 0.6])[:, None] * np.asarray(colour), (5, 1))
    uv = np.tile([(0, 0), (1, 0), (1, 1), (0, 1)], (5, 1))
    b.at(foot[1]).leaves.add(points, (0, 0, 1), tints, uv, "frond", quad_indices(5))


def _undergrowth(b: LegBuilder) -> None:
    """Vines over the edges, ferns between the kerb stones."""
    if b.biome.tree == "dead":
        return
    for _ in range(int(b.leg.length * 0.22 * b.biome.trees)):
        s, side = float(b.rng.uniform(3, b.leg.length - 3)), int(b.rng.choice((-1, 1)))
        if any(p.s0 - 0.8 < s < p.s1 + 0.8 and p.kind in ("gap", "bridge", "narrow") for p in b.leg.pieces):
            continue
        floor, x = b.floor(s), side * (HALF_WIDTH - 0.1)
        if b.rng.random() < 0.45:
            fern(b, (x, s, floor), float(b.rng.uniform(0.45, 0.75)))
        else:
            drop, wide = float(b.rng.uniform(0.8, 2.2)), float(b.rng.uniform(0.8, 1.6))
            corner = (side * (HALF_WIDTH + 0.08), s, floor - drop + 0.1)
            b.at(s).leaves.card(
                corner, (0, wide, 0), (0, 0, drop), "vine", b.tone(b.biome.leaf, 0.2), (side * 0.6, 0, 0.7), 0.5
            )
