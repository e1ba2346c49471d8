"""Shapes of the temple world as arrays: boxes, turned shapes and cards, each corner with a texture layer.

Axes are a leg's own: x to the right, y forward, z up.  Colours are sRGB 0..1 tints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reverie_worlds.panda.mesh import VERTEX, vertex_format
from reverie_worlds.panda.renderer import import_panda
from reverie_worlds.temple.textures import LAYER

Floats = npt.NDArray[np.float32]
Vec3 = Sequence[float]

FRONT, RIGHT, BACK, LEFT, TOP, BOTTOM = 1, 2, 4, 8, 16, 32
"""The faces of a box; the front looks back along the way, at who comes."""

_SIDES = ((0, -1), (1, 0), (0, 1), (-1, 0))


def _unit_box() -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Corners `(24, 3)` of the box -1..1 face by face, normals `(6, 3)`, and which axes a face's u and v run along."""
    corners, normals, axes = [], [], []
    for nx, ny in _SIDES:
        tx, ty = -ny, nx  # along the face, to the right seen from outside
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            corners.append((nx + a * tx, ny + a * ty, b))
        normals.append((nx, ny, 0))
        axes.append((0 if ny else 1, 2))
    for z in (1, -1):
        corners += [(-z, -1, z), (z, -1, z), (z, 1, z), (-z, 1, z)]
        normals.append((0, 0, z))
        axes.append((0, 1))
    return np.array(corners, np.float32), np.array(normals, np.float32), np.array(axes)


_BOX, _BOX_NORMALS, _BOX_AXES = _unit_box()
_UV = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
_QUAD = np.array([0, 1, 2, 0, 2, 3], np.uint32)


def quad_indices(count: int) -> npt.NDArray[np.uint32]:
    """Triangles of so many quads."""
    return (4 * np.arange(count, dtype=np.uint32)[:, None] + _QUAD).reshape(-1)


class Shapes:
    """Gathers shapes; `vertices` and `indices` are what the graphics card gets."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._boxes: list[tuple[float, ...]] = []
        self._parts: list[npt.NDArray[np.void]] = []
        self._indices: list[npt.NDArray[np.uint32]] = []
        self._count = 0

    def box(
        self, centre: Vec3, half: Vec3, layer: str, colour: Vec3,
        *, yaw: float = 0.0, taper: float = 1.0, foot: float = 0.8, metres: float = 2.0, bottom: bool = False,
        faces: int = FRONT | RIGHT | BACK | LEFT | TOP,
    ) -> None:  # fmt: skip
        """A box; yaw in radians to the left, taper the size of its top, foot how light its lower corners are.

        metres: how much of the surface one texture covers.  faces: those that can be seen; bottom adds the lower one.
        """
        seen = faces | BOTTOM if bottom else faces
        self._boxes.append((*centre, *half, *colour, yaw, taper, foot, metres, float(LAYER[layer]), float(seen)))

    def add(
        self, positions: npt.ArrayLike, normals: npt.ArrayLike, colours: npt.ArrayLike, uv: npt.ArrayLike,
        layer: str, triangles: npt.ArrayLike,
    ) -> None:  # fmt: skip
        """Any triangles: positions `(n, 3)`, normals `(n, 3)` or `(3,)`, colours likewise, uv `(n, 2)`."""
        where = np.asarray(positions, np.float32)
        part = np.empty(len(where), VERTEX)
        part["position"], part["normal"] = where, normals
        part["colour"][:, :3] = np.clip(np.asarray(colours, np.float32) * 255, 0, 255)
        part["colour"][:, 3] = 255
        part["uv"][:, :2], part["uv"][:, 2] = uv, LAYER[layer]
        self._append(part, np.asarray(triangles, np.uint32).reshape(-1))

    def turned(
        self, path: npt.ArrayLike, radii: npt.ArrayLike, layer: str, colour: Vec3,
        *, sides: int = 8, rough: float = 0.0, metres: float = 2.0, foot: float = 1.0, cap: str = "",
        cap_colour: Vec3 = (1, 1, 1),
    ) -> None:  # fmt: skip
        """A tube through the points `path (k, 3)` with `radii (k,)`; `rough` dents it; `cap` closes its end."""
        points, sizes = np.asarray(path, np.float32), np.asarray(radii, np.float32)
        k = len(points)
        axis = points[-1] - points[0]
        axis = axis / np.linalg.norm(axis)
        aside = np.cross(axis, (0, 1, 0) if abs(axis[1]) < 0.9 else (1, 0, 0))
        aside /= np.linalg.norm(aside)
        other = np.cross(axis, aside)
        angle = np.linspace(0, 2 * np.pi, sides + 1)[:, None]
        ring = (np.cos(angle) * aside + np.sin(angle) * other).astype(np.float32)
        dents = 1.0 + rough * self._rng.uniform(-1, 1, (k, sides + 1)).astype(np.float32)
        dents[:, -1] = dents[:, 0]
        where = points[:, None] + ring[None] * (sizes[:, None] * dents)[..., None]
        around = np.linspace(0, max(round(2 * np.pi * float(sizes.max()) / metres), 1), sides + 1)
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]) / metres
        uv = np.stack(np.broadcast_arrays(around[None], along[:, None]), -1).reshape(-1, 2)
        shade = np.linspace(foot, 1.0, k)[:, None, None] * np.asarray(colour, np.float32)
        shade = shade * (1 - 1.5 * np.maximum(1 - dents, 0))[..., None]
        i, j = np.meshgrid(np.arange(k - 1), np.arange(sides), indexing="ij")
        a = i * (sides + 1) + j
        b = a + sides + 1
        triangles = np.stack([a, a + 1, b + 1, a, b + 1, b], -1)
        normals = np.broadcast_to(ring[None], where.shape).reshape(-1, 3)
        self.add(where.reshape(-1, 3), normals, shade.reshape(-1, 3), uv, layer, triangles)
        if cap:
            rim = where[-1, :-1]
            top = np.concatenate([points[-1:] + 0.12 * axis * sizes[-1], rim])
            n = np.arange(sides)
            fan = np.stack([np.zeros_like(n), n + 1, (n + 1) % sides + 1], -1)
            flat = (top - points[-1]) @ np.stack([aside, other], 1) / metres
            self.add(top, axis, cap_colour, flat, cap, fan)

    def card(
        self, corner: Vec3, right: Vec3, up: Vec3, layer: str, colour: Vec3, normal: Vec3 = (0, 0, 1), foot: float = 0.6
    ) -> None:
        """A flat image from its lower left corner, along `right` and `up`; lit as if it faced `normal`."""
        c, r, u = (np.asarray(v, np.float32) for v in (corner, right, up))
        tint = np.asarray(colour, np.float32)
        shade = np.stack([tint * foot, tint * foot, tint, tint])
        self.add([c, c + r, c + r + u, c + u], normal, shade, _UV, layer, _QUAD)

    @property
    def vertices(self) -> npt.NDArray[np.void]:
        """All corners, `(n,)` of VERTEX."""
        self._make_boxes()
        return np.concatenate(self._parts) if self._parts else np.empty(0, VERTEX)

    @property
    def indices(self) -> npt.NDArray[np.uint32]:
        """Three for each triangle."""
        self._make_boxes()
        return np.concatenate(self._indices) if self._indices else np.empty(0, np.uint32)

    def _append(self, part: npt.NDArray[np.void], indices: npt.NDArray[np.uint32]) -> None:
        self._parts.append(part)
        self._indices.append(indices + np.uint32(self._count))
        self._count += len(part)

    def _make_boxes(self) -> None:
        """All boxes at once."""
        if not self._boxes:
            return
        rows = np.array(self._boxes, np.float32)
        self._boxes = []
        centre, half, colour = rows[:, 0:3], rows[:, 3:6], rows[:, 6:9]
        yaw, taper, foot, metres, layer, faces = rows[:, 9:].T
        n = len(rows)
        narrow = np.where(_BOX[None, :, 2:] > 0, taper[:, None, None], 1.0)
        local = _BOX[None] * half[:, None] * np.concatenate([narrow, narrow, np.ones_like(narrow)], -1)
        cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
        part = np.empty((n, 24), VERTEX)
        part["position"][..., 0] = centre[:, None, 0] + local[..., 0] * cos - local[..., 1] * sin
        part["position"][..., 1] = centre[:, None, 1] + local[..., 0] * sin + local[..., 1] * cos
        part["position"][..., 2] = centre[:, None, 2] + local[..., 2]
        normal = np.repeat(_BOX_NORMALS, 4, axis=0)[None]
        part["normal"][..., 0] = normal[..., 0] * cos - normal[..., 1] * sin
        part["normal"][..., 1] = normal[..., 0] * sin + normal[..., 1] * cos
        part["normal"][..., 2] = normal[..., 2]
        shade = np.where(_BOX[None, :, 2] < 0, foot[:, None], 1.0)
        part["colour"][..., :3] = np.clip(colour[:, None] * shade[..., None] * 255, 0, 255)
        part["colour"][..., 3] = 255
        size = 2 * half[:, _BOX_AXES] / metres[:, None, None]
        slip = self._rng.random((n, 1, 1, 2), dtype=np.float32)
        part["uv"][..., :2] = (_UV[None, None] * size[:, :, None] + slip).reshape(n, 24, 2)
        part["uv"][..., 2] = layer[:, None]
        seen = (faces.astype(np.int64)[:, None] >> np.arange(6)[None]) & 1 > 0
        kept = part.reshape(n, 6, 4)[seen].reshape(-1)
        self._append(kept, quad_indices(len(kept) // 4))


def bake_torches(vertices: npt.NDArray[np.void], torches: npt.NDArray[np.float32], reach_m: float = 4.5) -> None:
    """Put the light of `torches (t, 3)` into the vertices' alpha, in place."""
    if not len(torches) or not len(vertices):
        return
    away = vertices["position"][:, None] - torches[None]
    squared = np.einsum("ntc,ntc->nt", away, away)
    facing = 0.35 + 0.65 * np.clip(-np.einsum("ntc,nc->nt", away, vertices["normal"]) / np.sqrt(squared + 0.05), 0, 1)
    light = (facing / (1.0 + squared * (4.0 / reach_m**2))) * np.clip(1 - squared / (4 * reach_m**2), 0, 1)
    vertices["colour"][:, 3] = 255 - np.clip(light.sum(1), 0, 1) * 255


class Drawn:
    """Triangles in a scene; `update` gives all vertices new values, the triangles stay.

    Give `moves` for what is updated, so that it is never culled by where it was.
    """

    def __init__(
        self, name: str, vertices: npt.NDArray[np.void], indices: npt.NDArray[np.uint32], *, moves: bool = False
    ) -> None:
        core = import_panda()
        usage = core.Geom.UHDynamic if moves else core.Geom.UHStatic
        data = core.GeomVertexData(name, vertex_format(core), usage)
        data.uncleanSetNumRows(len(vertices))
        data.modifyArrayHandle(0).copyDataFrom(vertices.tobytes())
        triangles = core.GeomTriangles(usage)
        triangles.setIndexType(core.Geom.NTUint32)
        rows = triangles.modifyVertices()
        rows.uncleanSetNumRows(len(indices))
        rows.modifyHandle().copyDataFrom(np.ascontiguousarray(indices).tobytes())
        geom = core.Geom(data)
        geom.addPrimitive(triangles)
        node = core.GeomNode(name)
        node.addGeom(geom)
        if moves:
            node.setBounds(core.OmniBoundingVolume())
            node.setFinal(True)
        self._node = node
        self._size = len(vertices)
        self.path = core.NodePath(node)

    def update(self, vertices: npt.NDArray[np.void]) -> None:
        """New values for every vertex, `(n,)` of VERTEX."""
        assert len(vertices) == self._size, (len(vertices), self._size)
        data = self._node.modifyGeom(0).modifyVertexData()
        data.modifyArrayHandle(0).copyDataFrom(vertices.tobytes())


def ring_angles(count: int, start: float = 0.0) -> list[float]:
    """Angles in radians, evenly round a circle."""
    return [start + 2 * math.pi * i / count for i in range(count)]
