"""The temple world's materials: one array texture of small tileable images, all made from noise.

Each layer is a surface in light grey or its own colour; the meshes' vertex colours tint it.  Alpha is the shape of
leaves and flames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from reverie_worlds.panda.renderer import import_panda, tileable_noise

SIZE = 128
LAYERS = (
    "flag", "brick", "relief", "rock", "plank", "bark", "ground", "leaves", "frond", "vine", "flame", "plain",
    "abyss", "coin", "blob", "cloth", "trim",
)  # fmt: skip
LAYER = {name: index for index, name in enumerate(LAYERS)}

Grey = npt.NDArray[np.floating[Any]]
Pixels = npt.NDArray[np.float32]


def make_layers(
    rng: np.random.Generator, moss: tuple[float, float, float], mossy: float, abyss: str
) -> npt.NDArray[np.uint8]:
    """All layers, `(17, 128, 128, 4)` uint8 RGBA, first row on top.

    moss: sRGB colour of what grows (or lies) on stone, mossy its share; abyss: water, lava, canopy, ice, sand or mist.
    """
    stone = {
        "flag": _flagstones(rng),
        "brick": _bricks(rng),
        "relief": _relief(rng),
        "rock": _rock(rng),
        "trim": _trim(rng),
    }
    layers: dict[str, Pixels] = {}
    for name, height in stone.items():
        share = mossy * (1.0 if name in ("flag", "brick") else 0.6)
        layers[name] = _overgrow(rng, _opaque(_carved(rng, height)), height, moss, share)
    layers["plank"] = _opaque(_carved(rng, _planks(rng), 0.5))
    layers["bark"] = _opaque(_carved(rng, _bark(rng), 0.8))
    layers["ground"] = _opaque(0.62 + 0.34 * _noise(rng, 12, 3) + 0.12 * (_noise(rng, 3, 2) - 0.5))
    layers["leaves"], layers["frond"], layers["vine"] = (
        _leaves(rng, 230, 9.5),
        _frond(),
        _leaves(rng, 120, 7.0, thin=True),
    )
    layers["flame"], layers["blob"] = _flame(), _blob()
    layers["plain"] = _opaque(np.full((SIZE, SIZE), 0.96, np.float32))
    layers["cloth"] = _opaque(0.82 + 0.16 * _noise(rng, 16, 2))
    layers["coin"] = _opaque(_coin())
    layers["abyss"] = _ABYSSES[abyss](rng)
    whole = np.stack([layers[name] for name in LAYERS])
    return (np.clip(whole, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def make_array_texture(layers: npt.NDArray[np.uint8]) -> Any:
    """A repeating, mipmapped `sampler2DArray` of `(n, h, w, 4)` uint8 pixels."""
    core = import_panda()
    count, height, width, _ = layers.shape
    texture = core.Texture("materials")
    texture.setup2dTextureArray(width, height, count, core.Texture.TUnsignedByte, core.Texture.FRgba)
    texture.setRamImage(np.ascontiguousarray(layers[:, ::-1, :, [2, 1, 0, 3]]).tobytes())
    texture.setMinfilter(core.SamplerState.FTLinearMipmapNearest)
    texture.setMagfilter(core.SamplerState.FTLinear)
    texture.setWrapU(core.SamplerState.WMRepeat)
    texture.setWrapV(core.SamplerState.WMRepeat)
    return texture


def _noise(rng: np.random.Generator, cells: int, octaves: int = 4) -> Grey:
    return tileable_noise(rng, SIZE, cells, octaves)


def _grid() -> tuple[Grey, Grey]:
    """u to the right and v downwards, 0 to 1, at the pixels' middles."""
    at = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    u, v = np.meshgrid(at, at)
    return u, v


def _opaque(grey: Grey) -> Pixels:
    rgba = np.ones((SIZE, SIZE, 4), np.float32)
    rgba[..., :3] = grey[..., None]
    return rgba


def _carved(rng: np.random.Generator, height: Grey, strength: float = 1.0) -> Grey:
    """Grey of a relief: dark in its depths, its upper left edges lit, with grain."""
    slope = height - np.roll(height, (1, 1), (0, 1))
    grain = _noise(rng, 32, 3) - 0.5
    return np.clip(0.38 + 0.42 * height + strength * 1.1 * slope + 0.16 * grain, 0.08, 1.0)


def _joints(
    u: Grey, v: Grey, columns: int, rows: int, offset: float, width: float
) -> tuple[Grey, npt.NDArray[np.int64]]:
    """Height of blocks in rows with joints between them (0 in a joint, 1 on a block), and each pixel's block number."""
    row = np.floor(v * rows).astype(np.int64)
    across = u * columns + (row % 2) * offset
    column = np.floor(across).astype(np.int64) % columns
    du, dv = (across % 1.0) / columns, (v * rows % 1.0) / rows
    edge = np.minimum(np.minimum(du, 1 / columns - du), np.minimum(dv, 1 / rows - dv))
    return np.clip(edge / width, 0.0, 1.0).astype(np.float32), row * columns + column


def _worn(rng: np.random.Generator) -> tuple[Grey, Grey]:
    u, v = _grid()
    return u + 0.016 * (_noise(rng, 8, 2) - 0.5), v + 0.016 * (_noise(rng, 8, 2) - 0.5)


def _flagstones(rng: np.random.Generator) -> Grey:
    u, v = _worn(rng)
    height, number = _joints(u % 1.0, v % 1.0, 2, 3, 0.5, 0.022)
    tone = rng.uniform(0.62, 1.0, 64).astype(np.float32)[number % 64]
    crack = np.clip(np.abs(_noise(rng, 3, 4) - 0.5) / 0.018, 0.35, 1.0)
    return height * tone * crack * (0.86 + 0.14 * _noise(rng, 10, 3))


def _bricks(rng: np.random.Generator) -> Grey:
    u, v = _worn(rng)
    height, number = _joints(u % 1.0, v % 1.0, 3, 5, 0.5, 0.02)
    tone = rng.uniform(0.55, 1.0, 64).astype(np.float32)[number % 64]
    return height * tone * (0.8 + 0.2 * _noise(rng, 10, 3))


def _relief(rng: np.random.Generator) -> Grey:
    """Square panels with mirrored glyphs."""
    u, v = _grid()
    height, number = _joints(u, v, 2, 2, 0.0, 0.03)
    cells = (rng.random((4, 8, 4)) < 0.5).astype(np.float32)
    cells = np.concatenate([cells, cells[:, :, ::-1]], axis=2)
    inside_u, inside_v = (u * 2 % 1.0 - 0.14) / 0.72, (v * 2 % 1.0 - 0.14) / 0.72
    within = (inside_u >= 0) & (inside_u < 1) & (inside_v >= 0) & (inside_v < 1)
    i = np.clip((inside_v * 8).astype(int), 0, 7)
    j = np.clip((inside_u * 8).astype(int), 0, 7)
    glyph = np.where(within, cells[number % 4, i, j], 1.0).astype(np.float32)
    return height * (0.45 + 0.55 * glyph) * (0.85 + 0.15 * _noise(rng, 10, 3))


def _rock(rng: np.random.Generator) -> Grey:
    _, v = _grid()
    strata = 0.5 + 0.5 * np.sin(2 * np.pi * (5 * v + 0.9 * _noise(rng, 3, 3)))
    ridges = 1.0 - np.abs(2 * _noise(rng, 4, 5) - 1.0)
    return (0.25 * strata + 0.75 * ridges).astype(np.float32)


def _trim(rng: np.random.Generator) -> Grey:
    """Worn smooth stone with a groove and chipped spots."""
    _, v = _grid()
    groove = np.clip(np.abs(v * 2 % 1.0 - 0.5) / 0.03, 0.45, 1.0)
    chips = np.clip((_noise(rng, 6, 4) - 0.22) / 0.1, 0.4, 1.0)
    return (groove * chips * (0.8 + 0.2 * _noise(rng, 5, 3))).astype(np.float32)


def _planks(rng: np.random.Generator) -> Grey:
    u, v = _grid()
    edge = np.minimum(v * 4 % 1.0, 1 - v * 4 % 1.0)
    tone = rng.uniform(0.6, 1.0, 4).astype(np.float32)[np.floor(v * 4).astype(int)]
    fibres = tileable_noise(rng, SIZE, 4, 4)[(v * SIZE * 3).astype(int) % SIZE, (u * SIZE * 0.25).astype(int) % SIZE]
    return np.clip(edge / 0.07, 0, 1) * tone * (0.7 + 0.3 * fibres)


def _bark(rng: np.random.Generator) -> Grey:
    u, _ = _grid()
    return (1.0 - np.abs(np.sin(2 * np.pi * (4 * u + 0.7 * _noise(rng, 4, 4))))).astype(np.float32)


def _overgrow(
    rng: np.random.Generator, picture: Pixels, height: Grey, moss: tuple[float, float, float], share: float
) -> Pixels:
    """Moss (or snow, sand, ash) in the joints and in patches."""
    where = 0.75 * _noise(rng, 4, 4) + 0.35 * (1.0 - height)
    cover = np.clip((where - (1.0 - share)) / 0.16, 0.0, 1.0)[..., None]
    grown = np.array(moss, np.float32) * (0.75 + 0.5 * _noise(rng, 24, 2))[..., None]
    picture[..., :3] = picture[..., :3] * (1 - cover) + grown * cover
    return picture


def _leaves(rng: np.random.Generator, count: int, size: float, thin: bool = False) -> Pixels:
    """Overlapping leaves, darker below; `thin` in hanging strands."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    picture = np.zeros((SIZE, SIZE, 4), np.float32)
    picture[..., :3] = 0.55
    for i in range(count):
        if thin:
            x, y = (rng.integers(7) + 0.5) / 7 * SIZE + rng.normal(0, 2), float(SIZE * rng.random() ** 1.3)
        else:
            radius, way = SIZE * 0.41 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            x, y = SIZE / 2 + radius * np.cos(way), SIZE / 2 + radius * np.sin(way)
        turn, length = rng.uniform(0, np.pi), size * rng.uniform(0.8, 1.5)
        reach = slice(max(int(y - length), 0), int(y + length) + 2), slice(max(int(x - length), 0), int(x + length) + 2)
        dx, dy = columns[reach] - x, rows[reach] - y
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        leaf = (np.abs(along) / length) ** 1.5 + np.abs(across) / (length * 0.45) < 1
        shade = (0.45 + 0.5 * i / count) * (1.0 + 0.12 * np.sign(across))
        picture[reach][leaf] = np.stack([shade * 0.95, shade, shade * 0.85, np.ones_like(shade)], -1)[leaf]
    return picture


def _frond() -> Pixels:
    """A feather leaf from the left (stem) to the right (tip)."""
    u, v = _grid()
    off = np.abs(v - 0.5)
    reach = 0.46 * np.sin(np.pi * np.clip(u * 0.93 + 0.07, 0, 1)) ** 0.6
    teeth = np.abs(((u + off * 0.7) * 13) % 1.0 - 0.5) < 0.34
    shape = ((off < reach) & teeth) | (off < 0.02)
    picture = _opaque((0.55 + 0.4 * u - 0.3 * off).astype(np.float32))
    picture[..., 3] = shape
    return picture


def _flame() -> Pixels:
    u, v = _grid()
    up = 1.0 - v
    width = 0.33 * np.clip(np.sin(np.pi * np.clip(up, 0, 1) ** 0.55), 0, 1)
    core = np.clip(1.0 - np.abs(u - 0.5) / np.maximum(width, 1e-3), 0, 1) * (up < 1)
    picture = np.ones((SIZE, SIZE, 4), np.float32)
    picture[..., 1] = 0.35 + 0.6 * core
    picture[..., 2] = 0.05 + 0.6 * core**3
    picture[..., 3] = np.clip(core * 1.6, 0, 1)
    return picture


def _blob() -> Pixels:
    u, v = _grid()
    picture = np.ones((SIZE, SIZE, 4), np.float32)
    picture[..., 3] = np.clip(1.0 - 2 * np.hypot(u - 0.5, v - 0.5), 0, 1) ** 1.5
    return picture


def _coin() -> Grey:
    u, v = _grid()
    radius = 2 * np.hypot(u - 0.5, v - 0.5)
    ring = (np.abs(radius - 0.8) < 0.12) | (np.abs(np.abs(u - 0.5) + np.abs(v - 0.5) - 0.2) < 0.05)
    return np.where(ring, 1.0, 0.74).astype(np.float32)


def _coloured(ramp: list[tuple[float, float, float]], at: Grey) -> Pixels:
    """An image whose colours run through `ramp` as `at` goes from 0 to 1."""
    stops = np.linspace(0, 1, len(ramp))
    picture = np.ones((SIZE, SIZE, 4), np.float32)
    for channel in range(3):
        picture[..., channel] = np.interp(at, stops, [colour[channel] for colour in ramp])
    return picture


def _water(rng: np.random.Generator) -> Pixels:
    waves = 1.0 - np.abs(2 * _noise(rng, 5, 4) - 1.0)
    return _coloured([(0.10, 0.22, 0.24), (0.16, 0.34, 0.34), (0.26, 0.46, 0.44), (0.75, 0.86, 0.84)], waves**3)


def _lava(rng: np.random.Generator) -> Pixels:
    crust = np.abs(2 * _noise(rng, 4, 4) - 1.0)
    picture = _coloured([(1.0, 0.85, 0.35), (1.0, 0.42, 0.06), (0.45, 0.10, 0.04), (0.13, 0.07, 0.07)], crust**0.6)
    picture[..., 3] = np.interp(crust**0.6, [0.0, 0.45, 0.7], [0.0, 0.35, 1.0])  # less alpha shines by itself
    return picture


def _canopy(rng: np.random.Generator) -> Pixels:
    crowns = _noise(rng, 9, 3) * 0.7 + 0.3 * _noise(rng, 30, 2)
    return _coloured([(0.03, 0.08, 0.03), (0.10, 0.24, 0.08), (0.24, 0.44, 0.13), (0.48, 0.62, 0.22)], crowns)


def _ice(rng: np.random.Generator) -> Pixels:
    floes = np.clip(np.abs(2 * _noise(rng, 5, 3) - 1.0) * 3.0, 0, 1)
    return _coloured([(0.05, 0.16, 0.26), (0.20, 0.42, 0.54), (0.75, 0.87, 0.93), (0.93, 0.97, 1.0)], floes)


def _sand(rng: np.random.Generator) -> Pixels:
    _, v = _grid()
    ripples = 0.5 + 0.5 * np.sin(2 * np.pi * (8 * v + 1.3 * _noise(rng, 3, 3)))
    return _coloured(
        [(0.55, 0.38, 0.22), (0.80, 0.61, 0.38), (0.93, 0.77, 0.52)],
        (0.6 * ripples + 0.4 * _noise(rng, 3, 3)).astype(np.float32),
    )


_ABYSSES = {"water": _water, "lava": _lava, "canopy": _canopy, "ice": _ice, "sand": _sand}
