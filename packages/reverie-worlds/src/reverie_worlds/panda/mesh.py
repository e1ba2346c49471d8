"""Meshes and textures made of arrays, for the Panda3D worlds.  Axes are metres: x east, y north, z up."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError

Vec3 = Sequence[float]


def import_panda() -> Any:
    """`panda3d.core`.  Raises WorldError if the package is missing."""
    with contextlib.suppress(ImportError):
        return import_module("panda3d.core")
    raise WorldError('the package panda3d is not installed; pip install "reverie-world[worlds]"')


class Mesh:
    """Triangles gathered as arrays and drawn as one piece: positions, normals, sRGB colours, texture coordinates."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.void]] = []
        self._triangles: list[npt.NDArray[np.uint32]] = []
        self._count = 0

    @property
    def num_triangles(self) -> int:
        """Triangles so far."""
        return sum(len(part) for part in self._triangles)

    def add(
        self,
        positions: npt.ArrayLike,
        triangles: npt.ArrayLike,
        normals: npt.ArrayLike,
        colour: npt.ArrayLike = (1.0, 1.0, 1.0, 1.0),
        uv: npt.ArrayLike = (0.0, 0.0),
        layer: npt.ArrayLike = 0.0,
    ) -> None:
        """Triangles `(m, 3)`, counter-clockwise seen from outside, of points `(n, 3)`.

        normals `(3,)` or `(n, 3)`; colour `(4,)` or `(n, 4)` of 0..1 (one less alpha is gloss); uv `(2,)` or `(n, 2)`;
        layer, of a texture array, one or `(n,)`.
        """
        where = np.asarray(positions, np.float32)
        part = np.empty(len(where), VERTEX)
        part["position"], part["normal"] = where, normals
        part["uv"][:, :2], part["uv"][:, 2] = uv, layer
        part["colour"] = np.clip(np.asarray(colour, np.float32) * 255.0 + 0.5, 0, 255)
        self._parts.append(part)
        self._triangles.append(np.asarray(triangles, np.uint32).reshape(-1, 3) + np.uint32(self._count))
        self._count += len(part)

    def quads(
        self,
        corners: npt.ArrayLike,
        colour: npt.ArrayLike = (1.0, 1.0, 1.0, 1.0),
        uv: npt.ArrayLike = (0.0, 0.0, 1.0, 1.0),
        normals: npt.ArrayLike | None = None,
        layer: npt.ArrayLike = 0.0,
    ) -> None:
        """Flat quads `(k, 4, 3)` or one `(4, 3)`, counter-clockwise from bottom left.

        colour `(4,)` or `(k, 4)`; uv the rectangle u0, v0, u1, v1, `(4,)` or `(k, 4)`; normals `(k, 3)` or `(3,)`;
        layer one or `(k,)`.
        """
        where = np.asarray(corners, np.float32).reshape(-1, 4, 3)
        k = len(where)
        if normals is None:
            normals = np.cross(where[:, 1] - where[:, 0], where[:, 3] - where[:, 0])
            normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        facing = np.repeat(np.broadcast_to(np.asarray(normals, np.float32), (k, 3)), 4, axis=0)
        tint = np.repeat(np.broadcast_to(np.asarray(colour, np.float32), (k, 4)), 4, axis=0)
        box = np.broadcast_to(np.asarray(uv, np.float32), (k, 4))
        at = box[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        first = 4 * np.arange(k, dtype=np.uint32)[:, None]
        triangles = (first + np.array([0, 1, 2, 0, 2, 3], np.uint32)).reshape(-1, 3)
        layers = np.repeat(np.broadcast_to(np.asarray(layer, np.float32), (k,)), 4)
        self.add(where.reshape(-1, 3), triangles, facing, tint, at, layers)

    def box(
        self,
        low: Vec3,
        high: Vec3,
        colour: npt.ArrayLike = (1.0, 1.0, 1.0, 1.0),
        *,
        bottom: bool = False,
        layer: float = 0.0,
    ) -> None:
        """An upright box between two corners, without its bottom unless asked for."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        faces = [
            [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
            [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
            [(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)],
            [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)],
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
        ]
        if bottom:
            faces.append([(x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0)])
        self.quads(faces, colour, layer=layer)

    def extend(self, other: Mesh, offset: Vec3 = (0.0, 0.0, 0.0), yaw_deg: float = 0.0, scale: float = 1.0) -> None:
        """Another mesh's triangles, scaled, turned to the right by `yaw_deg`, then moved."""
        yaw = math.radians(yaw_deg)
        turn = np.array([[math.cos(yaw), math.sin(yaw), 0], [-math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]], np.float32)
        for part, triangles in zip(other._parts, other._triangles, strict=True):
            moved = part.copy()
            moved["position"] = part["position"] @ turn.T * scale + np.asarray(offset, np.float32)
            moved["normal"] = part["normal"] @ turn.T
            self._parts.append(moved)
            self._triangles.append(triangles + np.uint32(self._count))
        self._count += other._count

    def node(self, name: str) -> Any:
        """A NodePath, not yet in a scene, that draws it all in one go."""
        core = import_panda()
        rows = np.concatenate(self._parts) if self._parts else np.empty(0, VERTEX)
        indices = np.concatenate(self._triangles).reshape(-1) if self._triangles else np.empty(0, np.uint32)
        data = core.GeomVertexData(name, vertex_format(core), core.Geom.UHStatic)
        data.uncleanSetNumRows(len(rows))
        data.modifyArrayHandle(0).copyDataFrom(rows.tobytes())
        triangles = core.GeomTriangles(core.Geom.UHStatic)
        triangles.setIndexType(core.Geom.NTUint32)
        array = triangles.modifyVertices()
        array.uncleanSetNumRows(len(indices))
        array.modifyHandle().copyDataFrom(indices.tobytes())
        geom = core.Geom(data)
        geom.addPrimitive(triangles)
        node = core.GeomNode(name)
        node.addGeom(geom)
        return core.NodePath(node)


VERTEX = np.dtype([("position", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 4), ("uv", "<f4", 3)])

_format: Any = None


def vertex_format(core: Any) -> Any:
    """Panda3D's description of VERTEX."""
    global _format
    if _format is None:
        array, geom, name = core.GeomVertexArrayFormat(), core.Geom, core.InternalName
        array.addColumn(name.getVertex(), 3, geom.NTFloat32, geom.CPoint)
        array.addColumn(name.getNormal(), 3, geom.NTFloat32, geom.CNormal)
        array.addColumn(name.getColor(), 4, geom.NTUint8, geom.CColor)
        array.addColumn(name.getTexcoord(), 3, geom.NTFloat32, geom.CTexcoord)
        layout = core.GeomVertexFormat()
        layout.addArray(array)
        _format = core.GeomVertexFormat.registerFormat(layout)
    return _format


def make_texture(
    pixels: npt.NDArray[np.uint8], *, repeat: bool = True, anisotropy: int = 0, smooth: bool = True, name: str = ""
) -> Any:
    """A texture with mipmaps of `(h, w, 1 | 3 | 4)` uint8 pixels, the first row at the top (v = 1)."""
    core = import_panda()
    height, width, channels = pixels.shape
    texture = core.Texture(name or "pixels")
    kind = {1: core.Texture.FLuminance, 3: core.Texture.FRgb, 4: core.Texture.FRgba}[channels]
    if channels == 1:
        kind = core.Texture.FRed
    texture.setup2dTexture(width, height, core.Texture.TUnsignedByte, kind)
    order = [0, 1, 2, 3][:channels] if channels == 1 else [2, 1, 0, 3][:channels]
    texture.setRamImage(np.ascontiguousarray(pixels[::-1, :, order]).tobytes())
    return _filtered(core, texture, repeat, anisotropy, smooth)


def make_texture_array(layers: npt.NDArray[np.uint8], *, anisotropy: int = 0, name: str = "layers") -> Any:
    """A texture array with mipmaps of `(n, h, w, 4)` uint8; each layer repeats.  For `Panda.use_texture_array`."""
    core = import_panda()
    count, height, width, _ = layers.shape
    texture = core.Texture(name)
    texture.setup2dTextureArray(width, height, count, core.Texture.TUnsignedByte, core.Texture.FRgba)
    texture.setRamImage(np.ascontiguousarray(layers[:, ::-1, :, [2, 1, 0, 3]]).tobytes())
    return _filtered(core, texture, True, anisotropy, True)


def _filtered(core: Any, texture: Any, repeat: bool, anisotropy: int, smooth: bool) -> Any:
    texture.setMinfilter(core.Texture.FTLinearMipmapLinear)
    texture.setMagfilter(core.Texture.FTLinear if smooth else core.Texture.FTNearest)
    if anisotropy:
        texture.setAnisotropicDegree(anisotropy)
    wrap = core.SamplerState.WMRepeat if repeat else core.SamplerState.WMClamp
    texture.setWrapU(wrap)
    texture.setWrapV(wrap)
    return texture


def tileable_noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 4) -> npt.NDArray[np.float32]:
    """Smooth noise `(size, size)` in 0..1 that repeats at its borders; `cells` is the number of its largest waves."""
    whole = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        n = cells * 2**octave
        if n > size:
            break
        grid = rng.random((n, n), dtype=np.float32)
        at = np.arange(size, dtype=np.float32) * n / size
        low = at.astype(int)
        part = at - low
        part = part * part * (3 - 2 * part)
        rows = grid[low] * (1 - part)[:, None] + grid[(low + 1) % n] * part[:, None]
        whole += (rows[:, low] * (1 - part) + rows[:, (low + 1) % n] * part) * 0.5**octave
    return (whole - whole.min()) / max(float(np.ptp(whole)), 1e-6)
