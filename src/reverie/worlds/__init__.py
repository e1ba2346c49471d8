"""Real games behind the World protocol.  `open_world("vizdoom")` starts one; `WORLDS` lists them.  No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reverie.errors import WorldError
from reverie.types import World

__all__ = ["WORLDS", "WorldInfo", "open_world"]


@dataclass(frozen=True, slots=True)
class WorldInfo:
    """A game that can be opened: its name, one line about it, and what starts it."""

    name: str
    summary: str
    open: Callable[..., World]


def _open_vizdoom(**options: Any) -> World:
    from reverie.worlds.vizdoom import VizDoomWorld

    return VizDoomWorld(**options)


WORLDS: dict[str, WorldInfo] = {
    "vizdoom": WorldInfo("vizdoom", "the Freedoom levels, empty, at 25 frames a second", _open_vizdoom),
}
"""Every game by name.  Add to it to make a game known to `reverie record` and `reverie play --world`."""


def open_world(name: str, **options: Any) -> World:
    """Start the game `name`; `options` are its own (VizDoom: maps, heldout).

    Raises WorldError for an unknown game, a missing package or an unknown option.
    """
    info = WORLDS.get(name)
    if info is None:
        raise WorldError(f"unknown game {name!r}; known games: {', '.join(sorted(WORLDS))}")
    try:
        return info.open(**options)
    except TypeError as error:
        raise WorldError(f"{name} does not take these options: {error}") from error
