"""The moving picture of README: play in five scenes by the bundled model, the keys drawn below.

.venv/bin/python tools/play_gif.py docs/images/play.gif
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import reverie
from reverie.types import Action

SCRIPTS = (
    ("temple-run", 0, ((1.36, "", 0.0), (0.32, "crouch", 0.0), (1.12, "", 0.0), (0.24, "jump", 0.0), (0.72, "", 0.0))),
    ("voxel-savanna", 2, ((2.0, "forward", 0.8),)),
    ("city-corner", 1, ((1.0, "forward", 0.0), (1.0, "forward", 0.8))),
    ("doom-halls", 0, ((2.0, "forward", 0.8),)),
    ("snow-hill", 0, ((0.8, "forward", 0.0), (0.6, "left", 0.0), (0.8, "right", 0.0))),
)
"""Scene, start, and for how many seconds which keys are held and how many degrees a frame the mouse turns."""
EVERY, FPS, SCALE, COLOURS = 3, 25, 2, 128
METHOD = Image.Quantize.MAXCOVERAGE
"""Keeps rare colours: a penguin's feet on a hill of snow."""


def played(
    engine: reverie.Engine, scene: str, start: int, script: tuple[tuple[float, str, float], ...]
) -> list[Image.Image]:
    """Every third frame of one play, enlarged, its keys drawn."""
    session = engine.open(scene=scene, start=start, seed=0)
    actions = [
        Action(frozenset(keys.split()), mouse=(0.0, yaw))
        for seconds, keys, yaw in script
        for _ in range(round(seconds * FPS))
    ]
    pictures = []
    for begin in range(0, len(actions) - session.block_frames + 1, session.block_frames):
        block = actions[begin : begin + session.block_frames]
        for number, (action, frame) in enumerate(zip(block, session.step(block), strict=True), begin):
            if number % EVERY:
                continue
            picture = Image.fromarray(np.asarray(frame))
            picture = picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.LANCZOS)
            held = " ".join(sorted(action.keys) + (["mouse"] if any(action.mouse) else []))
            ImageDraw.Draw(picture).text(
                (8, picture.height - 18), held, fill="white", stroke_width=1, stroke_fill="black"
            )
            pictures.append(picture)
    session.close()
    return pictures


def main() -> None:
    engine = reverie.load("nano")
    pictures = [picture for script in SCRIPTS for picture in played(engine, *script)]
    target = Path(sys.argv[1])
    quantised = [picture.quantize(COLOURS, METHOD, dither=Image.Dither.NONE) for picture in pictures]
    quantised[0].save(
        target, save_all=True, append_images=quantised[1:], duration=1000 * EVERY // FPS, loop=0, optimize=True
    )
    print(f"{target}: {len(pictures)} frames, {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
