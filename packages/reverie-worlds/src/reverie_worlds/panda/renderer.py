"""Shared renderer of the Panda3D worlds: headless, with sun, shadows, sky and fog, and meshes made of arrays.

Panda3D's `p3headlessgl` draws through EGL, with no display: on a GPU if there is one, else in software (Mesa's
llvmpipe).
World axes are metres, x to the east, y to the north, z up; yaw is in degrees, 0 to the north, growing to the right.

    screen = Panda((128, 224), fov_deg=75)
    screen.set_light(Light(sun_height_deg=40))
    screen.root.attachNewNode(mesh.node("ground"))     # a Mesh filled with quads
    screen.place_camera((0, -5, 2), yaw_deg=0, pitch_deg=-5)
    picture = screen.render()                          # (1, 128, 224, 3) uint8
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import GEOMETRY_SHAPE, Frames, Geometry
from reverie_worlds.geometry import linear_depth, perspective
from reverie_worlds.panda import shaders as glsl
from reverie_worlds.panda.mesh import Mesh, Vec3, import_panda, make_texture, make_texture_array, tileable_noise
from reverie_worlds.shrink import Shrinker

__all__ = [
    "RESOLUTION", "STEP_S", "Light", "Mesh", "Panda", "Vec3", "import_panda", "make_texture", "make_texture_array",
    "tileable_noise",
]  # fmt: skip

RESOLUTION = (128, 224)
"""(H, W) of the frames."""

STEP_S = 0.04
"""Each step of a world is this long."""

INSTALL = "sudo apt install libegl1 libgl1-mesa-dri"

BODY_SHARE, BODY_M = 0.02, 0.02
"""A cell belongs to the body where hiding it moves the depth by more than this share, and by more than this."""

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


class Panda:
    """Offscreen renderer: a scene (`root`), a camera, a sky, one sun with a shadow map, and frames of it.

    resolution: (H, W) of the frames.  fov_deg: horizontal.  supersample: each side is drawn so many times larger
    and averaged down.  samples: MSAA.  shadow_px: side of the shadow map; 0 for no shadows.
    Nodes under `root` get the lit material; `use_cutout`, `use_glow` change it.
    Raises WorldError where nothing can be drawn.
    """

    def __init__(
        self,
        resolution: tuple[int, int] = RESOLUTION,
        *,
        fov_deg: float = 75.0,
        supersample: float = 2,
        samples: int = 0,
        shadow_px: int = 1024,
        near_m: float = 0.2,
        far_m: float = 600.0,
    ) -> None:
        self._core = core = import_panda()
        self.resolution = resolution
        self._shrink = Shrinker(resolution)
        self._supersample = supersample
        self._engine = core.GraphicsEngine.getGlobalPtr()
        self._buffer: Any = self._open_buffer(samples)
        self._small: Any = None
        self._depth: Any = None
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
        for output in (self._small, self._buffer, self._shadow):
            if output is not None:
                output.clearRenderTextures()
                self._engine.removeWindow(output)
        self.root.removeNode()
        self._eye.removeNode()
        self._buffer = self._shadow = self._small = None

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

    def use_texture_array(self, node: Any, texture: Any) -> None:
        """Draw `node` with a `make_texture_array`: each corner holds its layer."""
        node.setShader(self._shaders["array"])
        node.setTexture(texture)

    def draw_near_first(self, node: Any) -> None:
        """Draw `node` in the order of distance, before the rest: what it hides is then not shaded."""
        bins = self._core.CullBinManager.getGlobalPtr()
        if bins.findBin("near_first") < 0:
            bins.addBin("near_first", self._core.CullBinManager.BTFrontToBack, 15)
        node.setBin("near_first", 0)

    def use_cutout(self, node: Any) -> None:
        """Enables alpha cutout on a node: texels with alpha under a half are not drawn (leaves, fences)."""
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

    # -- camera and frames

    def place_camera(self, position: Vec3, yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> None:
        """yaw grows to the right, pitch upwards; roll leans the head to the right."""
        self.camera.setPosHpr(*position, -yaw_deg, pitch_deg, roll_deg)

    def render(self) -> Frames:
        """Renders a frame of the scene as it is now, `(1, H, W, 3)` uint8 RGB."""
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

    def geometry(self, body: Iterable[Any] = ()) -> Geometry:
        """Draws the depth of the scene as it is now, without the nodes of `body`, and the mask of where they are.

        It is drawn into a buffer of its own, one pixel a cell; one more time where there is a body.
        """
        shown = [node for node in body if not node.isHidden()]
        with_body = self._draw_depth()
        if not shown:
            return Geometry(with_body, np.zeros(with_body.shape, np.bool_))
        for node in shown:
            node.hide()
        try:
            behind = self._draw_depth()
        finally:
            for node in shown:
                node.show()
        with np.errstate(invalid="ignore"):
            return Geometry(behind, behind - with_body > BODY_SHARE * with_body + BODY_M)

    def _draw_depth(self) -> npt.NDArray[np.float32]:
        if self._buffer is None:
            raise WorldError("the screen is closed; open the world again")
        if self._small is None:
            self._small = self._make_small_buffer()
        self._small.setActive(True)
        self._engine.renderFrame()
        self._small.setActive(False)
        buffer = np.frombuffer(self._depth.getRamImage(), np.float32).reshape(GEOMETRY_SHAPE)[::-1]
        return linear_depth(buffer, perspective(self.lens.getNear(), self.lens.getFar()))

    def _read(self) -> Frames:
        height, width = self.resolution
        n = self._supersample
        raw = np.frombuffer(self._picture.getRamImage(), np.uint8).reshape(round(height * n), round(width * n), 4)
        return self._shrink(raw[::-1], "bgra")[None]  # OpenGL's first row is the lowest

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
        size = core.WindowProperties.size(round(width * self._supersample), round(height * self._supersample))
        buffer = self._engine.makeOutput(pipe, "screen", 0, bits, size, core.GraphicsPipe.BFRefuseWindow)
        if buffer is not None:
            self._engine.openWindows()
        if buffer is None or not buffer.isValid() or not buffer.getGsg():
            raise WorldError(f"Panda3D could not open an offscreen buffer; {INSTALL}")
        buffer.setActive(False)  # a frame of one screen must not draw the others
        return buffer

    def _make_small_buffer(self) -> Any:
        """The buffer in which depth is drawn, seen by the same camera, made when it is first asked for."""
        core, buffer = self._core, self._buffer
        bits = core.FrameBufferProperties()
        bits.setRgbaBits(8, 8, 8, 8)
        bits.setDepthBits(24)
        height, width = GEOMETRY_SHAPE
        small = self._engine.makeOutput(
            buffer.getPipe(), "depth", 10, bits, core.WindowProperties.size(width, height),
            core.GraphicsPipe.BFRefuseWindow, buffer.getGsg(), buffer,
        )  # fmt: skip
        if small is None:
            raise WorldError("Panda3D could not make a buffer for depth; update the graphics driver")
        small.setActive(False)
        self._depth = core.Texture("depth")
        self._depth.setFormat(core.Texture.FDepthComponent)
        self._depth.setComponentType(core.Texture.TFloat)
        small.addRenderTexture(self._depth, core.GraphicsOutput.RTMCopyRam, core.GraphicsOutput.RTPDepth)
        small.makeDisplayRegion().setCamera(self.camera)
        return small

    def _make_shadow_map(self, size_px: int) -> None:
        core, buffer = self._core, self._buffer
        bits = core.FrameBufferProperties()
        bits.setDepthBits(24)
        self._shadow = self._engine.makeOutput(
            buffer.getPipe(), "shadow", -10, bits, core.WindowProperties.size(size_px, size_px),
            core.GraphicsPipe.BFRefuseWindow, buffer.getGsg(), buffer,
        )  # fmt: skip
        if self._shadow is None:
            raise WorldError("Panda3D could not make a shadow map; update the graphics driver")
        self._shadow.setActive(False)
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


def _compile(core: Any, *, shadows: bool) -> dict[str, Any]:
    names = ["SHADOWS"] if shadows else []
    pairs = {
        "lit": (glsl.LIT_VERTEX, glsl.define(glsl.LIT_FRAGMENT, *names)),
        "cutout": (glsl.LIT_VERTEX, glsl.define(glsl.LIT_FRAGMENT, "CUTOUT", *names)),
        "array": (glsl.LIT_VERTEX, glsl.define(glsl.LIT_FRAGMENT, "ARRAY", *names)),
        "glow": (glsl.GLOW_VERTEX, glsl.GLOW_FRAGMENT),
        "sky": (glsl.SKY_VERTEX, glsl.SKY_FRAGMENT),
        "depth": (glsl.DEPTH_VERTEX, glsl.DEPTH_FRAGMENT),
    }
    return {name: core.Shader.make(core.Shader.SLGLSL, *pair) for name, pair in pairs.items()}
