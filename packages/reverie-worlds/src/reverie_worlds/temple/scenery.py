"""Geometry of a leg of the track: causeway, obstacles, ruins, rocks and trees, as shapes in the leg's own axes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reverie_worlds.temple import obstacles, plants
from reverie_worlds.temple.biomes import Biome
from reverie_worlds.temple.leg_builder import LegBuilder, Stretch
from reverie_worlds.temple.mesh import BACK, FRONT, LEFT, RIGHT, TOP
from reverie_worlds.temple.track import HALF_WIDTH, NARROW_EDGE, Leg, Piece

BEHIND_START_M = 16.0


class SceneryBuilder(LegBuilder):
    """Builds the stretches of one leg."""

    def build(self) -> list[Stretch]:
        self._causeway()
        self._supports()
        self._edges()
        for piece in self.leg.pieces:
            obstacles.BUILDERS.get(piece.kind, obstacles.nothing)(self, piece)
        self._corner()
        plants.line_the_way(self)
        return self.stretches

    # -- the causeway

    def _missing(self, s: float) -> tuple[float, float] | None:
        """The width of floor there is at s, from left to right; None for none."""
        for piece in self.leg.pieces:
            if piece.s0 <= s <= piece.s1:
                if piece.kind in ("gap", "bridge"):
                    return None
                if piece.kind == "narrow":
                    edge = float(self.rng.uniform(-0.25, 0.12)) + NARROW_EDGE
                    return (-HALF_WIDTH, edge) if piece.side > 0 else (-edge, HALF_WIDTH)
        return -HALF_WIDTH, HALF_WIDTH

    def _causeway(self) -> None:
        """Rows of slabs, a metre each, half a metre on slopes."""
        s, end = (-BEHIND_START_M if self.first else HALF_WIDTH), self.leg.length - HALF_WIDTH
        cuts = sorted({p.s0 for p in self.leg.pieces} | {p.s1 for p in self.leg.pieces} | {end})
        while s < end - 0.01:
            sloped = any(p.kind == "ramp" and p.s0 <= s < p.s1 for p in self.leg.pieces)
            stop = min(s + (0.5 if sloped else 1.0), next(c for c in cuts if c > s + 0.01))
            width = self._missing((s + stop) / 2)
            if width is not None:
                torn = any(
                    p.kind in ("gap", "bridge", "narrow", "ramp") and p.s0 < stop + 0.6 and p.s1 > s - 0.6
                    for p in self.leg.pieces
                )
                self._row(s, stop, *width, torn)
            s = stop

    def _row(self, s0: float, s1: float, left: float, right: float, torn: bool) -> None:
        """Two slabs; where the floor is torn or steps up, all their sides are seen, else the outer ones."""
        middle, floor = (s0 + s1) / 2, self.floor((s0 + s1) / 2)
        split = float(self.rng.uniform(0.35, 0.65)) * (right - left) + left
        for a, b, outer in ((left, split, LEFT), (split, right, RIGHT)):
            sunk = float(self.rng.uniform(0.0, 0.03))
            self.at(middle).solid.box(
                ((a + b) / 2, middle, floor - 0.3 - sunk), ((b - a) / 2, (s1 - s0) / 2, 0.3), "flag",
                self.tone(self.biome.stone, 0.07), metres=2.4, foot=0.6,
                faces=FRONT | RIGHT | BACK | LEFT | TOP if torn else TOP | outer,
            )  # fmt: skip

    def _supports(self) -> None:
        """Builds the supports of the causeway: piers with a deck, a massive wall, or a ridge of rock."""
        deep = self.biome.depth_m + 6.0
        step = 6.5 if self.style != "rampart" else 4.0
        s = -BEHIND_START_M if self.first else HALF_WIDTH
        while s < self.leg.length - HALF_WIDTH:
            stop = min(s + step, self.leg.length - HALF_WIDTH)
            for a, b, broken in self._solid_parts(s, stop):
                self._support(a, b, broken, deep)
            s = stop

    def _solid_parts(self, s0: float, s1: float) -> list[tuple[float, float, int]]:
        """The parts of s0..s1 that have a floor, and which side of each is broken off (0: it is whole)."""
        parts, at = [], s0
        for p in self.leg.pieces:
            if p.kind in ("gap", "bridge", "narrow") and p.s1 > s0 and p.s0 < s1:
                if p.s0 > at + 0.3:
                    parts.append((at, p.s0, 0))
                if p.kind == "narrow":
                    parts.append((max(p.s0, s0), min(p.s1, s1), p.side))
                at = max(at, p.s1)
        return [*parts, (at, s1, 0)] if s1 > at + 0.3 else parts

    def _support(self, s0: float, s1: float, broken: int, deep: float) -> None:
        middle, half = (s0 + s1) / 2, (s1 - s0) / 2
        floor = min(self.floor(s0), self.floor(s1)) - 0.6
        shapes, colour = self.at(middle).solid, self.tone(self.biome.stone, 0.06)
        if broken:  # the half that is left, on a wall of its own
            wide, down = 0.95, deep if self.style == "rampart" else 1.4
            x = -broken * (1.8 - wide)
            shapes.box((x, middle, floor - down / 2), (wide, half, down / 2), "rock", colour, metres=2.6, foot=0.5)
        elif self.style == "rampart":
            shapes.box((0, middle, floor - deep / 2), (1.75, half, deep / 2), "brick", colour, metres=2.6, foot=0.5)
        elif self.style == "ridge":
            shapes.box((0, middle, floor - 0.3), (1.8, half, 0.3), "brick", colour, metres=2.6)
            points = [(0, middle, floor - deep), (0, middle, floor - deep / 2), (0, middle, floor - 0.5)]
            shapes.turned(points, (4.2, 2.9, 2.1), "rock", self.biome.rock, rough=0.22, metres=4.0, foot=0.6)
        else:
            shapes.box((0, middle, floor - 0.45), (1.8, half, 0.45), "brick", colour, metres=2.6, foot=0.6)
            if half > 1.5:
                self._pier(middle, floor, deep, colour)

    def _pier(self, s: float, floor: float, deep: float, colour: tuple[float, float, float]) -> None:
        shapes = self.at(s).solid
        shapes.box((0, s, floor - deep / 2), (1.4, 1.0, deep / 2), "brick", colour, metres=2.6, foot=0.5)
        for side in (-1, 1):  # the spring of an arch
            shapes.box((0, s + side * 1.5, floor - 1.2), (1.5, 0.6, 0.6), "brick", colour, foot=0.6)

    def _edges(self) -> None:
        """Kerbs, broken here and there, and posts that may carry a torch."""
        open_side = {p: p.side for p in self.leg.pieces if p.kind == "narrow"}
        for side in (-1, 1):
            s = (-BEHIND_START_M if self.first else HALF_WIDTH) + 0.6
            while s < self.leg.length - HALF_WIDTH - 0.8:
                length = float(self.rng.uniform(0.9, 1.9))
                if not self._interrupted(s, s + length, side, open_side):
                    self._edge_stone(s, length, side)
                s += length + float(self.rng.uniform(0.02, 0.3))

    def _interrupted(self, s0: float, s1: float, side: int, open_side: dict[Piece, int]) -> bool:
        for p in self.leg.pieces:
            if p.s0 - 0.1 < s1 and p.s1 + 0.1 > s0 and p.kind in ("gap", "bridge", "tunnel", "gate", "beam"):
                return True
            if p.kind == "narrow" and p.side == side and p.s0 - 0.2 < s1 and p.s1 + 0.2 > s0:
                return True
        return s1 > self.leg.length - HALF_WIDTH

    def _edge_stone(self, s: float, length: float, side: int) -> None:
        middle, roll = s + length / 2, float(self.rng.random())
        floor, colour = self.floor(middle), self.tone(self.biome.stone)
        shapes, x = self.at(middle).solid, side * (HALF_WIDTH - 0.05)
        if roll < 0.12:
            return
        if roll < 0.26:
            tall = float(self.rng.uniform(0.75, 1.15))
            shapes.box((x, middle, floor + tall / 2), (0.24, 0.24, tall / 2), "relief", colour, metres=1.0, foot=0.55)
            shapes.box((x, middle, floor + tall + 0.08), (0.32, 0.32, 0.09), "trim", self.tone(self.biome.trim))
            if self.rng.random() < self.biome.torches:
                shapes.box((x, middle, floor + tall + 0.26), (0.16, 0.16, 0.1), "bark", (0.3, 0.25, 0.2), taper=1.5)
                self.flame(middle, x, floor + tall + 0.32, 0.75)
            return
        tall = float(self.rng.uniform(0.14, 0.24)) if roll < 0.85 else float(self.rng.uniform(0.35, 0.55))
        turn = float(self.rng.uniform(-0.05, 0.05))
        shapes.box(
            (x, middle, floor + tall / 2 - 0.1), (0.2, length / 2, tall / 2 + 0.1), "brick", colour,
            yaw=turn, taper=0.92, foot=0.55, metres=1.6,
        )  # fmt: skip

    # -- the corner

    def _corner(self) -> None:
        """The platform at the end, closed where there is no way on."""
        length, floor, biome = self.leg.length, self.floor(self.leg.length), self.biome
        stretch = self.at(length)
        shapes = stretch.solid
        for x in (-1, 1):
            for ds in (-1, 1):
                shapes.box(
                    (x * 1.0, length + ds * 1.0, floor - 0.3), (1.0, 1.0, 0.3), "flag", self.tone(biome.trim, 0.08),
                    metres=2.0,
                )  # fmt: skip
        deep = biome.depth_m + 6.0
        shapes.box(
            (0, length, floor - 0.6 - deep / 2), (2.0, 2.0, deep / 2), "brick", biome.stone, metres=2.6, foot=0.5
        )
        closed = [side for side, name in ((-1, "left"), (1, "right")) if name not in self.leg.exits]
        if self.leg.walled:
            obstacles.end_wall(self, floor)
        else:
            for x in (-1.9, 1.9):
                obstacles.post(self, x, length + 1.9, floor, 1.4)
        for side in closed:
            high = 1.3 if self.leg.walled else 0.35
            shapes.box(
                (side * 1.85, length, floor + high / 2), (0.22, 1.7, high / 2), "brick", self.tone(biome.stone),
                metres=1.8, foot=0.6,
            )  # fmt: skip


def build_leg(leg: Leg, biome: Biome, first: bool = False) -> list[Stretch]:
    """The shapes of `leg`, stretch by stretch; `first` adds some way behind the start."""
    return SceneryBuilder(leg, biome, first).build()


def torches(stretches: list[Stretch]) -> npt.NDArray[np.float32]:
    """Positions of flames, `(t, 3)`, in the leg's axes."""
    spots = [(x, y, z + 0.3) for stretch in stretches for x, y, z, _, _ in stretch.flames]
    return np.array(spots, np.float32).reshape(-1, 3)
