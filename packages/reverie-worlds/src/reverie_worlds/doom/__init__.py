"""Doom: the Freedoom levels, by VizDoom.  It has no player of its own and is explored by walking."""

from reverie.worlds import PIP, Lazily, WorldInfo
from reverie.worlds.limits import Limits

INFO = WorldInfo(
    "vizdoom",
    "the Freedoom levels at 25 frames a second",
    Lazily("reverie_worlds.doom.world", "VizDoomWorld"),
    packages=("vizdoom",),
    pip=PIP,
    # 12 map units of 1/32 m a frame is the walk of world.py; its levels are narrow, so that 14 frames at a wall are
    # enough to say stuck; the depth map has about 10 map units a level.
    limits=Limits(travel=12.0 / 32, stuck_s=0.56, jump_travel=4.0, stare_depth=5.0),
)
