"""Static parts of the rendered city: the cells round the player as meshes, their lamps, signals and obstacles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie_worlds.city.chunks import Chunk, build_chunk
from reverie_worlds.city.plan import Plan
from reverie_worlds.city.skies import DARK
from reverie_worlds.city.textures import paint_layers
from reverie_worlds.city.traffic import Point, signal
from reverie_worlds.panda.renderer import Mesh, Panda, make_texture, make_texture_array

FAR_CELLS = 3
NEAR_M, LET_GO_M = 58.0, 95.0
LOOK_AGAIN_M = 3.0
SHADOW_RADIUS_M, SHADOW_STEP_M = 85.0, 14.0
AMBER = (1.0, 0.72, 0.38)

Array = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Cell:
    """A cell on the screen."""

    chunk: Chunk
    is_near: bool
    node: Any
    lamps: Any = None
    lights: dict[tuple[int, str], Any] | None = None


def halo_texture() -> Any:
    """A soft round light."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    alpha = np.clip(1 - np.hypot(x, y), 0, 1) ** 2
    return make_texture(_with_alpha(alpha), repeat=False, name="halo")


def shade_texture() -> Any:
    """A soft dark patch, rounder at its corners, for under things."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    alpha = np.clip(1.25 - (x**4 + y**4) ** 0.25 * 1.25, 0, 1) ** 0.8
    return make_texture(_with_alpha(alpha), repeat=False, name="shade")


def solid_texture() -> Any:
    """White all over: for things that are bright by themselves."""
    return make_texture(np.full((2, 2, 4), 255, np.uint8), name="solid")


def _with_alpha(alpha: Array) -> npt.NDArray[np.uint8]:
    pixels = np.full((*alpha.shape, 4), 255, np.uint8)
    pixels[:, :, 3] = np.clip(alpha * 255, 0, 255)
    return pixels


class Stage:
    """The cells of one city on one screen.  sky: its name, for the lamps."""

    def __init__(self, screen: Panda, textures: Any, halo: Any) -> None:
        self._screen, self._textures, self._halo = screen, textures, halo
        self._solid = solid_texture()
        self._cells: dict[tuple[int, int], _Cell] = {}
        self._obstacles: dict[tuple[int, int], tuple[Array, Array, Array]] = {}
        self._shadowed: Point | None = None
        self._looked: Point | None = None

    @staticmethod
    def make_textures() -> Any:
        """The texture array that all cells share."""
        return make_texture_array(paint_layers())

    def open(self, plan: Plan, sky: str, centre: Point) -> None:
        """Show the city round `centre`; everything that was shown before goes."""
        self.clear()
        self._plan, self._dark = plan, DARK.get(sky, 0.0)
        self.follow(centre, most=10_000)

    def clear(self) -> None:
        """Take everything off the screen."""
        for key in list(self._cells):
            self._drop(key)
        self._obstacles.clear()
        self._shadowed = self._looked = None

    def follow(self, centre: Point, most: int = 1) -> None:
        """Build what came near, `most` detailed cells and twice as many plain ones, and drop what fell behind."""
        if self._looked is not None and math.dist(self._looked, centre) < LOOK_AGAIN_M:
            return
        ci, cj = self._plan.cell(*centre)
        keys = [
            (i, j) for i in range(ci - FAR_CELLS, ci + FAR_CELLS + 1) for j in range(cj - FAR_CELLS, cj + FAR_CELLS + 1)
        ]
        order = sorted((self._distance(key, centre), key) for key in keys)
        fresh = 0
        for distance, key in order:
            cell = self._cells.get(key)
            if fresh >= 2 * most:
                break
            is_near = cell is not None and cell.is_near
            if distance < NEAR_M and not is_near:
                self._show(key, True)
                fresh += 2
            elif cell is None or (is_near and distance > LET_GO_M):
                self._show(key, False)
                fresh += 1
        self._looked = None if fresh else centre
        for key in [k for k in self._cells if max(abs(k[0] - ci), abs(k[1] - cj)) > FAR_CELLS + 1]:
            self._drop(key)
        self._cast(centre)

    def set_signals(self, time_s: float) -> None:
        """Show each junction's lights as they are now."""
        for (i, j), cell in self._cells.items():
            if not cell.lights:
                continue
            now = {parity: signal(i, j, parity, time_s) for parity in (0, 1)}
            for (parity, colour), node in cell.lights.items():
                node.show() if now[parity] == colour else node.hide()

    def obstacles(self, centre: Point) -> tuple[Array, Array, Array]:
        """Near a point: buildings `(n, 4)`, low boxes `(n, 4)`, posts `(n, 3)`; of the cell and its neighbours."""
        ci, cj = self._plan.cell(*centre)
        if (ci, cj) not in self._obstacles:
            if len(self._obstacles) > 64:
                self._obstacles.clear()
            chunks = [self._chunk(i, j) for i in range(ci - 2, ci + 2) for j in range(cj - 2, cj + 2)]
            self._obstacles[ci, cj] = (
                np.array([box for c in chunks for box in c.boxes], float).reshape(-1, 4),
                np.array([box for c in chunks for box in c.low], float).reshape(-1, 4),
                np.array([post for c in chunks for post in c.circles], float).reshape(-1, 3),
            )
        return self._obstacles[ci, cj]

    def _chunk(self, i: int, j: int) -> Chunk:
        cell = self._cells.get((i, j))
        return cell.chunk if cell is not None else build_chunk(self._plan, i, j, detailed=False)

    def _distance(self, key: tuple[int, int], centre: Point) -> float:
        """Distance to the nearest spot of a cell, metres; long blocks reach one cell further."""
        (i, j), plan = key, self._plan
        block = plan.block_at(i, j)
        mine = (block.i, block.j) == key
        x1, y1 = plan.x(i + 1), plan.y(j + 1)
        if mine:
            x1, y1 = max(x1, block.x1), max(y1, block.y1)
        dx = max(plan.x(i) - 9 - centre[0], 0.0, centre[0] - x1)
        dy = max(plan.y(j) - 9 - centre[1], 0.0, centre[1] - y1)
        return math.hypot(dx, dy)

    def _show(self, key: tuple[int, int], near: bool) -> None:
        self._drop(key)
        chunk = build_chunk(self._plan, *key, detailed=near)
        node = (chunk.near if near else chunk.far).node("cell")
        self._screen.use_texture_array(node, self._textures)
        self._screen.draw_near_first(node)
        node.reparentTo(self._screen.root)
        if not near:
            self._screen.cast_no_shadow(node)
        cell = self._cells[key] = _Cell(chunk, near, node)
        if near and chunk.lamps and self._dark:
            cell.lamps = self._lamps(chunk)
        if near and chunk.heads:
            cell.lights = self._lights(chunk)
        chunk.near = chunk.far = Mesh()  # only the obstacles are needed from here on

    def _drop(self, key: tuple[int, int]) -> None:
        cell = self._cells.pop(key, None)
        if cell is None:
            return
        for node in (cell.node, cell.lamps, *(cell.lights or {}).values()):
            if node is not None:
                node.removeNode()

    def _lamps(self, chunk: Chunk) -> Any:
        """Pools of light on the ground and halos round the lamps."""
        mesh = Mesh()
        for x, y, z in chunk.lamps:
            r = 7.5
            pool = [(x - r, y - r, 0.2), (x + r, y - r, 0.2), (x + r, y + r, 0.2), (x - r, y + r, 0.2)]
            mesh.quads([pool], (*AMBER, 0.34 * self._dark))
            h = 0.9
            for dx, dy in ((h, 0), (0, h)):
                quad = [
                    (x - dx, y - dy, z - h),
                    (x + dx, y + dy, z - h),
                    (x + dx, y + dy, z + h),
                    (x - dx, y - dy, z + h),
                ]
                mesh.quads([quad], (*AMBER, 0.75 * self._dark))
        node = mesh.node("lamps")
        node.setTexture(self._halo, 1)
        node.setTwoSided(True)
        self._screen.use_glow(node)
        node.reparentTo(self._screen.root)
        return node

    def _lights(self, chunk: Chunk) -> dict[tuple[int, str], Any]:
        """The bright discs of traffic lights, one mesh for each colour and pair of arms."""
        made: dict[tuple[int, str], Any] = {}
        colours = {
            "red": ((1.0, 0.16, 0.1, 1), 0.42),
            "yellow": ((1.0, 0.75, 0.15, 1), 0.1),
            "green": ((0.2, 1, 0.45, 1), -0.22),
        }
        for colour, (tint, z) in colours.items():
            for parity in (0, 1):
                mesh, part = Mesh(), Mesh()
                for hx, hz in ((3.4, 4.55), (0.0, 2.6)):
                    h = hz + z
                    # arms point along +x of the post and the heads face along its +y
                    quad = [
                        (hx + 0.17, 0.15, h - 0.17),
                        (hx - 0.17, 0.15, h - 0.17),
                        (hx - 0.17, 0.15, h + 0.17),
                        (hx + 0.17, 0.15, h + 0.17),
                    ]
                    part.quads([quad], tint)
                for x, y, yaw, direction in chunk.heads:
                    if direction % 2 == parity:
                        mesh.extend(part, (x, y, 0), yaw)
                if not mesh.num_triangles:
                    continue
                node = mesh.node("signal")
                node.setTexture(self._solid, 1)
                self._screen.use_glow(node, add=False)
                node.reparentTo(self._screen.root)
                made[parity, colour] = node
        return made

    def _cast(self, centre: Point) -> None:
        """Draw the shadow map again once the player has gone far enough."""
        was = self._shadowed
        if was is None or math.hypot(centre[0] - was[0], centre[1] - was[1]) > SHADOW_STEP_M:
            self._shadowed = centre
            self._screen.cast_shadows((*centre, 0.0), SHADOW_RADIUS_M)
