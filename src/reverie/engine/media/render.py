"""A session that plays an action script -> a video, through the same session that a player has."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from reverie.engine.media.video import open_video
from reverie.engine.sessions.script import ActionScript
from reverie.errors import ImageError
from reverie.overlay import Picture, add_keys, contact_sheet, strip_height
from reverie.types import FPS, Action, Frames

if TYPE_CHECKING:
    from reverie.engine.accelerate.decode_stream import FrameFuture
    from reverie.engine.engine import Engine
    from reverie.engine.sessions.session import Session

SHEET_PICTURES = 24
"""Largest number of frames on a contact sheet."""
MAX_SCALE = 16


def check_scale(scale: int) -> None:
    """Raises ImageError for a factor that no video is enlarged by."""
    if not 1 <= scale <= MAX_SCALE:
        raise ImageError(f"--scale is a whole factor from 1 to {MAX_SCALE}, got {scale}")


def find_image(engine: Engine, image: str | None) -> Image.Image | str:
    """A start image of the model by name (None: its first), else the path as it is.

    Raises ImageError where the model has none and none was given.
    """
    starts = engine.start_images()
    if image is None:
        if not starts:
            raise ImageError(f"the model {engine.name!r} has no start pictures; give one with --image")
        return starts[0][1]
    return dict(starts).get(image, image)


def rollout(session: Session, script: ActionScript | None) -> Iterator[tuple[Frames, list[Action]]]:
    """The first frame, then the frames of each block of `script` with the actions that led to them.

    The last block is cut where the script ends: script.num_frames + 1 frames in all.
    """
    yield session.first_frame, [Action()]
    left = list(script.actions()) if script else []
    coming: deque[tuple[FrameFuture, list[Action]]] = deque()
    while left or coming:
        while left and len(coming) < 2:  # a GPU generates the next block while this one is decoded
            num_frames = session.next_frames
            actions, left = left[:num_frames], left[num_frames:]
            coming.append((session.submit(actions + actions[-1:] * (num_frames - len(actions))), actions))
        block, actions = coming.popleft()
        yield block.frames()[: len(actions)], actions


def render(
    session: Session,
    script: ActionScript | None,
    output: Path,
    log: dict[str, Any],
    *,
    overlay: bool = False,
    scale: int = 1,
    watch: Callable[[Frames], None] = lambda frames: None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Picture]:
    """Writes the video of a session that plays `script` (None: its first frame alone).

    overlay: show the keys below each frame; scale: enlarge by this whole factor; watch: gets the frames as they are;
    advance: called with the number of frames that were written.
    Returns the frames for a contact sheet, spread evenly over it.
    """
    height, width = (side * scale for side in session.resolution)
    num_frames = length_of(script)
    wanted = set(sheet_frames(num_frames))
    kept: list[Picture] = []
    full_height = height + (strip_height(width) if overlay else 0)
    with open_video(output, (full_height, width), log) as video:
        num_seen = 0
        for frames, actions in rollout(session, script):
            watch(frames)
            kept += [frame for i, frame in enumerate(frames, num_seen) if i in wanted]
            num_seen += len(frames)
            pictures = [enlarge(frame, (height, width)) for frame in frames]
            if overlay:
                pictures = [add_keys(p, a, session.action_space) for p, a in zip(pictures, actions, strict=True)]
            video.write(np.stack(pictures))
            advance(len(frames))
    return kept


def length_of(script: ActionScript | None) -> int:
    """Frames of the video of a script: its own, and the first one."""
    return 1 + (script.num_frames if script else 0)


def describe(session: Session, script: ActionScript | None) -> dict[str, Any]:
    """Facts of a video, for its comment: enough to make it again."""
    from reverie import __version__

    return {
        "reverie": __version__,
        "model": session.fingerprint,
        "seed": session.seed,
        "scene": session.scene or None,
        "start": session.start_number,
        "actions": "" if script is None else str(script),
        "fps": FPS,
    }


def sheet_frames(num_frames: int) -> list[int]:
    """Selects the frames of a contact sheet: one a second, or fewer, so that there are at most SHEET_PICTURES."""
    step = max(FPS, -(-num_frames // SHEET_PICTURES))
    return list(range(0, num_frames, step))


def write_sheet(path: Path, pictures: list[Picture], script: ActionScript) -> None:
    """A contact sheet; under each frame its time and action."""
    actions = [Action(), *script.actions()]
    captions = []
    for frame in sheet_frames(script.num_frames + 1):
        said = str(ActionScript.from_actions([actions[frame]])).rsplit(" ", 1)[0] if frame else "start"
        captions.append(f"{frame / FPS:.1f}s {said}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial.png")
    try:
        contact_sheet(pictures, captions).save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def enlarge(frame: Picture, size: tuple[int, int]) -> Picture:
    """(H, W, 3) -> `size`, smoothly."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC))
