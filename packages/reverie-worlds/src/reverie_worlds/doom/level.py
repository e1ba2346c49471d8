"""A Doom level read from its file: positions of items, lines that block, and lines that can be used.

Casting rays over the map costs a hundredth of the game's drawing of a depth map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie_worlds.doom.wad import Wad

THING = np.dtype([("x", "<i2"), ("y", "<i2"), ("angle", "<i2"), ("kind", "<i2"), ("flags", "<i2")])
LINE = np.dtype([(n, "<i2") for n in ("start", "end", "flags", "special", "tag", "right", "left")])
SIDE = np.dtype([("offset", "<i2", 2), ("textures", "S8", 3), ("sector", "<i2")])
VERTEX = np.dtype([("x", "<i2"), ("y", "<i2")])
SECTOR = np.dtype([("floor", "<i2"), ("ceiling", "<i2"), ("rest", "S22")])
"""Doom's own formats; lengths in map units."""

MAX_STEP = 24
"""Players walk up steps as high as this, map units."""
PLAYER_HEIGHT, PLAYER_RADIUS = 56, 16
BLOCKING = 1
"""Flag of a line that blocks everybody."""
MULTIPLAYER_ONLY = 16

PICKUP_KINDS = (
    5, 6, 8, 13, 17, 38, 39, 40, 82, 83, *range(2001, 2009), *range(2010, 2016), 2018, 2019, *range(2022, 2027),
    2045, 2046, 2047, 2048, 2049,
)  # fmt: skip
"""Items; players can stand where these lie."""

USABLE = (
    1, 26, 27, 28, 31, 32, 33, 34, 117, 118, 7, 9, 14, 15, 18, 20, 21, 23, 29, 41, 42, 43, 45, 49, 50, 55,
    *range(60, 72), 99, 101, 102, 103, *range(111, 117), 122, 123, 127, *range(131, 141),
)  # fmt: skip
"""Lines that do something when used: doors, lifts and switches, but for the ends of levels."""

SIGHT_UNITS = 640.0
"""Range of the ray casts, map units; lines further away are ignored."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Distances from the player, cast over the level's map.

    free: `(r,)` float32, free distance in each direction, map units along the view.  view: distance of the walls in the
    middle of the view that hide everything behind them.  use, use_slope: distance of the nearest usable line, infinity
    if there is none, and its direction.
    """

    free: npt.NDArray[np.float32]
    view: float = SIGHT_UNITS
    use: float = np.inf
    use_slope: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Lines of one level that block movement or sight.

    starts, along: `(2, n)` float32 map units, start and direction of each line.  box: `(4, n)`, their least x and y and
    most x and y.  from_right, from_left: the line stops movement from that side.  opaque: the line blocks sight.
    usable: the line reacts to `use`.  spots: positions of items.
    """

    starts: npt.NDArray[np.float32]
    along: npt.NDArray[np.float32]
    box: npt.NDArray[np.float32]
    from_right: npt.NDArray[np.bool_]
    from_left: npt.NDArray[np.bool_]
    opaque: npt.NDArray[np.bool_]
    usable: npt.NDArray[np.bool_]
    spots: list[tuple[int, int]]

    def look(self, x: float, y: float, yaw_deg: float, slopes: npt.NDArray[np.float32], is_open: bool = False) -> Sight:
        """Casts a ray from (x, y) towards `yaw_deg` (clockwise) for each slope right of straight ahead.

        is_open: doors and the like stop nobody.
        """
        left, low, right, high = self.box
        near = np.flatnonzero(
            (left < x + SIGHT_UNITS) & (right > x - SIGHT_UNITS) & (low < y + SIGHT_UNITS) & (high > y - SIGHT_UNITS)
        )
        (sx, sy), (ex, ey) = self.starts[:, near], self.along[:, near]
        sx, sy = sx - np.float32(x), sy - np.float32(y)
        offset = sx * ey - sy * ex  # where the line is beside the player: to its right, or to its left
        does_stop = np.where(offset < 0, self.from_right[near], self.from_left[near])
        stops = np.flatnonzero(does_stop & ~self.usable[near] if is_open else does_stop)
        sx, sy, ex, ey, offset = sx[stops], sy[stops], ex[stops], ey[stops], offset[stops]
        usable = self.usable[near[stops]]
        heading = np.radians(-yaw_deg)
        cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
        rx, ry = (cos + slopes * sin)[:, None], (sin - slopes * cos)[:, None]  # (r, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            across = 1.0 / (rx * ey - ry * ex)  # (r, n)
            distance = offset * across
            share = (sx * ry - sy * rx) * across
        hit = np.where((share >= 0) & (share <= 1) & (distance > 0), distance, SIGHT_UNITS)
        if not hit.shape[1]:
            return Sight(np.full(len(slopes), SIGHT_UNITS, np.float32))
        first = hit.argmin(axis=1)
        far = np.minimum(hit[np.arange(len(slopes)), first], SIGHT_UNITS).astype(np.float32)
        third = len(slopes) // 3
        hidden = np.where(self.opaque[near[stops]], hit[third:-third], SIGHT_UNITS).min(axis=1)
        things = np.where(usable[first] & (far < SIGHT_UNITS), far, np.inf)
        nearest = int((things * (1.0 + slopes**2)).argmin())  # what is ahead rather than what is beside
        return Sight(far, float(np.median(hidden)), float(things[nearest]), float(slopes[nearest]))

    def free_places(self, x: float, y: float, step: float, reach: float) -> npt.NDArray[np.float32]:
        """Places `(n, 2)` on a grid of `step` that one can walk to from (x, y), within `reach` in both directions.

        Map units.  One walks straight from cell to cell of the grid, through no closed door and up no high step, and
        stays a player's width away from what stops one.
        """
        start = (round(x / step), round(y / step))
        found, new = {start}, [(start, (x, y))]
        while new:
            (i, j), (from_x, from_y) = new.pop()
            for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                to_x, to_y = cell[0] * step, cell[1] * step
                if cell in found or max(abs(to_x - x), abs(to_y - y)) > reach:
                    continue
                if self._is_free(from_x, from_y, to_x, to_y):
                    found.add(cell)
                    new.append((cell, (to_x, to_y)))
        return np.array(sorted(found), np.float32) * np.float32(step)

    def _is_free(self, x0: float, y0: float, x1: float, y1: float) -> bool:
        """Tests whether a player can walk straight from (x0, y0) to (x1, y1), and stand there."""
        left, low, right, high = self.box
        margin = PLAYER_RADIUS + 1
        near = (left < max(x0, x1) + margin) & (right > min(x0, x1) - margin)
        near &= (low < max(y0, y1) + margin) & (high > min(y0, y1) - margin)
        near &= self.from_right | self.from_left
        starts, along = self.starts[:, near].astype(np.float64), self.along[:, near].astype(np.float64)
        square = np.maximum((along**2).sum(0), 1e-9)
        share = (((np.array([[x1], [y1]]) - starts) * along).sum(0) / square).clip(0, 1)
        is_near = np.hypot(*(starts + share * along - np.array([[x1], [y1]]))) < PLAYER_RADIUS
        if (is_near & self.from_right[near] & self.from_left[near]).any():  # at a step one may stand, above it
            return False
        side0, side1 = (along[0] * (y - starts[1]) - along[1] * (x - starts[0]) for x, y in ((x0, y0), (x1, y1)))
        way = np.array([x1 - x0, y1 - y0])
        end0, end1 = (way[0] * (p[1] - y0) - way[1] * (p[0] - x0) for p in (starts, starts + along))
        crosses = (side0 * side1 <= 0) & (end0 * end1 <= 0) & (side0 != 0)
        stops = np.where(side0 < 0, self.from_right[near], self.from_left[near])
        return not bool((crosses & stops).any())


def read_level(wad: Wad, name: str) -> Level:
    """The level `name` of `wad`.  Raises WorldError for a level that the file does not have in Doom's own format."""
    things, lines, sides, corners, sectors = (
        np.frombuffer(wad.read(lump, after=name), kind)
        for lump, kind in (
            ("THINGS", THING), ("LINEDEFS", LINE), ("SIDEDEFS", SIDE), ("VERTEXES", VERTEX), ("SECTORS", SECTOR),
        )
    )  # fmt: skip
    points = np.stack([corners["x"], corners["y"]], axis=1).astype(np.float32)
    right, left = (sectors[sides["sector"][lines[side]]] for side in ("right", "left"))
    opening = np.minimum(right["ceiling"], left["ceiling"]).astype(int) - np.maximum(right["floor"], left["floor"])
    step = left["floor"].astype(int) - right["floor"]
    closed = (lines["left"] < 0) | (lines["flags"] & BLOCKING > 0) | (opening < PLAYER_HEIGHT)
    items = things[np.isin(things["kind"], PICKUP_KINDS) & (things["flags"] & MULTIPLAYER_ONLY == 0)]
    starts, ends = points[lines["start"]].T, points[lines["end"]].T
    return Level(
        starts,
        ends - starts,
        np.concatenate([np.minimum(starts, ends), np.maximum(starts, ends)]),
        closed | (step > MAX_STEP),
        closed | (step < -MAX_STEP),
        (lines["left"] < 0) | (opening <= 0),
        np.isin(lines["special"], USABLE),
        sorted({(int(thing["x"]), int(thing["y"])) for thing in items}),
    )
