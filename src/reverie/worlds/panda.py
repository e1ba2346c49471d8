"""What the Panda3D worlds share: a headless renderer with sun, shadows, sky and fog, and meshes made of arrays.

Panda3D's `p3headlessgl` draws through EGL: on a GPU if there is one, else in software (Mesa's llvmpipe), with no display.
World axes are metres, x to the east, y to the north, z up; yaw is in degrees, 0 to the north, growing to the right.

    screen = Panda((128, 224), fov_deg=75)
    screen.set_light(Light(sun_height_deg=40))
    screen.root.attachNewNode(mesh.node("ground"))     # a Mesh filled with quads
    screen.place_camera((0, -5, 2), yaw_deg=0, pitch_deg=-5)
    picture = screen.render()                          # (1, 128, 224, 3) uint8
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import Frames
from reverie.worlds import panda_shaders as glsl

RESOLUTION = (128, 224)
"""(H, W) of the pictures."""

STEP_S = 0.04
"""Each step of a world is this long."""

INSTALL = "sudo apt install libegl1 libgl1-mesa-dri"

CASTS_SHADOW = 1
"""The bit of a camera mask: hide a node from it (`cast_no_shadow`) and it throws none."""

_CONFIG = """
window-type offscreen
audio-library-name null
gl-version 3 3
gl-check-errors 0
textures-power-2 none
sync-video 0
model-cache-dir
textures-auto-power-2 0
support-threads 0
notify-level-egldisplay error
notify-level-display error
notify-level-glgsg error
"""

Vec3 = Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """The light of a place.  Colours are linear RGB, about 1 for full daylight.

    sun_yaw_deg, sun_height_deg: where the sun (or the moon) stands.  fog_per_m: the share of light lost a metre, behind
    fog_start_m.  wet: how much the ground mirrors, 0 to 1.  glow: how bright lit windows shine.
    """

    sun_yaw_deg: float = 140.0
    sun_height_deg: float = 45.0
    sun: Vec3 = (2.6, 2.4, 2.0)
    sun_disc: float = 1.0
    zenith: Vec3 = (0.16, 0.34, 0.75)
    horizon: Vec3 = (0.62, 0.74, 0.88)
    ground: Vec3 = (0.30, 0.28, 0.25)
    clouds: float = 0.5
    fog_per_m: float = 0.004
    fog_start_m: float = 20.0
    exposure: float = 0.55
    wet: float = 0.0
    glow: float = 0.0

    @property
    def sun_direction(self) -> tuple[float, float, float]:
        """Unit vector to the sun."""
        yaw, height = math.radians(self.sun_yaw_deg), math.radians(self.sun_height_deg)
        return math.sin(yaw) * math.cos(height), math.cos(yaw) * math.cos(height), math.sin(height)


def import_panda() -> Any:
    """`panda3d.core`.  Raises WorldError if the package is missing."""
    with contextlib.suppress(ImportError):
        from panda3d import core

        return core
    raise WorldError('the package panda3d is not installed; pip install "reverie[worlds]"')


_pipe: Any = None


def _graphics_pipe(core: Any) -> Any:
    """The process's one way to EGL; never given back, for making it again leaks."""
    global _pipe
    if _pipe is None:
        os.environ.setdefault("LP_NUM_THREADS", "0")  # one core a world: recordings run one world a core
        core.loadPrcFileData("reverie", _CONFIG)
        pipe = core.GraphicsPipeSelection.getGlobalPtr().makeModulePipe("p3headlessgl")
        if pipe is None or not pipe.isValid():
            raise WorldError(f"no EGL on this machine, which Panda3D draws with; {INSTALL}")
        _pipe = pipe
    return _pipe


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
    ) -> None:
        """positions, normals `(n, 3)`, triangles `(m, 3)` counter-clockwise seen from outside, colour `(4,)` or `(n, 4)`
        of 0..1 (one less alpha is gloss), uv `(2,)` or `(n, 2)`.  Normals may be `(3,)`."""
        where = np.asarray(positions, np.float32)
        part = np.empty(len(where), _VERTEX)
        part["position"], part["normal"], part["uv"] = where, normals, uv
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
    ) -> None:
        """Flat quads `(k, 4, 3)` or one `(4, 3)`, counter-clockwise from bottom left.

        colour `(4,)` or `(k, 4)`; uv the rectangle u0, v0, u1, v1, `(4,)` or `(k, 4)`; normals `(k, 3)` or `(3,)`.
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
        self.add(where.reshape(-1, 3), triangles, facing, tint, at)

    def box(self, low: Vec3, high: Vec3, colour: npt.ArrayLike = (1.0, 1.0, 1.0, 1.0), *, bottom: bool = False) -> None:
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
        self.quads(faces, colour)

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
        rows = np.concatenate(self._parts) if self._parts else np.empty(0, _VERTEX)
        indices = np.concatenate(self._triangles).reshape(-1) if self._triangles else np.empty(0, np.uint32)
        data = core.GeomVertexData(name, _vertex_format(core), core.Geom.UHStatic)
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


_VERTEX = np.dtype([("position", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 4), ("uv", "<f4", 2)])

_format: Any = None


def _vertex_format(core: Any) -> Any:
    global _format
    if _format is None:
        array, geom, name = core.GeomVertexArrayFormat(), core.Geom, core.InternalName
        array.addColumn(name.getVertex(), 3, geom.NTFloat32, geom.CPoint)
        array.addColumn(name.getNormal(), 3, geom.NTFloat32, geom.CNormal)
        array.addColumn(name.getColor(), 4, geom.NTUint8, geom.CColor)
        array.addColumn(name.getTexcoord(), 2, geom.NTFloat32, geom.CTexcoord)
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


class Panda:
    """An offscreen screen: a scene (`root`), a camera, a sky, one sun with a shadow map, and pictures of it.

    resolution: (H, W) of the pictures.  fov_deg: horizontal.  supersample: each side is drawn so many times larger and
    averaged down.  samples: MSAA.  shadow_px: side of the shadow map; 0 for no shadows.
    Nodes under `root` get the lit material; `use_cutout`, `use_glow` change it.
    Raises WorldError where nothing can be drawn.
    """

    def __init__(
        self,
        resolution: tuple[int, int] = RESOLUTION,
        *,
        fov_deg: float = 75.0,
        supersample: int = 2,
        samples: int = 0,
        shadow_px: int = 1024,
        near_m: float = 0.2,
        far_m: float = 600.0,
    ) -> None:
        self._core = core = import_panda()
        self.resolution = resolution
        self._supersample = supersample
        self._engine = core.GraphicsEngine.getGlobalPtr()
        self._buffer = self._open_buffer(samples)
        self._picture = core.Texture("picture")
        self._buffer.addRenderTexture(self._picture, core.GraphicsOutput.RTMCopyRam)
        self._buffer.setClearColor((0, 0, 0, 1))
        self.root = core.NodePath("root")
        self._eye = core.NodePath("eye")  # the scene's top: what the cameras see, shader inputs included
        self.root.reparentTo(self._eye)
        self.camera = self._eye.attachNewNode(core.Camera("camera"))
        height, width = resolution
        lens = core.PerspectiveLens()
        lens.setAspectRatio(width / height)
        lens.setFov(fov_deg)
        lens.setNearFar(near_m, far_m)
        self.lens = lens
        self.camera.node().setLens(lens)
        self._buffer.makeDisplayRegion().setCamera(self.camera)
        self._shaders = _compile(core, shadows=shadow_px > 0)
        self._eye.setShader(self._shaders["lit"])
        self._eye.setAntialias(core.AntialiasAttrib.MMultisample)
        self._eye.setTexture(make_texture(np.full((2, 2, 4), (255, 255, 255, 0), np.uint8), name="white"))
        self._eye.setShaderInput("lamp_pos", (0.0, 0.0, 0.0, 0.0))
        self._eye.setShaderInput("lamp_dir", (0.0, 1.0, 0.0, 0.9))
        self._eye.setShaderInput("shadow_matrix", core.Mat4.identMat())
        self._shadow: Any = None
        if shadow_px:
            self._make_shadow_map(shadow_px)
        self._make_sky()
        self.light = Light()
        self.set_light(self.light)

    def close(self) -> None:
        """Give the buffers and the scene back; safe to call twice."""
        if self._buffer is None:
            return
        for output in (self._buffer, self._shadow):
            if output is not None:
                output.clearRenderTextures()
                self._engine.removeWindow(output)
        self.root.removeNode()
        self._eye.removeNode()
        self._buffer = self._shadow = None

    # -- the scene's look

    def set_light(self, light: Light) -> None:
        """Sun, sky, fog and exposure from now on.  Call `cast_shadows` again when the sun moved."""
        self.light = light
        put = self._eye.setShaderInput
        put("sun_dir", (*light.sun_direction, light.clouds))
        put("sun_colour", (*light.sun, light.sun_disc))
        put("sky_zenith", (*light.zenith, light.exposure))
        put("sky_horizon", (*light.horizon, light.fog_per_m))
        put("ground_colour", (*light.ground, light.wet))
        self._drift = (0.0, 0.0)
        self._put_weather()

    def drift_clouds(self, x: float, y: float) -> None:
        """Move the clouds to an offset; 1 is the whole width of their pattern."""
        self._drift = (x, y)
        self._put_weather()

    def set_lamp(self, position: Vec3, direction: Vec3, strength: float, half_angle_deg: float = 30.0) -> None:
        """The one spotlight (a car's headlights, a torch); strength 0 turns it off, 30 suits a dark street."""
        self._eye.setShaderInput("lamp_pos", (*position, strength))
        self._eye.setShaderInput("lamp_dir", (*direction, math.cos(math.radians(half_angle_deg))))

    def use_cutout(self, node: Any) -> None:
        """Where the texture's alpha is under a half, nothing is drawn: leaves, fences."""
        node.setShader(self._shaders["cutout"])
        node.setTwoSided(True)

    def use_glow(self, node: Any, *, add: bool = True) -> None:
        """Unlit and see-through, drawn after the rest: light halos (`add`), blob shadows and decals (not `add`)."""
        core = self._core
        node.setShader(self._shaders["glow"])
        if add:
            blend = core.ColorBlendAttrib
            node.setAttrib(blend.make(blend.MAdd, blend.OIncomingAlpha, blend.OOne))
        else:
            node.setTransparency(core.TransparencyAttrib.MAlpha)
        node.setDepthWrite(False)
        node.setBin("fixed", 20 if add else 10)
        self.cast_no_shadow(node)

    def cast_no_shadow(self, node: Any) -> None:
        """`node` is left out of the shadow map."""
        node.hide(self._core.BitMask32.bit(CASTS_SHADOW))

    def cast_shadows(self, centre: Vec3, radius_m: float) -> None:
        """Draw the shadow map for what lies within `radius_m` of `centre`; it stays until the next call.

        Costs about one frame.  Centres are snapped to the map's grid, so that shadows do not crawl.
        """
        if self._shadow is None:
            return
        self._shadow_lens.setFilmSize(2 * radius_m, 2 * radius_m)
        self._shadow_lens.setNearFar(1.0, 8 * radius_m)
        node = self._shadow_camera
        direction = self._core.Vec3(*self.light.sun_direction)
        node.setPos(0, 0, 0)
        node.lookAt(-direction.x, -direction.y, -direction.z)
        texel = 2 * radius_m / self._shadow.getXSize()
        turned = node.getMat()
        right, up = turned.getRow3(0), turned.getRow3(2)
        at = self._core.Point3(*centre)
        back = direction * (4 * radius_m)
        slip = right * (round(at.dot(right) / texel) * texel - at.dot(right))
        slip += up * (round(at.dot(up) / texel) * texel - at.dot(up))
        node.setPos(at + back + slip)
        to_clip = self._eye.getMat(node) * self._core.Mat4.convertMat(
            self._core.CSZupRight, self._shadow_lens.getCoordinateSystem()
        )
        self._eye.setShaderInput("shadow_matrix", to_clip * self._shadow_lens.getProjectionMat())
        self._shadow_stale = True

    # -- camera and pictures

    def place_camera(self, position: Vec3, yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> None:
        """yaw grows to the right, pitch upwards; roll leans the head to the right."""
        self.camera.setPosHpr(*position, -yaw_deg, pitch_deg, roll_deg)

    def render(self) -> Frames:
        """The picture as the scene is now, `(1, H, W, 3)` uint8 RGB."""
        if self._buffer is None:
            raise WorldError("the screen is closed; open the world again")
        x, y, z = self.camera.getPos(self._eye)
        self._eye.setShaderInput("eye", (x, y, z, self.light.glow))
        self._buffer.setActive(True)
        if self._shadow is not None:
            self._shadow.setActive(self._shadow_stale)
            self._shadow_stale = False
        self._engine.renderFrame()
        self._buffer.setActive(False)
        if self._shadow is not None:
            self._shadow.setActive(False)
        return self._read()

    def _read(self) -> Frames:
        height, width = self.resolution
        n = self._supersample
        raw = np.frombuffer(self._picture.getRamImage(), np.uint8).reshape(height * n, width * n, -1)
        if n == 2:
            thin = raw.view(np.uint32) if raw.shape[2] == 4 else None
            if thin is not None:
                return _halve(raw)[None]
        whole = raw[:, :, :3].reshape(height, n, width, n, 3).mean((1, 3), dtype=np.float32)
        return np.ascontiguousarray((whole + 0.5).astype(np.uint8)[::-1, :, ::-1])[None]

    def _put_weather(self) -> None:
        self._eye.setShaderInput("weather", (*self._drift, self.light.fog_start_m, 0.0))

    # -- set-up

    def _open_buffer(self, samples: int) -> Any:
        core = self._core
        height, width = self.resolution
        pipe = _graphics_pipe(core)
        bits = core.FrameBufferProperties()
        bits.setRgbaBits(8, 8, 8, 8)
        bits.setDepthBits(24)
        bits.setMultisamples(samples)
        size = core.WindowProperties.size(width * self._supersample, height * self._supersample)
        buffer = self._engine.makeOutput(pipe, "screen", 0, bits, size, core.GraphicsPipe.BFRefuseWindow)
        if buffer is not None:
            self._engine.openWindows()
        if buffer is None or not buffer.isValid() or not buffer.getGsg():
            raise WorldError(f"Panda3D could not open an offscreen buffer; {INSTALL}")
        return buffer

    def _make_shadow_map(self, size_px: int) -> None:
        core = self._core
        bits = core.FrameBufferProperties()
        bits.setDepthBits(24)
        self._shadow = self._engine.makeOutput(
            self._buffer.getPipe(), "shadow", -10, bits, core.WindowProperties.size(size_px, size_px),
            core.GraphicsPipe.BFRefuseWindow, self._buffer.getGsg(), self._buffer,
        )  # fmt: skip
        if self._shadow is None:
            raise WorldError("Panda3D could not make a shadow map; update the graphics driver")
        depth = core.Texture("shadow_map")
        self._shadow.addRenderTexture(depth, core.GraphicsOutput.RTMBindOrCopy, core.GraphicsOutput.RTPDepth)
        depth.setFormat(core.Texture.FDepthComponent)
        depth.setMinfilter(core.SamplerState.FTShadow)
        depth.setMagfilter(core.SamplerState.FTShadow)
        camera = core.Camera("sun")
        self._shadow_lens = core.OrthographicLens()
        camera.setLens(self._shadow_lens)
        camera.setCameraMask(core.BitMask32.bit(CASTS_SHADOW))
        state = core.NodePath("state")
        state.setShader(self._shaders["depth"], 10)
        state.setAttrib(core.CullFaceAttrib.make(core.CullFaceAttrib.MCullNone), 10)
        state.setDepthOffset(-1, 10)
        camera.setInitialState(state.getState())
        self._shadow_camera = self._eye.attachNewNode(camera)
        self._shadow.makeDisplayRegion().setCamera(self._shadow_camera)
        self._shadow_stale = False
        self._eye.setShaderInput("shadow_map", depth)

    def _make_sky(self) -> None:
        core = self._core
        card = core.CardMaker("sky")
        card.setFrameFullscreenQuad()
        sky = self._sky = self._eye.attachNewNode(card.generate())
        sky.setShader(self._shaders["sky"])
        noise = tileable_noise(np.random.default_rng(7), 256, 4, 6)
        sky.setTexture(make_texture((noise[:, :, None] * 255).astype(np.uint8), name="clouds"))
        sky.setBin("fixed", 0)  # after what is solid: only the sky that is seen is worked out
        sky.setAttrib(core.DepthTestAttrib.make(core.RenderAttrib.MLessEqual))
        sky.setDepthWrite(False)
        sky.node().setBounds(core.OmniBoundingVolume())
        sky.node().setFinal(True)
        self.cast_no_shadow(sky)


def _halve(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """BGRA rows from the bottom, `(2h, 2w, 4)` -> RGB from the top, `(h, w, 3)`, each the mean of four."""
    rows = raw[0::2].astype(np.uint16)
    rows += raw[1::2]
    both = rows[:, 0::2] + rows[:, 1::2]
    both += 2
    both >>= 2
    return np.ascontiguousarray(both[::-1, :, 2::-1].astype(np.uint8))


def _compile(core: Any, *, shadows: bool) -> dict[str, Any]:
    names = ["SHADOWS"] if shadows else []
    pairs = {
        "lit": (glsl.LIT_VERTEX, glsl.define(glsl.LIT_FRAGMENT, *names)),
        "cutout": (glsl.LIT_VERTEX, glsl.define(glsl.LIT_FRAGMENT, "CUTOUT", *names)),
        "glow": (glsl.GLOW_VERTEX, glsl.GLOW_FRAGMENT),
        "sky": (glsl.SKY_VERTEX, glsl.SKY_FRAGMENT),
        "depth": (glsl.DEPTH_VERTEX, glsl.DEPTH_FRAGMENT),
    }
    return {name: core.Shader.make(core.Shader.SLGLSL, *pair) for name, pair in pairs.items()}
