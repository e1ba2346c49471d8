"""Minetest, Debian's package under the lock-step shim."""

from reverie.worlds import Lazily, WorldInfo
from reverie.worlds.limits import Limits
from reverie_worlds.requirements import SHIM_DEBIAN, SHIM_PROGRAMS

INFO = WorldInfo(
    "minetest",
    "voxel terrain without end: walk, jump, dig and build",
    Lazily("reverie_worlds.minetest.world", "MinetestWorld"),
    programs=("minetest", *SHIM_PROGRAMS),
    debian=("minetest", "minetest-data", *SHIM_DEBIAN),
    player=Lazily("reverie_worlds.minetest.player", "MinetestPolicy"),
    # Speeds differ (walk, sneak, swim, fall): the episode's own.  Digging at a wall with forward held is play, and so
    # is a hole that takes a while to climb out of.  Sky fills the view for long, and falls are fast.
    limits=Limits(stuck_s=3.0, cell_travel=6.0, jump_travel=12.0, blank_s=3.0),
)
