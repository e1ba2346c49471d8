"""Walk through a dream without a page: load, open, step, and save what was seen as a video.

python examples/play_offline.py                       # the bundled model and its first start picture
python examples/play_offline.py nano room.png out.mp4
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import reverie
from reverie import Action, Engine
from reverie.engine.media.images import ImageSource
from reverie.engine.media.video import VideoWriter

WALK = Action(frozenset({"forward"}))
TURN_RIGHT = Action(frozenset({"forward"}), mouse=(0.0, 3.0))


def main(model: str = "nano", image: str | None = None, output: str = "out.mp4", blocks: int = 24) -> None:
    engine = reverie.load(model)
    picture = image if image is not None else start_picture(engine)
    session = engine.open(picture, seed=0)
    frames = [session.first_frame]
    frames += [session.step(TURN_RIGHT if block % 8 > 4 else WALK) for block in range(blocks)]
    session.close()
    with VideoWriter(Path(output), engine.resolution, {"model": engine.name}) as video:
        video.write(np.concatenate(frames))
    print(f"{output}: {sum(map(len, frames))} frames")


def start_picture(engine: Engine) -> ImageSource:
    """The model's first start picture, or a grey one where it has none."""
    pictures = engine.start_images()
    return pictures[0][1] if pictures else np.full((*engine.resolution, 3), 128, np.uint8)


if __name__ == "__main__":
    model, image, output = (*sys.argv[1:4], *("nano", None, "out.mp4")[len(sys.argv[1:4]) :])
    main(str(model), image, str(output))
