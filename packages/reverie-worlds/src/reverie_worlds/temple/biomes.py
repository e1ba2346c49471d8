"""The places of the temple world: colours of stone and plants, light, what lies in the depth, what flies in the air."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reverie_worlds.panda.renderer import Light

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Biome:
    """Appearance of a landscape.  Colours are sRGB 0..1, but `mist` and `torch`, which are linear light.

    mossy: share of stone that is overgrown.  depth_m: depth of the abyss.  tree: broadleaf, palm, pine, dead.
    drift: flow of the abyss, its texture's widths a second.  air: particles: leaves, dust, snow, embers, fireflies.
    """

    light: Light
    stone: Colour
    trim: Colour
    rock: Colour
    ground: Colour
    leaf: Colour
    trunk: Colour
    moss: Colour
    mossy: float
    abyss: str
    depth_m: float
    tree: str
    air: str
    mist: Colour
    mist_per_m: float = 0.035
    drift: tuple[float, float] = (0.0, 0.0)
    torch: Colour = (1.6, 0.75, 0.25)
    trees: float = 1.0
    torches: float = 0.25


BIOMES: dict[str, Biome] = {
    "jungle": Biome(
        light=Light(
            sun_height_deg=52, sun=(2.9, 2.5, 1.75), zenith=(0.20, 0.42, 0.70), horizon=(0.62, 0.76, 0.66),
            ground=(0.16, 0.24, 0.10), clouds=0.45, fog_per_m=0.011, fog_start_m=14, exposure=0.60,
        ),
        stone=(0.86, 0.80, 0.66), trim=(0.95, 0.86, 0.62), rock=(0.62, 0.57, 0.47), ground=(0.46, 0.60, 0.22),
        leaf=(0.52, 0.78, 0.24), trunk=(0.52, 0.38, 0.25), moss=(0.33, 0.44, 0.17), mossy=0.44,
        abyss="water", depth_m=15, tree="broadleaf", air="leaves", mist=(0.40, 0.56, 0.45), mist_per_m=0.03,
        drift=(0.02, 0.05), trees=1.4,
    ),
    "desert": Biome(
        light=Light(
            sun_height_deg=38, sun=(3.3, 2.6, 1.7), zenith=(0.20, 0.42, 0.80), horizon=(0.98, 0.80, 0.56),
            ground=(0.42, 0.28, 0.15), clouds=0.2, fog_per_m=0.009, fog_start_m=20, exposure=0.52,
        ),
        stone=(0.96, 0.80, 0.56), trim=(0.55, 0.68, 0.70), rock=(0.90, 0.62, 0.40), ground=(0.92, 0.74, 0.46),
        leaf=(0.48, 0.62, 0.26), trunk=(0.62, 0.48, 0.30), moss=(0.94, 0.78, 0.50), mossy=0.38,
        abyss="sand", depth_m=13, tree="palm", air="dust", mist=(0.90, 0.66, 0.40), trees=0.7,
    ),
    "ice": Biome(
        light=Light(
            sun_height_deg=30, sun=(2.3, 2.2, 2.1), zenith=(0.22, 0.44, 0.80), horizon=(0.74, 0.86, 0.98),
            ground=(0.40, 0.50, 0.62), clouds=0.65, fog_per_m=0.013, fog_start_m=14, exposure=0.50,
        ),
        stone=(0.66, 0.74, 0.86), trim=(0.45, 0.80, 0.95), rock=(0.60, 0.68, 0.80), ground=(0.95, 0.98, 1.0),
        leaf=(0.36, 0.52, 0.48), trunk=(0.40, 0.34, 0.32), moss=(0.95, 0.98, 1.0), mossy=0.55,
        abyss="ice", depth_m=16, tree="pine", air="snow", mist=(0.66, 0.80, 0.95), trees=0.9,
    ),
    "lava": Biome(
        light=Light(
            sun_height_deg=34, sun=(2.0, 1.35, 1.0), zenith=(0.12, 0.09, 0.12), horizon=(0.42, 0.17, 0.12),
            ground=(0.95, 0.32, 0.08), clouds=0.75, fog_per_m=0.012, fog_start_m=14, exposure=0.66,
        ),
        stone=(0.58, 0.50, 0.48), trim=(0.62, 0.40, 0.32), rock=(0.42, 0.34, 0.33), ground=(0.38, 0.30, 0.28),
        leaf=(0.30, 0.22, 0.16), trunk=(0.26, 0.20, 0.18), moss=(0.30, 0.25, 0.24), mossy=0.35,
        abyss="lava", depth_m=14, tree="dead", air="embers", mist=(0.85, 0.26, 0.08), mist_per_m=0.028,
        drift=(0.008, 0.012), trees=0.6, torches=0.5,
    ),
    "night": Biome(
        light=Light(
            sun_height_deg=48, sun=(0.60, 0.78, 1.15), zenith=(0.035, 0.06, 0.16), horizon=(0.075, 0.125, 0.24),
            ground=(0.04, 0.06, 0.08), clouds=0.35, fog_per_m=0.010, fog_start_m=14, exposure=1.15, sun_disc=0.8,
        ),
        stone=(0.74, 0.76, 0.80), trim=(0.62, 0.58, 0.80), rock=(0.48, 0.50, 0.54), ground=(0.30, 0.42, 0.28),
        leaf=(0.28, 0.50, 0.34), trunk=(0.36, 0.32, 0.30), moss=(0.24, 0.38, 0.24), mossy=0.45,
        abyss="water", depth_m=15, tree="broadleaf", air="fireflies", mist=(0.05, 0.10, 0.18), drift=(0.02, 0.04),
        torch=(2.6, 1.15, 0.35), torches=1.0, trees=1.2,
    ),
    "dusk": Biome(
        light=Light(
            sun_height_deg=17, sun=(3.4, 1.9, 0.95), zenith=(0.20, 0.24, 0.52), horizon=(0.98, 0.60, 0.42),
            ground=(0.26, 0.18, 0.20), clouds=0.55, fog_per_m=0.011, fog_start_m=14, exposure=0.62,
        ),
        stone=(0.88, 0.78, 0.70), trim=(0.66, 0.42, 0.36), rock=(0.58, 0.50, 0.50), ground=(0.50, 0.50, 0.26),
        leaf=(0.74, 0.46, 0.20), trunk=(0.44, 0.33, 0.28), moss=(0.48, 0.46, 0.22), mossy=0.42,
        abyss="canopy", depth_m=17, tree="broadleaf", air="leaves", mist=(0.78, 0.46, 0.42), mist_per_m=0.032,
        trees=1.2, torches=0.5,
    ),
}  # fmt: skip
"""The maps of the temple world."""


def varied(biome: Biome, rng: np.random.Generator) -> Biome:
    """The same place at another hour and weather: the sun elsewhere, the air clearer or thicker."""
    light = biome.light
    warmth = float(rng.uniform(-0.08, 0.08))
    sun = tuple(c * (1 + w) for c, w in zip(light.sun, (warmth, 0.0, -warmth), strict=True))
    strength = float(rng.uniform(0.88, 1.12))
    changed = replace(
        light,
        sun_yaw_deg=float(rng.uniform(0, 360)),
        sun_height_deg=light.sun_height_deg * float(rng.uniform(0.8, 1.2)),
        sun=tuple(c * strength for c in sun),
        clouds=float(np.clip(light.clouds + rng.uniform(-0.2, 0.25), 0.05, 0.9)),
        fog_per_m=light.fog_per_m * float(rng.uniform(0.8, 1.35)),
    )
    return replace(biome, light=changed, mossy=float(np.clip(biome.mossy + rng.uniform(-0.1, 0.08), 0.1, 0.7)))
