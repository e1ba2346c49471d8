"""The hours and the weathers of the city, as light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reverie_worlds.panda.renderer import Light

SKIES: dict[str, Light] = {
    "day": Light(
        sun_height_deg=48, sun=(3.3, 3.05, 2.6), zenith=(0.17, 0.38, 0.86), horizon=(0.62, 0.76, 0.92),
        ground=(0.34, 0.31, 0.27), clouds=0.45, fog_per_m=0.0032, fog_start_m=40, exposure=0.62,
    ),
    "morning": Light(
        sun_height_deg=21, sun=(3.3, 2.5, 1.6), sun_disc=1.3, zenith=(0.20, 0.36, 0.70), horizon=(0.86, 0.74, 0.60),
        ground=(0.34, 0.29, 0.24), clouds=0.35, fog_per_m=0.0055, fog_start_m=30, exposure=0.62, glow=0.5,
    ),
    "overcast": Light(
        sun_height_deg=55, sun=(0.75, 0.75, 0.75), sun_disc=0.1, zenith=(0.58, 0.63, 0.70), horizon=(0.78, 0.80, 0.83),
        ground=(0.36, 0.35, 0.34), clouds=0.95, fog_per_m=0.006, fog_start_m=25, exposure=0.66, glow=0.6,
    ),
    "dusk": Light(
        sun_height_deg=8, sun=(2.3, 1.05, 0.42), sun_disc=1.6, zenith=(0.14, 0.17, 0.40), horizon=(0.80, 0.42, 0.28),
        ground=(0.20, 0.16, 0.17), clouds=0.5, fog_per_m=0.005, fog_start_m=30, exposure=0.72, glow=6.0,
    ),
    "night": Light(
        sun_height_deg=52, sun=(0.09, 0.12, 0.20), sun_disc=0.5, zenith=(0.012, 0.020, 0.055),
        horizon=(0.075, 0.070, 0.105), ground=(0.12, 0.09, 0.065), clouds=0.3, fog_per_m=0.005, fog_start_m=25,
        exposure=1.3, glow=5.5,
    ),
    "rain": Light(
        sun_height_deg=60, sun=(0.32, 0.33, 0.36), sun_disc=0.0, zenith=(0.26, 0.29, 0.34), horizon=(0.42, 0.45, 0.49),
        ground=(0.20, 0.20, 0.20), clouds=1.0, fog_per_m=0.011, fog_start_m=15, exposure=0.72, wet=0.75, glow=3.0,
    ),
    "rainy-night": Light(
        sun_height_deg=60, sun=(0.05, 0.06, 0.10), sun_disc=0.0, zenith=(0.018, 0.024, 0.05),
        horizon=(0.09, 0.085, 0.11), ground=(0.12, 0.09, 0.065), clouds=1.0, fog_per_m=0.010, fog_start_m=15,
        exposure=1.3, wet=0.8, glow=5.5,
    ),
}  # fmt: skip
"""Each sky by name; the sun's direction is the episode's own."""

WEIGHTS = {
    "day": 0.34, "morning": 0.14, "overcast": 0.10, "dusk": 0.16, "night": 0.12, "rain": 0.10, "rainy-night": 0.04,
}  # fmt: skip

LAMPS_ON = ("dusk", "night", "rain", "rainy-night")
"""Skies under which street lamps and headlights are lit."""

DARK = {"dusk": 0.35, "night": 1.0, "rain": 0.3, "rainy-night": 1.0}
"""Brightness of those lamps by sky, 0 to 1."""


def choose_sky(rng: np.random.Generator) -> tuple[str, Light]:
    """A sky's name and its light, with the sun somewhere of its own."""
    name = str(rng.choice(list(WEIGHTS), p=list(WEIGHTS.values())))
    light = SKIES[name]
    height = light.sun_height_deg * float(rng.uniform(0.8, 1.2))
    return name, replace(light, sun_yaw_deg=float(rng.uniform(0, 360)), sun_height_deg=height)
