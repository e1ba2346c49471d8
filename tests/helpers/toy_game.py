"""`python -m tests.helpers.toy_game WORDS...`: the command line with a toy game that it can record."""

from __future__ import annotations

import sys

import cv2
import numpy as np
from tests.helpers.made_up_packs import SIZE

from reverie import cli
from reverie.types import ActionSpace, Frames
from reverie.worlds import WORLDS, WorldInfo
from reverie.worlds.yard import Yard

SPACE = ActionSpace(("forward", "back", "left", "right"))


class ToyGame(Yard):
    """A walled yard at the resolution of the preset tiny-memory, on foot."""

    action_space = SPACE
    resolution = SIZE
    pixel_aspect = SIZE[0] / SIZE[1] * 112 / 64

    def _draw(self) -> Frames:
        frame = super()._draw()[0]
        return cv2.resize(frame, (SIZE[1], SIZE[0]), interpolation=cv2.INTER_AREA)[None].astype(np.uint8)


INFO = WorldInfo("toy", "a walled yard", ToyGame)


def main() -> int:
    from tests.helpers.toy_game import INFO as info  # by its own name: workers import it

    WORLDS[info.name] = info
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
