"""Extreme Tux Racer, Debian's package under the lock-step shim."""

from reverie.worlds import Lazily, WorldInfo
from reverie.worlds.limits import Limits
from reverie_worlds.requirements import SHIM_DEBIAN, SHIM_PROGRAMS

INFO = WorldInfo(
    "tux-racer",
    "a penguin that slides down snowy courses, seen from behind",
    Lazily("reverie_worlds.tux.world", "TuxRacerWorld"),
    programs=("etr", *SHIM_PROGRAMS),
    debian=("extremetuxracer", *SHIM_DEBIAN),
    player=Lazily("reverie_worlds.tux.player", "SlidingPolicy"),
    # Slides by itself, slowly uphill; snow and fog are plain for long.
    limits=Limits(keys=(), stuck_s=5.0, cell_travel=None, blank_s=2.0, still=0.8),
)
