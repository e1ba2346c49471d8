"""Trigger Rally, Debian's package under the lock-step shim."""

from reverie.worlds import Lazily, WorldInfo
from reverie.worlds.limits import Limits
from reverie_worlds.requirements import SHIM_DEBIAN, SHIM_PROGRAMS

INFO = WorldInfo(
    "trigger-rally",
    "a rally car on forest, desert and mountain tracks",
    Lazily("reverie_worlds.rally.world", "TriggerRallyWorld"),
    programs=("trigger-rally", *SHIM_PROGRAMS),
    debian=("trigger-rally", *SHIM_DEBIAN),
    player=Lazily("reverie_worlds.rally.player", "RallyPolicy"),
    # A crash takes seconds to back out of, and that is worth having.  Whether the view follows the keys left and right
    # says nothing: the car slides, its driver steers against it, and in sound episodes it follows 37 to 73% of them.
    limits=Limits(keys=("forward",), stuck_s=4.0, cell_travel=None, jump_travel=6.0),
)
