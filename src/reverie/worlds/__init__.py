"""Games behind the World protocol.  `open_world("vizdoom")` starts one; `WORLDS` has them by name.  No torch here.

A distribution brings games by entry points of the group `reverie.worlds`, each of which is a WorldInfo:

    [project.entry-points."reverie.worlds"]
    city = "reverie_worlds.city:INFO"

The real games come so, with `pip install "reverie-world[worlds]"`; the package itself has `yard` alone, a toy.  Each
is a `RecordableWorld` (reverie.types): it has a camera pose and, on demand, depth and a body mask.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from reverie.errors import WorldError
from reverie.types import World
from reverie.worlds.limits import USUAL, Limits

__all__ = ["WORLDS", "Lazily", "Registry", "WorldInfo", "install_command", "missing", "open_world", "world_info"]

log = logging.getLogger("reverie.worlds")

GROUP = "reverie.worlds"
"""The group of entry points."""

PIP = 'pip install "reverie-world[worlds]"'
"""Command that installs the real games."""


@dataclass(frozen=True, slots=True)
class Lazily:
    """Something callable of a module that is imported when it is called, such as a game's class."""

    module: str
    name: str

    def find(self) -> Callable[..., Any]:
        return getattr(import_module(self.module), self.name)

    def __call__(self, *values: Any, **options: Any) -> Any:
        return self.find()(*values, **options)


@dataclass(frozen=True, slots=True)
class WorldInfo:
    """A game that can be opened: its name, one line about it, what starts it, and what must be installed for it.

    programs: commands that must be found.  packages: Python modules.  debian, pip: what installs them.
    player: makes the policy that records it (`reverie.data.policies.Policy`) from a seed; None: it is explored by
    walking.  limits: what counts as bad play.
    """

    name: str
    summary: str
    open: Callable[..., World]
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    debian: tuple[str, ...] = ()
    pip: str = ""
    player: Callable[[int], Any] | None = None
    limits: Limits = USUAL

    @property
    def target(self) -> Callable[..., World]:
        """Function that `open` calls, imported: its parameters are the game's options."""
        return self.open.find() if isinstance(self.open, Lazily) else self.open


class Registry(MutableMapping[str, WorldInfo]):
    """Games by name: `own` ones, those that are added, and those of installed distributions, read at the first use.

    A game that was added goes before one of a distribution.  One that cannot be loaded is left out with a warning.
    """

    def __init__(self, *own: WorldInfo) -> None:
        self._worlds = {info.name: info for info in own}
        self._installed: frozenset[str] | None = None
        self._lock = threading.RLock()

    @property
    def installed(self) -> frozenset[str]:
        """Names of the games that distributions have brought."""
        with self._lock:
            if self._installed is None:
                self._installed = frozenset()  # for a game that looks here while it is loaded
                points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
                found = [info for point in points if (info := _load(point)) is not None]
                self._worlds = {info.name: info for info in found} | self._worlds
                self._installed = frozenset(info.name for info in found)
            return self._installed

    def _all(self) -> dict[str, WorldInfo]:
        _ = self.installed
        return self._worlds

    def __getitem__(self, name: str) -> WorldInfo:
        return self._all()[name]

    def __setitem__(self, name: str, info: WorldInfo) -> None:
        self._all()[name] = info

    def __delitem__(self, name: str) -> None:
        del self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def _load(point: EntryPoint) -> WorldInfo | None:
    """The game of an entry point; None, with a warning, if it cannot be loaded."""
    try:
        info = point.load()
    except Exception as error:  # whatever a stranger's module does
        log.warning("the game %s (%s) cannot be loaded: %s: %s", point.name, point.value, type(error).__name__, error)
        return None
    if isinstance(info, WorldInfo):
        return info
    log.warning("the game %s (%s) must be a WorldInfo, got %s", point.name, point.value, type(info).__name__)
    return None


WORLDS = Registry(
    WorldInfo("yard", "a small walled yard to try things in, drawn in Python", Lazily("reverie.worlds.yard", "Yard"))
)
"""Every game by name.  Add to it to make a game known to `reverie record` and `reverie play --world`."""


def missing(info: WorldInfo) -> tuple[str, ...]:
    """The programs and packages that `info` needs and this machine lacks."""
    programs = [name for name in info.programs if _find_program(name) is None]
    return (*programs, *(name for name in info.packages if find_spec(name) is None))


def install_command(infos: Iterable[WorldInfo]) -> str:
    """One shell line that installs what `infos` lack; empty if nothing is missing."""
    lacking = [info for info in infos if missing(info)]
    debian = sorted({package for info in lacking for package in info.debian})
    lines = [f"sudo apt install {' '.join(debian)}"] if debian else []
    return " && ".join([*lines, *sorted({info.pip for info in lacking if info.pip})])


def world_info(name: str) -> WorldInfo:
    """Looks up the game `name`.  Raises WorldError for an unknown one."""
    info = WORLDS.get(name)
    if info is None:
        games = "" if WORLDS.installed else f"; the real games are not installed here: {PIP}"
        raise WorldError(f"unknown game {name!r}; known games: {', '.join(sorted(WORLDS))}{games}")
    return info


def open_world(name: str, **options: Any) -> World:
    """Start the game `name`; `options` are its own (VizDoom: maps, heldout).

    Raises WorldError for an unknown game, one that is not installed, or an unknown option.
    """
    info = world_info(name)
    if lacks := missing(info):
        raise WorldError(f"{name} needs {', '.join(lacks)}, not installed here; {install_command([info])}")
    try:
        return info.open(**options)
    except TypeError as error:
        raise WorldError(f"{name} does not take these options: {error}") from error


def _find_program(name: str) -> str | None:
    """Debian puts games where root's PATH does not look."""
    return shutil.which(name) or shutil.which(name, path="/usr/games:/usr/local/games")
