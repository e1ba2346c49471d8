"""The parts that a grid cell of the city is built into: meshes, obstacles, lamps and traffic lights."""

from __future__ import annotations

from dataclasses import dataclass, field

from reverie_worlds.city.buildings import Rect
from reverie_worlds.panda.mesh import Mesh


@dataclass(slots=True)
class Chunk:
    """Geometry and obstacles of one cell.

    near, far: its meshes, with and without details.  boxes (x0, y0, x1, y1): buildings; low: obstacles below eye level,
    such as parked cars; circles (x, y, radius): posts and trees; nothing passes these.  lamps: positions of street
    lamps.  heads: traffic lights (x, y, yaw, direction).
    """

    near: Mesh = field(default_factory=Mesh)
    far: Mesh = field(default_factory=Mesh)
    boxes: list[Rect] = field(default_factory=list)
    low: list[Rect] = field(default_factory=list)
    circles: list[tuple[float, float, float]] = field(default_factory=list)
    lamps: list[tuple[float, float, float]] = field(default_factory=list)
    heads: list[tuple[float, float, float, int]] = field(default_factory=list)


class NoMesh(Mesh):
    """Takes everything and keeps nothing."""

    def add(self, *_: object, **__: object) -> None:
        """Nothing."""

    def quads(self, *_: object, **__: object) -> None:
        """Nothing."""

    def box(self, *_: object, **__: object) -> None:
        """Nothing."""

    def extend(self, *_: object, **__: object) -> None:
        """Nothing."""
