"""State shared by the builders of a leg: its stretches, its floor, and its own random numbers and colours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from reverie_worlds.temple.biomes import Biome
from reverie_worlds.temple.mesh import Shapes
from reverie_worlds.temple.track import Leg

CHUNK_M = 26.0
"""A leg is drawn in stretches of about this length, so that what is out of sight costs nothing."""


@dataclass(slots=True)
class Stretch:
    """A part of a leg: solid shapes, leaves, where torches burn and jets of fire blow: `(x, y, z, size, sideways)`."""

    solid: Shapes
    leaves: Shapes
    flames: list[tuple[float, float, float, float, float]] = field(default_factory=list)


class LegBuilder:
    """Holds the stretches of one leg while they are built; all of it follows from the leg's seed and the biome."""

    def __init__(self, leg: Leg, biome: Biome, first: bool) -> None:
        self.leg, self.biome = leg, biome
        self.rng = np.random.default_rng([leg.seed, 0x5CE])
        self.first = first
        count = max(1, math.ceil(leg.length / CHUNK_M))
        self.stretches = [Stretch(Shapes(self.rng), Shapes(self.rng)) for _ in range(count)]
        self.style = ("viaduct", "rampart", "ridge")[int(self.rng.choice(3, p=(0.5, 0.25, 0.25)))]
        self._profile_s = np.arange(-20.0, leg.length + 8.0, 0.25)
        self._profile_z = np.array([leg.floor(float(s)) for s in self._profile_s])

    def at(self, s: float) -> Stretch:
        """The stretch that holds s."""
        index = int(s / self.leg.length * len(self.stretches))
        return self.stretches[min(max(index, 0), len(self.stretches) - 1)]

    def floor(self, s: float) -> float:
        return float(np.interp(s, self._profile_s, self._profile_z))

    def tone(self, colour: tuple[float, float, float], spread: float = 0.1) -> tuple[float, float, float]:
        """`colour`, a little lighter or darker."""
        light = 1.0 + float(self.rng.uniform(-spread, spread))
        return colour[0] * light, colour[1] * light, colour[2] * light

    def flame(self, s: float, x: float, z: float, size: float = 0.8, sideways: float = 0.0) -> None:
        self.at(s).flames.append((x, s, z, size, sideways))
