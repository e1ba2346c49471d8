"""The street plan: an endless, irregular grid of roads with blocks between them, all worked out from a city's number.

Column i of roads lies at x = `Plan.x(i)`, row j at y = `Plan.y(j)`; block (i, j) lies north-east of junction (i, j).
Some road pieces are missing, so that there are T-junctions and long blocks; a junction never lacks more than one arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

NORTH, EAST, SOUTH, WEST = range(4)
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""From junction (i, j) to its neighbour in each direction."""

KERB_M = 0.14
"""Height of the pavement above the road, metres."""


@dataclass(frozen=True, slots=True)
class Style:
    """A district: how far apart its roads are, how wide, and which kinds of block it has with what weight."""

    name: str
    spacing_m: float
    jitter_m: float
    avenue_share: float
    pavement_m: float
    blocks: tuple[tuple[str, float], ...]


STYLES = {
    style.name: style
    for style in (
        Style("downtown", 86.0, 12.0, 0.45, 4.5, (("towers", 0.72), ("oldtown", 0.1), ("park", 0.1), ("plaza", 0.08))),
        Style("oldtown", 66.0, 12.0, 0.15, 3.0, (("oldtown", 0.82), ("park", 0.1), ("plaza", 0.08))),
        Style("suburb", 84.0, 10.0, 0.1, 3.2, (("houses", 0.84), ("park", 0.1), ("oldtown", 0.06))),
        Style(
            "waterfront", 78.0, 12.0, 0.3, 5.0, (("midrise", 0.62), ("park", 0.14), ("towers", 0.14), ("plaza", 0.1))
        ),
    )
}
"""The districts; a city is all of one."""

HALF_STREET_M, HALF_AVENUE_M = 5.2, 8.6
"""Half the asphalt of a street (a lane each way, a strip to park) and of an avenue (two lanes each way)."""


@dataclass(frozen=True, slots=True)
class Block:
    """The land between roads: `x0..x1, y0..y1` up to the kerbs, its kind, and the grid cells that it covers."""

    i: int
    j: int
    x0: float
    y0: float
    x1: float
    y1: float
    kind: str


class Plan:
    """The street plan of one city.  city: its number, any integer from 0.  style: its district."""

    def __init__(self, style: Style, city: int) -> None:
        self.style = style
        self.city = city
        self.x = cache(lambda i: self._line(1, i))
        self.y = cache(lambda j: self._line(2, j))
        self.half_x = cache(lambda i: self._half(3, i))
        self.half_y = cache(lambda j: self._half(4, j))
        self.has_north = cache(self._has_north)
        self.has_east = cache(self._has_east)
        self.block = cache(self._block)

    def rng(self, *what: int) -> np.random.Generator:
        """The dice of one thing in this city, named by whole numbers."""
        return np.random.default_rng([self.city, *(v & 0xFFFFFFFF for v in what)])

    def arm(self, i: int, j: int, direction: int) -> bool:
        """Tests whether a road leaves junction (i, j) in this direction."""
        if direction == NORTH:
            return self.has_north(i, j)
        if direction == EAST:
            return self.has_east(i, j)
        return self.has_north(i, j - 1) if direction == SOUTH else self.has_east(i - 1, j)

    def half_road(self, i: int, j: int, direction: int) -> float:
        """Half the asphalt's width of the road leaving (i, j) in this direction, metres."""
        return self.half_x(i) if direction in (NORTH, SOUTH) else self.half_y(j)

    def half_across(self, i: int, j: int, direction: int) -> float:
        """Distance from the middle of junction (i, j) to its edge in this direction: half the width of the crossing
        road."""
        return self.half_y(j) if direction in (NORTH, SOUTH) else self.half_x(i)

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """The grid cell (i, j) that holds a point: between columns i and i + 1, rows j and j + 1."""
        i, j = round(x / self.style.spacing_m), round(y / self.style.spacing_m)
        while self.x(i) > x:
            i -= 1
        while self.x(i + 1) <= x:
            i += 1
        while self.y(j) > y:
            j -= 1
        while self.y(j + 1) <= y:
            j += 1
        return i, j

    def block_at(self, i: int, j: int) -> Block:
        """The block that covers a grid cell; long ones belong to the cell in their south-west."""
        kind = (2 * i + j) % 5
        if kind == 0 and not self.has_north(i, j):
            return self.block(i - 1, j)
        if kind == 2 and not self.has_east(i, j):
            return self.block(i, j - 1)
        return self.block(i, j)

    def on_land(self, x: float, y: float) -> bool:
        """Tests whether a point lies inside a kerb rather than on a road."""
        block = self.block_at(*self.cell(x, y))
        return block.x0 < x < block.x1 and block.y0 < y < block.y1

    def _line(self, axis: int, k: int) -> float:
        jitter = self.rng(axis, k).uniform(-1, 1) * self.style.jitter_m
        return k * self.style.spacing_m + jitter

    def _half(self, axis: int, k: int) -> float:
        return HALF_AVENUE_M if self.rng(axis, k).random() < self.style.avenue_share else HALF_STREET_M

    def _has_north(self, i: int, j: int) -> bool:
        return (2 * i + j) % 5 != 0 or self.rng(5, i, j).random() > 0.6 or self.half_x(i) == HALF_AVENUE_M

    def _has_east(self, i: int, j: int) -> bool:
        return (2 * i + j) % 5 != 2 or self.rng(6, i, j).random() > 0.6 or self.half_y(j) == HALF_AVENUE_M

    def _block(self, i: int, j: int) -> Block:
        x1, y1 = i + 1, j + 1
        if not self.has_north(x1, j):
            x1 += 1
        elif not self.has_east(i, y1):
            y1 += 1
        return Block(
            i, j,
            self.x(i) + self.half_x(i), self.y(j) + self.half_y(j),
            self.x(x1) - self.half_x(x1), self.y(y1) - self.half_y(y1),
            self._kind(i, j),
        )  # fmt: skip

    def _kind(self, i: int, j: int) -> str:
        if self.style.name == "waterfront" and i % 3 == 0:
            return "water"
        kinds, weights = zip(*self.style.blocks, strict=True)
        return str(self.rng(7, i, j).choice(kinds, p=weights))
