"""Trigger Rally's own data: which tracks there are, how each is laid out, and the level file that an episode plays.

The game's `data.zip` has 98 maps and 13 events of 80 levels.  A level is an XML file beside its images: heights,
colours, and a map of the roads.  Lengths are metres; x grows to the east, y to the north, and the terrain repeats in
both directions without end.
"""

from __future__ import annotations

import heapq
import io
import math
import posixpath
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.errors import WorldError

DATA = Path("/usr/share/games/trigger-rally/data.zip")
MAP_FORMATS = ("PNG", "JPEG")
"""Image formats of a track's maps."""
LEVEL_NAME = "maps/reverie/reverie.level"
"""Path of an episode's level in the game's files."""

HELDOUT_RESIDUE = 7
"""A track is held out if the checksum of its heights leaves this remainder by ten: one terrain's tracks go together."""

CELL_M = 5.0
"""Roads are planned on cells of about this size."""

OFF_ROAD_COST = 12.0
STEP_M = 4.0
"""Distance between the points of a route."""

LOST_M = 40.0
"""Distance from the last known part of the route above which the whole route is searched."""

PICTURES = (".png", ".jpg", ".jpeg")

Points = npt.NDArray[np.float32]
"""Places on the map: `(n, 2)` float32, metres."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One level: its parsed file, and the folder of its images.

    heights: checksum of the height map, which identifies the terrain.
    """

    name: str
    file: str
    root: ET.Element
    heights: int

    @property
    def is_heldout(self) -> bool:
        """Never recorded for training."""
        return self.heights % 10 == HELDOUT_RESIDUE

    @property
    def terrain(self) -> ET.Element:
        return _child(self.root, "terrain")

    @property
    def race(self) -> ET.Element:
        return _child(self.root, "race")

    @property
    def weather(self) -> ET.Element:
        return _child(self.root, "weather")

    def path(self, picture: str) -> str:
        """An image that the level names, as a path in the archive."""
        return picture.lstrip("/") if picture.startswith("/") else posixpath.join(posixpath.dirname(self.file), picture)

    def places(self) -> Points:
        """The checkpoints in order, without the start, or the corners that the co-driver calls where these are more."""
        scale = np.array(_numbers(self.race.get("coordscale", "1, 1")), np.float32)
        marks = {
            tag: [_numbers(mark.get("coords", "0, 0"))[:2] for mark in self.race.iter(tag)]
            for tag in ("checkpoint", "codrivercp")
        }
        return np.array(max(marks.values(), key=len), np.float32).reshape(-1, 2) * scale

    def start(self) -> tuple[float, float, float]:
        """x, y and heading of the track's own start; the heading in degrees from north, to the right."""
        scale = _numbers(self.race.get("coordscale", "1, 1"))
        start = self.race.find("startposition")
        if start is None:
            return 0.0, 0.0, 0.0
        x, y = _numbers(start.get("pos", "0, 0"))[:2]
        if (degrees := start.get("oridegrees")) is not None:
            return x * scale[0], y * scale[1], float(degrees)
        w, _, _, z = _numbers(start.get("ori", "1, 0, 0, 0"))
        return x * scale[0], y * scale[1], math.degrees(2.0 * math.atan2(z, w))


class GameData:
    """The tracks, cars and weathers in the game's archive.

    Raises WorldError if the archive is missing or cannot be read.
    """

    def __init__(self, file: Path = DATA) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (OSError, zipfile.BadZipFile) as error:
            raise WorldError(f"{file}: not Trigger Rally's data ({error}); sudo apt install trigger-rally") from error

    @cached_property
    def tracks(self) -> dict[str, Track]:
        """Every track by its name, such as `maps/xing` or `events/02-alps/lake`."""
        files = sorted(name for name in self._zip.namelist() if name.endswith(".level"))
        return {track.name: track for track in map(self._track, files)}

    @cached_property
    def vehicles(self) -> dict[str, str]:
        """Every car by its name, such as `evo_wrc`, with the path of its file."""
        files = sorted(name for name in self._zip.namelist() if name.endswith(".vehicle"))
        return {Path(name).stem: name for name in files}

    def files(self, suffix: str) -> list[str]:
        """Paths in the archive that end so."""
        return sorted(name for name in self._zip.namelist() if name.endswith(suffix))

    def read(self, name: str) -> bytes:
        return self._zip.read(name)

    def _open_map(self, track: Track, name: str) -> Image.Image:
        return Image.open(io.BytesIO(self.read(track.path(name))), formats=MAP_FORMATS)

    def _track(self, file: str) -> Track:
        folder, stem = posixpath.dirname(file), Path(file).stem
        name = folder if posixpath.basename(folder) == stem else f"{folder}/{stem}"
        root = ET.fromstring(self._zip.read(file))
        track = Track(name, file, root, 0)
        heights = self._zip.getinfo(track.path(track.terrain.get("heightmap", ""))).CRC
        return Track(name, file, root, heights)

    def size_m(self, track: Track) -> float:
        """After how many metres the terrain repeats."""
        with self._open_map(track, track.terrain.get("heightmap", "")) as picture:
            return picture.size[0] * float(track.terrain.get("horizontalscale", "1"))

    def roads(self, track: Track) -> npt.NDArray[np.bool_] | None:
        """Road mask, `(n, n)` cells, the south-west corner first; None for the few tracks without a map."""
        name = track.terrain.get("roadmap")
        if name is None:
            return None
        cells = 2 ** round(math.log2(self.size_m(track) / CELL_M))
        with self._open_map(track, name) as picture:
            small = picture.convert("L").resize((cells, cells), Image.Resampling.BOX)
        return np.asarray(small)[::-1] > 127


class Route:
    """The way along the roads through a track's checkpoints, planned as far as it is asked for.

    first: the index of the checkpoint where it begins; None begins at the track's start.
    """

    def __init__(self, data: GameData, track: Track, first: int | None = None) -> None:
        self.size_m = data.size_m(track)
        self._costs = _costs(data.roads(track))
        places = list(track.places())
        if first is None:
            self._stops = [np.array(track.start()[:2], np.float32), *places]
        else:
            self._stops = places[first % len(places) :] + places[: first % len(places)]
        self._leg = 0
        self._nearest = 0
        self.points: Points = np.array([self._stops[0]], np.float32)

    def plan(self, length_m: float) -> None:
        """Plan on until the route is so long; it goes round for ever."""
        legs = len(self._stops)
        for _ in range(2 * legs):
            if len(self.points) * STEP_M >= length_m:
                return
            here, there = self._stops[self._leg % legs], self._stops[(self._leg + 1) % legs]
            self._leg += 1
            self.points = np.concatenate([self.points, self._plan_leg(here, there)])

    def start(self) -> tuple[float, float, float]:
        """x, y and heading at its beginning; the heading in degrees from north, to the right."""
        x, y = map(float, self.points[0])
        dx, dy = self.points[min(6, len(self.points) - 1)] - self.points[0]
        return x, y, math.degrees(math.atan2(dx, dy))

    def ahead(self, x: float, y: float, distances_m: tuple[float, ...]) -> tuple[Points, float]:
        """Finds the points of the route at given distances ahead of the point nearest to (x, y).

        Returns the offsets from (x, y), `(len(distances_m), 2)` float32 metres east and north, and the distance of
        (x, y) from the route.  Searches near the last point found, and everywhere if that has become far.
        """
        here = np.array([x, y], np.float32)
        low = max(self._nearest - 10, 0)
        away = np.hypot(*self._apart(self.points[low : self._nearest + 25], here).T)
        if away.min() > LOST_M:
            low, away = 0, np.hypot(*self._apart(self.points, here).T)
        self._nearest = low + int(np.argmin(away))
        self.plan((self._nearest + 1) * STEP_M + max(distances_m) + 100.0)
        marks = [min(self._nearest + round(d / STEP_M), len(self.points) - 1) for d in distances_m]
        return self._apart(self.points[marks], here), float(away.min())

    def _apart(self, points: Points, here: Points) -> Points:
        """The shortest ways from `here` to `points` on ground that repeats."""
        return (points - here + self.size_m / 2.0) % self.size_m - self.size_m / 2.0

    def _plan_leg(self, here: Points, there: Points) -> Points:
        cell_m = self.size_m / len(self._costs)
        begin, end = ((math.floor(p[0] / cell_m), math.floor(p[1] / cell_m)) for p in (here, there))
        if begin == end:
            return np.zeros((0, 2), np.float32)
        way = (np.array(_cheapest_way(self._costs, begin, end), np.float32) + 0.5) * cell_m
        return _resample(_smooth(way))


def level_xml(track: Track, start: tuple[float, float, float], weather: ET.Element, tile_m: float) -> str:
    """The level file of an episode on `track`: its terrain, `weather`, a start of our own and no checkpoints to see.

    start: x, y, heading in degrees from north to the right.  tile_m: the ground is drawn in tiles of about this size,
    three each way; the game draws all of them, visible or not, so the speed depends on this.
    """
    root = ET.Element("level", {"name": "reverie", "description": "-", "author": "-", "comment": "-"})
    for part in track.root:
        if part.tag in ("race", "weather", "vehicleoption"):
            continue
        root.append(_with_absolute_paths(part, track))
    _set_tiles(_child(root, "terrain"), tile_m)
    root.append(_with_absolute_paths(weather, track))
    race = ET.SubElement(root, "race", {"coordscale": "1, 1", "targettime": "3600", "laps": "999"})
    x, y, heading = start
    ET.SubElement(race, "startposition", {"pos": f"{x:.2f}, {y:.2f}", "oridegrees": f"{heading:.2f}"})
    ET.SubElement(race, "checkpoint", {"coords": "-90000, -90000"})  # with none the game makes up its own
    return '<?xml version="1.0" ?>\n' + ET.tostring(root, encoding="unicode")


def _set_tiles(terrain: ET.Element, tile_m: float) -> None:
    scale, tile = float(terrain.get("horizontalscale", "1")), int(terrain.get("tilesize", "32"))
    wanted = 2 ** round(math.log2(tile_m / scale))
    terrain.set("tilesize", str(wanted))
    for band in terrain.iter("foliageband"):  # the game plants so many on each tile, whatever the tile's size
        band.set("density", repr(float(band.get("density", "1")) * (wanted / tile) ** 2))


def _with_absolute_paths(part: ET.Element, track: Track) -> ET.Element:
    copied = ET.fromstring(ET.tostring(part))
    for element in copied.iter():
        for key, value in element.attrib.items():
            if value.lower().endswith(PICTURES) and not value.startswith("/"):
                element.set(key, "/" + track.path(value))
    return copied


def _child(parent: ET.Element, tag: str) -> ET.Element:
    found = parent.find(tag)
    return ET.Element(tag) if found is None else found


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _costs(roads: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float32]:
    """Cost of a metre in each cell for route planning: least in the middle of a road."""
    if roads is None:
        return np.ones((256, 256), np.float32)
    wide = roads.astype(np.float32)
    for axis in (0, 1):
        wide = sum((np.roll(wide, shift, axis) for shift in (-2, -1, 1, 2)), wide) / 5.0
    return np.where(roads, 1.0 + 3.0 * (1.0 - wide), OFF_ROAD_COST).astype(np.float32)


def _cheapest_way(
    costs: npt.NDArray[np.float32], begin: tuple[int, int], end: tuple[int, int]
) -> list[tuple[int, int]]:
    """A* over cells (x, y) with eight neighbours; the map repeats; a step costs at least its length in cells."""
    size = len(costs)
    table = costs.tolist()
    steps = [(dx, dy, math.hypot(dx, dy)) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy]
    best: dict[tuple[int, int], float] = {begin: 0.0}
    parent: dict[tuple[int, int], tuple[int, int]] = {}
    queue = [(math.dist(begin, end), 0.0, begin)]
    while queue:
        _, cost, cell = heapq.heappop(queue)
        if cell == end:
            break
        if cost > best[cell]:
            continue
        x, y = cell
        for dx, dy, length in steps:
            near = (x + dx, y + dy)
            total = cost + length * table[near[1] % size][near[0] % size]
            if total < best.get(near, math.inf):
                best[near] = total
                parent[near] = cell
                heapq.heappush(queue, (total + math.dist(near, end), total, near))
    way = [end]
    while way[-1] in parent:
        way.append(parent[way[-1]])
    return way[::-1]


def _smooth(way: Points) -> Points:
    for _ in range(3):
        if len(way) > 2:
            inner = (way[:-2] + 2.0 * way[1:-1] + way[2:]) / 4.0
            way = np.concatenate([way[:1], inner.astype(np.float32), way[-1:]])
    return way


def _resample(way: Points) -> Points:
    """Points STEP_M apart along `way`, without its first."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(way, axis=0).T))])
    marks = np.arange(STEP_M, along[-1] + 1e-3, STEP_M)
    return np.stack([np.interp(marks, along, way[:, i]) for i in (0, 1)], axis=1).astype(np.float32)
