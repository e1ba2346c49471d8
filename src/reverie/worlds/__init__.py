"""Real games behind the World protocol.  `open_world("vizdoom")` starts one; `WORLDS` lists them.  No torch here.

Each of them is a `RecordableWorld` (reverie.types): it has a camera pose and, on demand, depth and a body mask.
VizDoom also has `depth`, a small depth image for its policy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from reverie.errors import WorldError
from reverie.types import World

__all__ = ["WORLDS", "WorldInfo", "install_command", "missing", "open_world", "world_info"]


@dataclass(frozen=True, slots=True)
class WorldInfo:
    """A game that can be opened: its name, one line about it, what starts it, and what must be installed for it.

    programs: commands that must be found.  packages: Python modules.  debian, pip: what installs them.
    """

    name: str
    summary: str
    open: Callable[..., World]
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    debian: tuple[str, ...] = ()
    pip: str = ""

    @property
    def target(self) -> Callable[..., World]:
        """What `open` calls, imported: its parameters are the game's options."""
        return self.open.find() if isinstance(self.open, _Lazily) else self.open


@dataclass(frozen=True, slots=True)
class _Lazily:
    """A class that is imported when the game is opened."""

    module: str
    name: str

    def find(self) -> Callable[..., World]:
        return getattr(import_module(self.module), self.name)

    def __call__(self, **options: Any) -> World:
        return self.find()(**options)


SHIM_PROGRAMS = ("Xvfb", "gcc")
SHIM_DEBIAN = ("xvfb", "libgl1-mesa-dri", "libx11-dev", "libxtst-dev", "gcc", "libc6-dev")
"""What every game under the lock-step shim needs: a display, software OpenGL, a compiler."""

PANDA_DEBIAN = ("libegl1", "libgl1-mesa-dri")
"""What Panda3D needs to draw without a screen; whether it is there shows when a world is opened."""

PIP = 'pip install "reverie-world[worlds]"'

WORLDS: dict[str, WorldInfo] = {
    info.name: info
    for info in (
        WorldInfo(
            "vizdoom",
            "the Freedoom levels at 25 frames a second",
            _Lazily("reverie_worlds.doom.world", "VizDoomWorld"),
            packages=("vizdoom",),
            pip=PIP,
        ),
        WorldInfo(
            "minetest",
            "voxel terrain without end: walk, jump, dig and build",
            _Lazily("reverie_worlds.minetest.world", "MinetestWorld"),
            programs=("minetest", *SHIM_PROGRAMS),
            debian=("minetest", "minetest-data", *SHIM_DEBIAN),
        ),
        WorldInfo(
            "trigger-rally",
            "a rally car on forest, desert and mountain tracks",
            _Lazily("reverie_worlds.rally.world", "TriggerRallyWorld"),
            programs=("trigger-rally", *SHIM_PROGRAMS),
            debian=("trigger-rally", *SHIM_DEBIAN),
        ),
        WorldInfo(
            "tux-racer",
            "a penguin that slides down snowy courses, seen from behind",
            _Lazily("reverie_worlds.tux.world", "TuxRacerWorld"),
            programs=("etr", *SHIM_PROGRAMS),
            debian=("extremetuxracer", *SHIM_DEBIAN),
        ),
        WorldInfo(
            "city",
            "streets with traffic, by car or on foot",
            _Lazily("reverie_worlds.city.world", "CityWorld"),
            packages=("panda3d",),
            debian=PANDA_DEBIAN,
            pip=PIP,
        ),
        WorldInfo(
            "temple",
            "an endless run over ruined causeways: jump, slide, lean and turn",
            _Lazily("reverie_worlds.temple.world", "TempleWorld"),
            packages=("panda3d",),
            debian=PANDA_DEBIAN,
            pip=PIP,
        ),
    )
}
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
    """What is known of the game `name`.  Raises WorldError for an unknown one."""
    info = WORLDS.get(name)
    if info is None:
        raise WorldError(f"unknown game {name!r}; known games: {', '.join(sorted(WORLDS))}")
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
