"""Builders of the obstacles on the track: walls and roots to jump, beams to slide under, bridges, tunnels and gates.

Each builder takes the LegBuilder and the Piece, and stays true to the measures that the runner collides with.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reverie_worlds.temple.leg_builder import LegBuilder
from reverie_worlds.temple.track import BEAM_CLEARANCE, HALF_WIDTH, WALL_HEIGHT, Piece

WOOD = (0.62, 0.46, 0.30)


def nothing(_b: LegBuilder, _piece: Piece) -> None:
    """Builds nothing: for pieces made of the causeway alone."""


def post(b: LegBuilder, x: float, s: float, floor: float, tall: float, lit: bool | None = None) -> None:
    """A carved post with a cap, perhaps with a torch on it."""
    shapes = b.at(s).solid
    shapes.box((x, s, floor + tall / 2), (0.3, 0.3, tall / 2), "relief", b.tone(b.biome.stone), metres=1.2, foot=0.6)
    shapes.box((x, s, floor + tall + 0.1), (0.4, 0.4, 0.12), "trim", b.tone(b.biome.trim), foot=0.7)
    if lit if lit is not None else b.rng.random() < 0.3 + b.biome.torches:
        shapes.box((x, s, floor + tall + 0.3), (0.18, 0.18, 0.12), "bark", (0.3, 0.25, 0.2), taper=1.5)
        b.flame(s, x, floor + tall + 0.38, 0.95)


def end_wall(b: LegBuilder, floor: float) -> None:
    """The carved wall that closes a corner: a great face between two torches."""
    s, biome = b.leg.length + HALF_WIDTH - 0.1, b.biome
    shapes = b.at(s).solid
    high = float(b.rng.uniform(2.2, 3.2))
    shapes.box((0, s + 0.3, floor + high / 2), (2.1, 0.35, high / 2), "relief", biome.stone, metres=2.2, foot=0.6)
    shapes.box((0, s + 0.3, floor + high + 0.15), (2.25, 0.5, 0.16), "trim", b.tone(biome.trim), foot=0.7)
    shapes.box((0, s, floor + high * 0.55), (0.75, 0.25, high * 0.32), "brick", b.tone(biome.trim), taper=0.8, foot=0.6)
    for x in (-0.3, 0.3):
        shapes.box((x, s - 0.26, floor + high * 0.64), (0.13, 0.04, 0.08), "plain", (0.10, 0.08, 0.07))
    shapes.box((0, s - 0.26, floor + high * 0.42), (0.4, 0.05, 0.09), "plain", (0.12, 0.09, 0.08))
    for x in (-2.0, 2.0):
        post(b, x, s - 0.1, floor, 1.5, lit=True)


def wall(b: LegBuilder, piece: Piece) -> None:
    """Something low across the way: blocks, a root, a fallen column."""
    middle, biome = (piece.s0 + piece.s1) / 2, b.biome
    floor, shapes, half = b.floor(middle), b.at(middle).solid, (piece.s1 - piece.s0) / 2
    if piece.variant in (0, 3):
        for i, x in enumerate((-1.35, 0.0, 1.35)):
            high = WALL_HEIGHT + float(b.rng.uniform(-0.04, 0.08))
            shapes.box(
                (x, middle, floor + high / 2), (0.66, half + 0.04 * (i == 1), high / 2), "relief",
                b.tone(biome.trim if piece.variant else biome.stone), foot=0.55, metres=1.3, taper=0.97,
            )  # fmt: skip
        return
    radius = WALL_HEIGHT / 2 + 0.02
    xs = np.linspace(-2.5, 2.5, 7)
    root = piece.variant == 1
    bend = 0.12 * np.sin(xs * 1.7 + middle) if root else np.zeros(7)
    sizes = radius * (1 + 0.15 * np.cos(xs * 2)) if root else np.full(7, radius)
    path = np.stack([xs, middle + bend, np.full(7, floor + radius * 0.8)], 1)
    if root:
        shapes.turned(path, sizes, "bark", biome.trunk, sides=8, rough=0.1, metres=1.2)
    else:
        shapes.turned(
            path, sizes, "brick", b.tone(biome.stone), sides=10, metres=0.9, cap="plain", cap_colour=biome.stone
        )


def beam(b: LegBuilder, piece: Piece) -> None:
    """Something that leaves only a low way through."""
    (_arch, _trunk, _fire, _spikes)[piece.variant](b, piece)


def _arch(b: LegBuilder, piece: Piece) -> None:
    middle, biome, half = (piece.s0 + piece.s1) / 2, b.biome, (piece.s1 - piece.s0) / 2
    floor, shapes = b.floor(middle), b.at(middle).solid
    for x in (-1.75, 1.75):
        shapes.box(
            (x, middle, floor + 1.2), (0.42, half + 0.1, 1.2), "brick", b.tone(biome.stone), foot=0.6, metres=1.8
        )
    low = floor + BEAM_CLEARANCE
    shapes.box((0, middle, low + 0.55), (1.4, half, 0.5), "relief", biome.stone, metres=1.4, bottom=True, foot=0.7)
    shapes.box((0, middle, floor + 2.3), (2.35, half + 0.2, 0.18), "trim", b.tone(biome.trim), foot=0.7)
    shapes.box((0, middle - half - 0.1, low + 0.6), (0.5, 0.15, 0.42), "trim", b.tone(biome.trim), taper=0.8, foot=0.6)
    for x in (-0.2, 0.2):
        shapes.box((x, middle - half - 0.26, low + 0.72), (0.09, 0.04, 0.08), "plain", (0.1, 0.08, 0.07))


def _trunk(b: LegBuilder, piece: Piece) -> None:
    middle, biome = (piece.s0 + piece.s1) / 2, b.biome
    floor, shapes = b.floor(middle), b.at(middle).solid
    slant = float(b.rng.uniform(-0.15, 0.15))
    xs = np.linspace(-3.4, 3.4, 6)
    path = np.stack([xs, middle + 0.1 * xs * slant, floor + BEAM_CLEARANCE + 0.42 + slant * xs], 1)
    shapes.turned(path, np.linspace(0.44, 0.38, 6), "bark", biome.trunk, sides=9, rough=0.08, metres=1.3, cap="plank")
    for x in (-2.2, 2.2):
        shapes.box((x, middle, floor + 0.5), (0.4, 0.4, 0.9), "rock", b.tone(biome.rock), yaw=0.4, foot=0.6)
    for x in np.arange(-1.8, 1.9, 0.55):
        if b.rng.random() < 0.7:
            drop = float(b.rng.uniform(0.25, 0.5))
            corner = (float(x), middle - 0.4, floor + BEAM_CLEARANCE + 0.35 + slant * float(x) - drop)
            b.at(middle).leaves.card(
                corner, (0.6, 0, 0), (0, 0, drop + 0.4), "vine", b.tone(biome.leaf), (0, -0.6, 0.6)
            )


def _fire(b: LegBuilder, piece: Piece) -> None:
    """Two dragon heads that blow fire at each other across the way."""
    middle, biome = (piece.s0 + piece.s1) / 2, b.biome
    floor, shapes = b.floor(middle), b.at(middle).solid
    for side in (-1, 1):
        x = side * 1.95
        shapes.box((x, middle, floor + 0.6), (0.42, 0.42, 0.6), "brick", b.tone(biome.stone), foot=0.55, metres=1.4)
        shapes.box((x, middle, floor + 1.55), (0.36, 0.36, 0.36), "relief", b.tone(biome.trim), metres=0.8)
        shapes.box((x - side * 0.42, middle, floor + 1.64), (0.22, 0.26, 0.1), "trim", b.tone(biome.trim))
        shapes.box((x - side * 0.38, middle, floor + 1.3), (0.16, 0.22, 0.07), "trim", b.tone(biome.trim))
        shapes.box((x, middle, floor + 2.05), (0.12, 0.3, 0.18), "trim", b.tone(biome.trim), taper=0.3)
    for x in np.arange(-1.4, 1.5, 0.35):
        b.flame(middle, float(x), floor + BEAM_CLEARANCE + 0.05, 0.95, 1.0)


def _spikes(b: LegBuilder, piece: Piece) -> None:
    """A timber gate let half down, with spikes below."""
    middle, biome = (piece.s0 + piece.s1) / 2, b.biome
    floor, shapes = b.floor(middle), b.at(middle).solid
    for x in (-1.9, 1.9):
        shapes.box((x, middle, floor + 1.5), (0.2, 0.2, 1.5), "plank", WOOD, foot=0.6)
        shapes.box((x, middle, floor + 0.25), (0.36, 0.36, 0.25), "brick", b.tone(biome.stone), foot=0.6)
    shapes.box((0, middle, floor + 2.85), (2.3, 0.22, 0.15), "plank", WOOD)
    for z in (1.45, 2.1):
        shapes.box((0, middle, floor + z), (1.75, 0.12, 0.13), "plank", b.tone(WOOD), bottom=True)
    for x in np.arange(-1.5, 1.6, 0.43):
        tall = (2.75 - BEAM_CLEARANCE) / 2
        shapes.box(
            (float(x), middle - 0.05, floor + BEAM_CLEARANCE + tall), (0.09, 0.09, tall), "plank", b.tone(WOOD, 0.2),
            bottom=True, taper=1.0,
        )  # fmt: skip


def pillar(b: LegBuilder, piece: Piece) -> None:
    """Something tall on one half of the way: a boulder, a totem, a broken column, a brazier."""
    middle, x, biome = (piece.s0 + piece.s1) / 2, piece.side * 0.95, b.biome
    floor, shapes, half = b.floor(middle), b.at(middle).solid, (piece.s1 - piece.s0) / 2
    if piece.variant == 0:
        points = [(x, middle, floor + z) for z in (-0.1, 0.5, 1.1, 1.5)]
        shapes.turned(
            points, (0.85, 0.95, 0.75, 0.3), "rock", biome.rock, rough=0.12, foot=0.6, cap="rock", cap_colour=biome.rock
        )
    elif piece.variant == 1:
        for i, z in enumerate((0.45, 1.25, 2.0)):
            wide = 0.78 - 0.12 * i
            colour = b.tone(biome.trim if i % 2 else biome.stone)
            shapes.box(
                (x, middle, floor + z), (wide, half * 0.8, 0.42), "relief", colour, metres=1.2, foot=0.6, taper=0.94
            )
        for dx in (-0.25, 0.25):
            shapes.box((x + dx, middle - half * 0.8, floor + 1.35), (0.12, 0.05, 0.1), "plain", (0.1, 0.08, 0.07))
    elif piece.variant == 2:
        points = [(x, middle, floor), (x, middle, floor + 1.1), (x + 0.05, middle, floor + 2.3)]
        shapes.turned(
            points, (0.62, 0.55, 0.52), "brick", b.tone(biome.stone), sides=10, metres=1.0, foot=0.6, cap="plain"
        )
        shapes.box((x, middle, floor + 0.12), (0.85, 0.7, 0.14), "trim", b.tone(biome.trim), foot=0.7)
    else:
        shapes.box((x, middle, floor + 0.4), (0.75, 0.6, 0.4), "brick", b.tone(biome.stone), taper=0.8, foot=0.6)
        shapes.box((x, middle, floor + 1.0), (0.55, 0.5, 0.22), "relief", b.tone(biome.trim), taper=1.3, metres=0.8)
        for dx in (-0.25, 0.25):
            b.flame(middle, x + dx, floor + 1.1, 1.3)


def bridge(b: LegBuilder, piece: Piece) -> None:
    """Planks on ropes."""
    s, biome = piece.s0, b.biome
    floor = b.floor(s)
    while s < piece.s1 - 0.1:
        sag = 0.03 * math.sin(7 * s)
        x = float(b.rng.uniform(-0.07, 0.07))
        b.at(s).solid.box((x, s + 0.2, floor - 0.08 + sag), (1.75, 0.19, 0.06), "plank", b.tone(WOOD, 0.22), metres=1.6)
        s += 0.42
    for side in (-1, 1):
        for end in (piece.s0, piece.s1):
            b.at(end).solid.box((side * 1.8, end, floor + 0.6), (0.16, 0.16, 0.75), "bark", biome.trunk, foot=0.6)
        spots = np.linspace(piece.s0, piece.s1, 9)
        dip = 1.1 - 0.5 * np.sin(np.linspace(0, np.pi, 9))
        path = np.stack([np.full(9, side * 1.8), spots, floor + dip], 1)
        for i in range(0, 8, 2):
            b.at(float(spots[i])).solid.turned(path[i : i + 3], np.full(3, 0.045), "bark", (0.66, 0.55, 0.36), sides=4)
        for spot, high in zip(spots[1:-1], dip[1:-1], strict=True):
            b.at(float(spot)).solid.box(
                (side * 1.8, float(spot), floor + float(high) / 2),
                (0.025, 0.025, float(high) / 2),
                "bark",
                (0.6, 0.5, 0.34),
            )


def tunnel(b: LegBuilder, piece: Piece) -> None:
    """Walls and a broken roof, with light falling in between."""
    biome, s = b.biome, piece.s0
    while s < piece.s1 - 0.5:
        stop = min(s + 2.0, piece.s1)
        middle, half = (s + stop) / 2, (stop - s) / 2
        floor, shapes = b.floor(middle), b.at(middle).solid
        for side in (-1, 1):
            high = float(b.rng.uniform(3.7, 4.4))
            shapes.box(
                (side * 2.35, middle, floor + high / 2 - 0.6), (0.4, half, high / 2 + 0.6), "brick",
                b.tone(biome.stone, 0.05), foot=0.5, metres=2.2,
            )  # fmt: skip
            if b.rng.random() < 0.4:
                shapes.box(
                    (side * 1.9, middle, floor + 1.6), (0.16, 0.3, 1.6), "relief", b.tone(biome.trim), metres=1.0
                )
        if b.rng.random() < 0.6:
            shapes.box(
                (0, middle, floor + 4.55), (2.8, half, 0.3), "brick", b.tone(biome.stone), bottom=True, metres=2.2
            )
        s = stop
    for side in (-1, 1):
        floor = b.floor(piece.s0)
        b.flame((piece.s0 + piece.s1) / 2, side * 1.85, floor + 2.1, 0.9)
    gate(b, piece)


def gate(b: LegBuilder, piece: Piece) -> None:
    """A tall gateway that one runs through."""
    biome, s = b.biome, piece.s0
    floor, shapes = b.floor(s), b.at(s).solid
    high = 4.4
    for side in (-1, 1):
        shapes.box(
            (side * 2.25, s, floor + high / 2 - 0.5),
            (0.5, 0.6, high / 2 + 0.5),
            "relief",
            b.tone(biome.stone),
            metres=1.6,
            foot=0.6,
        )
        shapes.box((side * 2.25, s, floor + 0.25), (0.62, 0.72, 0.3), "trim", b.tone(biome.trim), foot=0.7)
        b.flame(s, side * 1.7, floor + 2.0, 0.8)
        shapes.box((side * 1.7, s, floor + 1.86), (0.12, 0.12, 0.14), "bark", (0.3, 0.25, 0.2), taper=1.5)
    shapes.box((0, s, floor + high + 0.3), (3.0, 0.62, 0.42), "relief", biome.stone, metres=1.6, bottom=True, foot=0.7)
    shapes.box((0, s, floor + high + 0.85), (3.3, 0.75, 0.16), "trim", b.tone(biome.trim), foot=0.7)
    shapes.box((0, s, floor + high + 1.3), (0.8, 0.45, 0.35), "brick", b.tone(biome.trim), taper=0.6)


BUILDERS: dict[str, Any] = {
    "wall": wall, "beam": beam, "pillar": pillar, "bridge": bridge, "tunnel": tunnel, "gate": gate,
}  # fmt: skip
