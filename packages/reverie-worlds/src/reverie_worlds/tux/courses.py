"""The courses of Extreme Tux Racer, read from the game's own data: where the menu has them, their shape and trees.

Places on a course are given as `along`, metres down the course from its top, and `right`, metres from its left edge as
seen by somebody who looks down it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.errors import WorldError

DATA = Path("/usr/share/games/etr")
"""Compiled into Debian's game."""

GROUPS = ("extras", "default")
"""Folders of courses, in the order in which the menu counts them."""

BASE_HEIGHT = 127
"""The grey of the height map that lies on the slope itself."""

OBJECT_COLORS = {
    "herring": ((0, 0, 200), (150, 255, 255)),
    "tree": ((220, 220, 220), (255, 255, 255)),
    "tree_barren": ((220, 86, 0), (255, 106, 40)),
    "shrub": ((0, 220, 0), (40, 255, 80)),
}
"""Colour ranges of the objects in `trees.png`: lowest and highest colour of each, tested in this order."""

OBJECT_DIAMETERS = {"tree": 2.5, "tree_barren": 3.0, "shrub": 1.2}
"""The game gives each its own size by chance, about so large in metres."""

WAY_ROW = 2.0
"""Metres down the course between the rows of `Course.way`; its columns are one metre apart."""

WAY_MOVES = range(-4, 5)
"""Columns that a way may go aside from one row to the next."""

Points = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Course:
    """One course.  group, name: its folders.  index: its place in the group's list in the menu.

    length, width: metres.  play_length: where the finish line is; play_width: the part, in the middle, that can be
    slid on.  start: (right, along).  angle_deg: of the whole slope.  scale: metres between black and white of the map.
    """

    group: str
    name: str
    index: int
    length: float
    width: float
    play_length: float
    play_width: float
    start: tuple[float, float]
    angle_deg: float
    scale: float

    @property
    def map(self) -> str:
        """Its name among the maps, such as `default/bunny_hill`."""
        return f"{self.group}/{self.name}"

    @cached_property
    def heights(self) -> npt.NDArray[np.float32]:
        """(rows, columns) float32 metres: the snow, from the top down and from left to right; the slope included."""
        grey = _pixels(self._folder / "elev.png")[:, ::-1, 0].astype(np.float32)
        drop = np.arange(len(grey)) / len(grey) * self.length * np.tan(np.radians(self.angle_deg))
        return (grey - BASE_HEIGHT) / 255 * self.scale - drop[:, None].astype(np.float32)

    @cached_property
    def obstacles(self) -> Points:
        """(n, 3) float32: right, along and diameter of what one can run into, sorted by along."""
        return self._objects[0]

    @cached_property
    def herrings(self) -> Points:
        """(n, 2) float32: right and along of the fish, sorted by along."""
        return self._objects[1]

    def height(self, right: npt.ArrayLike, along: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Interpolates the height of the snow, metres, linearly between the points of the map; outside, its edges go
        on."""
        rows, columns = self.heights.shape
        x = np.clip(np.asarray(right) / self.width * (columns - 1), 0, columns - 1.001)
        y = np.clip(np.asarray(along) / self.length * (rows - 1), 0, rows - 1.001)
        i, j = x.astype(int), y.astype(int)
        u, v = x - i, y - j
        h = self.heights
        upper = h[j, i] * (1 - u) + h[j, i + 1] * u
        lower = h[j + 1, i] * (1 - u) + h[j + 1, i + 1] * u
        return (upper * (1 - v) + lower * v).astype(np.float32)

    @cached_property
    def way(self) -> npt.NDArray[np.float32]:
        """(rows, columns) float32: what it costs to slide from there to the finish, best way, about 1 for each row.

        Every WAY_ROW metres along, every metre from left to right.  Snow that rises over the slope costs, trees do, and
        the edges.  Found from the finish upwards, row by row.
        """
        along = np.arange(0.0, self.play_length + WAY_ROW, WAY_ROW)
        right = np.arange(0.0, self.width + 1.0)
        height = self.height(*np.meshgrid(right, along)) + (along * np.tan(np.radians(self.angle_deg)))[:, None]
        trouble = self._trouble(len(along), len(right))
        cost = np.zeros(height.shape, np.float32)
        for row in range(len(along) - 2, -1, -1):
            options = []
            for aside in WAY_MOVES:
                to = np.clip(np.arange(len(right)) + aside, 0, len(right) - 1)
                climb = np.maximum(height[row + 1, to] - height[row] - 0.3, 0.0)
                options.append(cost[row + 1, to] + 1.0 + 0.1 * abs(aside) + 3.0 * climb)
            cost[row] = np.min(options, axis=0) + trouble[row]
        return cost

    def _trouble(self, rows: int, columns: int) -> npt.NDArray[np.float32]:
        """Cost of each point of `way` from trees and edges, `(rows, columns)`."""
        trouble = np.zeros((rows, columns), np.float32)
        for right, along, diameter in self.obstacles:
            reach = diameter / 2 + 1.0
            first, last = int(np.ceil(right - reach)), int(right + reach) + 1
            row = round(float(along) / WAY_ROW)
            if row < rows:
                trouble[row, max(first, 0) : max(last, 0)] += 4.0
        edge = int((self.width - self.play_width) / 2) + 2
        trouble[:, :edge] += 4.0
        trouble[:, columns - edge :] += 4.0
        return trouble

    @property
    def _folder(self) -> Path:
        return DATA / "courses" / self.group / self.name

    @cached_property
    def _objects(self) -> tuple[Points, Points]:
        listed = self._folder / "items.lst"
        items = _listed_items(listed) if listed.is_file() else _drawn_items(self._folder / "trees.png")
        rows, columns = self.heights.shape
        trees, fish = [], []
        for kind, x, z, diameter in items:
            right = (columns - x) / (columns - 1) * self.width
            along = (rows - z) / (rows - 1) * self.length
            if kind == "herring":
                fish.append((right, along))
            elif kind.startswith(("tree", "shrub")):
                trees.append((right, along, diameter))
        obstacles = np.array(sorted(trees, key=lambda row: row[1]), np.float32).reshape(-1, 3)
        return obstacles, np.array(sorted(fish, key=lambda row: row[1]), np.float32).reshape(-1, 2)


def read_courses() -> dict[str, Course]:
    """Every course of the game by its name.  Raises WorldError where the game's data are missing or not understood."""
    courses = {}
    for group in GROUPS:
        folder = DATA / "courses" / group
        try:
            names = re.findall(r"^\s*\*.*?\[dir\]\s*(\w+)", (folder / "courses.lst").read_text("latin-1"), re.MULTILINE)
            for index, name in enumerate(names):
                course = _read_course(group, name, index, folder / name / "course.dim")
                courses[course.map] = course
        except (OSError, KeyError, ValueError) as error:
            raise WorldError(
                f"the courses of Extreme Tux Racer are not to be read in {folder}: {error}; "
                "sudo apt install extremetuxracer"
            ) from error
    return courses


def _read_course(group: str, name: str, index: int, file: Path) -> Course:
    told = dict(re.findall(r"\[(\w+)\]\s*(-?[\d.]+)", file.read_text("latin-1")))
    value = {key: float(told[key]) for key in ("length", "width", "play_length", "play_width", "angle", "scale")}
    return Course(
        group,
        name,
        index,
        value["length"],
        value["width"],
        value["play_length"],
        value["play_width"],
        (float(told["startx"]), float(told["starty"])),
        value["angle"],
        value["scale"],
    )


def _pixels(file: Path) -> npt.NDArray[np.uint8]:
    with Image.open(file, formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("RGB"))


def _listed_items(file: Path) -> list[tuple[str, float, float, float]]:
    """(kind, x, z, diameter) in the game's own grid: z grows towards the top of the course, x to the left."""
    found = re.findall(
        r"\[name\]\s*(\w+)\s*\[x\]\s*(\d+)\s*\[z\]\s*(\d+).*?\[diam\]\s*([\d.]+)", file.read_text("latin-1")
    )
    return [(kind, float(x), float(z), float(diameter)) for kind, x, z, diameter in found]


def _drawn_items(file: Path) -> list[tuple[str, float, float, float]]:
    pixels = _pixels(file)
    items: list[tuple[str, float, float, float]] = []
    for kind, (low, high) in OBJECT_COLORS.items():
        hit = np.all((pixels >= low) & (pixels <= high), axis=2)
        if kind == "herring":
            hit &= pixels[..., 0] < 150
        rows, columns = np.nonzero(hit)
        size = OBJECT_DIAMETERS.get(kind, 1.0)
        items += [(kind, float(x), float(len(pixels) - 1 - y), size) for y, x in zip(rows, columns, strict=True)]
    return items
