"""Scenery of an episode of Minetest, drawn from a seed: the place, the time of day, the weather."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.errors import WorldError

GENERATORS = ("v7", "valleys", "carpathian", "flat", "fractal")
"""The map generators, each a kind of landscape."""

WORLD_EPISODES = 8
"""So many episodes in a row happen in one world, far apart: starting another takes seconds."""

HELDOUT_EVERY = 10
"""World seeds that this divides are held out."""

MAX_WORLD_SEED = 2**31 - 1
REACH = 6000
"""Episodes begin within so many nodes of a world's middle."""

BLOCKS = ("default:cobble", "default:wood", "default:stonebrick", "default:brick", "default:sandstone", "default:dirt")
"""Blocks that the player builds with."""

_CLEAR_SKY = {
    "day_sky": "#61b5f5",
    "day_horizon": "#90d3f6",
    "dawn_sky": "#b4bafa",
    "dawn_horizon": "#bac1f0",
    "night_sky": "#006bff",
    "night_horizon": "#4090ff",
    "indoors": "#646464",
    "fog_sun_tint": "#f47d1d",
    "fog_moon_tint": "#7f99cc",
    "fog_tint_type": "default",
}
_GREY_SKY = _CLEAR_SKY | {
    "day_sky": "#8f9aa6",
    "day_horizon": "#b3bac2",
    "dawn_sky": "#8d8a98",
    "dawn_horizon": "#b5a8a4",
    "night_sky": "#20262e",
    "night_horizon": "#343c46",
    "fog_tint_type": "custom",
    "fog_sun_tint": "#b9b4ae",
    "fog_moon_tint": "#3a4048",
}
_PALE_SKY = _CLEAR_SKY | {
    "day_sky": "#a9cfe8",
    "day_horizon": "#dbe9f0",
    "dawn_sky": "#d9c3c9",
    "dawn_horizon": "#f0d6c4",
}

WEATHERS: dict[str, dict[str, Any]] = {
    "clear": {"clouds": 0.25, "sky": _CLEAR_SKY, "sun": True},
    "cloudy": {"clouds": 0.5, "sky": _CLEAR_SKY, "sun": True},
    "hazy": {"clouds": 0.35, "sky": _PALE_SKY, "sun": True},
    "overcast": {"clouds": 0.95, "sky": _GREY_SKY, "sun": False},
}
"""Cover of the sky (0 to 1), its colours, and whether the sun is seen."""

_WEATHER_SHARES = (0.35, 0.3, 0.15, 0.2)

TIMES: dict[str, tuple[float, float]] = {
    "dawn": (0.215, 0.25),
    "morning": (0.27, 0.38),
    "noon": (0.42, 0.58),
    "afternoon": (0.62, 0.72),
    "dusk": (0.75, 0.79),
    "night": (0.92, 1.0),
}
"""Times of day: 0 and 1 are midnight, 0.5 is noon."""

_TIME_SHARES = (0.1, 0.24, 0.26, 0.24, 0.1, 0.06)

DAYLIGHT = {"dawn": 0.7, "dusk": 0.7, "night": 0.5}
"""Share of full daylight on the ground at those times: Minetest's own leave nothing to see under trees."""


@dataclass(frozen=True, slots=True)
class Scenery:
    """Everything about an episode but what the player does."""

    generator: str
    world_seed: int
    place_seed: int
    time: str
    time_of_day: float
    weather: str
    block: str

    def order(self, number: int, view_range: int) -> dict[str, Any]:
        """Builds the order that the server mod receives."""
        weather = WEATHERS[self.weather]
        clouds = {
            "density": weather["clouds"],
            "color": "#fff0f0e5" if weather["sun"] else "#b4b8bee5",
            "speed": {"x": 0, "z": 0},
        }
        return {
            "id": number,
            "seed": self.place_seed,
            "reach": REACH,
            "range": view_range,
            "time": self.time_of_day,
            "clouds": clouds,
            "sky": {"type": "regular", "clouds": True, "sky_color": weather["sky"]},
            "sun": weather["sun"],
            "daylight": DAYLIGHT.get(self.time),
            "block": self.block,
        }


def check_maps(maps: tuple[str, ...] | None, heldout: bool) -> tuple[str, ...]:
    """The maps to play: generators (`v7`), or one world each (`v7/1234`).

    Raises WorldError for an unknown generator, a bad world seed, or one of the other split.
    """
    if maps is None:
        return GENERATORS
    if not maps:
        raise WorldError("minetest needs at least one map, got none; leave maps out to play all generators")
    for name in maps:
        generator, slash, number = name.partition("/")
        if generator not in GENERATORS:
            raise WorldError(f"unknown Minetest map {name!r}; known generators: {', '.join(GENERATORS)}")
        if slash and not (number.isdecimal() and int(number) <= MAX_WORLD_SEED):
            raise WorldError(f"{name!r} has no world seed from 0 to {MAX_WORLD_SEED}; say a map like v7 or v7/1234")
        if slash and (int(number) % HELDOUT_EVERY == 0) != heldout:
            split = "training" if heldout else "held-out"
            raise WorldError(f"{name} is a {split} world; say heldout={not heldout} to play it")
    return tuple(maps)


def choose_scenery(seed: int, maps: tuple[str, ...], heldout: bool) -> Scenery:
    """The scenery of the episode `seed`."""
    generator, world_seed = _choose_world(seed // WORLD_EPISODES, maps, heldout)
    rng = np.random.default_rng(seed)
    time = str(rng.choice(list(TIMES), p=_TIME_SHARES))
    return Scenery(
        generator=generator,
        world_seed=world_seed,
        place_seed=int(rng.integers(1, 2**31)),
        time=time,
        time_of_day=round(float(rng.uniform(*TIMES[time])), 4),
        weather=str(rng.choice(list(WEATHERS), p=_WEATHER_SHARES)),
        block=str(rng.choice(BLOCKS)),
    )


def _choose_world(index: int, maps: tuple[str, ...], heldout: bool) -> tuple[str, int]:
    """World number `index`: each generator comes in turn."""
    generator, slash, number = maps[index % len(maps)].partition("/")
    if slash:
        return generator, int(number)
    rng = np.random.default_rng((index, 77))
    tens = HELDOUT_EVERY * int(rng.integers(1, MAX_WORLD_SEED // HELDOUT_EVERY))
    return generator, tens if heldout else tens + int(rng.integers(1, HELDOUT_EVERY))
