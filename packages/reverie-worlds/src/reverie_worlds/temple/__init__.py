"""Temple: an endless run over ruined causeways, our own game on Panda3D."""

from reverie.worlds import PIP, Lazily, WorldInfo
from reverie.worlds.limits import Limits
from reverie_worlds.requirements import PANDA_DEBIAN

INFO = WorldInfo(
    "temple",
    "an endless run over ruined causeways: jump, slide, lean and turn",
    Lazily("reverie_worlds.temple.world", "TempleWorld"),
    packages=("panda3d",),
    debian=PANDA_DEBIAN,
    pip=PIP,
    player=Lazily("reverie_worlds.temple.player", "TemplePolicy"),
    # Runs by itself; after a fall mist closes over the frame and the run goes on some metres further, or round the
    # corner: no teleport.  A fall holds it still for a second.
    limits=Limits(keys=(), stuck_s=2.0, cell_travel=None, jump_travel=None),
)
