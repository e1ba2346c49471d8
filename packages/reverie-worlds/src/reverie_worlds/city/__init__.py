"""City: streets with traffic and walkers, our own game on Panda3D."""

from reverie.worlds import PIP, Lazily, WorldInfo
from reverie.worlds.limits import Limits
from reverie_worlds.requirements import PANDA_DEBIAN

INFO = WorldInfo(
    "city",
    "streets with traffic, by car or on foot",
    Lazily("reverie_worlds.city.world", "CityWorld"),
    packages=("panda3d",),
    debian=PANDA_DEBIAN,
    pip=PIP,
    player=Lazily("reverie_worlds.city.player", "CityPolicy"),
    # By car or on foot: the speeds differ tenfold, so that a start from a red light is slow for long.
    limits=Limits(keys=("forward",), stuck_s=4.0, stuck_share=0.02, cell_travel=None, jump_travel=8.0),
)
