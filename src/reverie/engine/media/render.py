"""`reverie generate`: an image and an action script -> a video, through the same session that a player has."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from PIL import Image

from reverie.engine.media.video import SUFFIXES, check_output, open_video
from reverie.engine.sessions.script import ActionScript, load_script
from reverie.engine.sessions.session_file import SUFFIX, SessionFile, open_session
from reverie.errors import ActionError, ImageError
from reverie.overlay import Picture, add_keys, contact_sheet, strip_height
from reverie.types import FPS, Action, Frames

if TYPE_CHECKING:
    from reverie.engine.accelerate.decode_stream import Coming
    from reverie.engine.engine import Engine
    from reverie.engine.sessions.session import Session

SHEET_PICTURES = 24
"""Largest number of frames on a contact sheet."""
MAX_SCALE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig:
    """Make a video from an image and an action script.

    A script holds keys and turns the camera for a time, in seconds (s) or frames (f, 25 a second); yaw and pitch are
    degrees per frame, right and up positive: "forward 2s; forward yaw+3 1s; yaw-5 1s; idle 1s".  It can also be a file:
    the same text (.txt), or JSON (.json), a list such as [{"keys": ["forward"], "mouse": [0, 3], "frames": 25}], where
    mouse is [pitch, yaw] and "seconds" can stand for "frames".  A session's file (.reverie) is a script as well, and
    brings its start and seed where none are given.

    Examples: reverie generate --model nano --image room.png --actions "forward 2s; yaw+3 1s" -o out.mp4
    reverie generate --scene scenes/my-level --start 1 --actions "forward 4s" -o walk.mp4
    """

    actions: str
    """Actions to play: a script, or the path of one (.txt, .json or .reverie)."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out.mp4")
    """The video to write: .mp4, .webm or .gif."""
    image: str | None = None
    """The start image: a path, or the name of one that came with the model (the default is its first)."""
    scene: str | None = None
    """Begin in this scene instead: a bundled one's name (`reverie scene list`), or a folder."""
    start: int = 0
    """With --scene: the number of the start to begin at."""
    model: str = "nano"
    """A bundled model's name, a model folder, published Matrix-Game 2.0 weights, or a hub id of either."""
    variant: str | None = None
    """Variant of Matrix-Game 2.0: universal, gta or templerun."""
    decoder: str = "auto"
    """full, or tiny where the model has one; auto takes the preset's, else full."""
    preset: str | None = None
    """Memory preset of Matrix-Game 2.0, by the card's memory: 24gb, 12gb, 8gb; or fast."""
    weights: str = "auto"
    """Weights of the transformer: full, int8, int4 or fp8; auto takes the preset's, else full."""
    mode: str = "auto"
    """eager, or compiled (on a GPU with CUDA graphs); auto compiles on a GPU."""
    seed: int | None = None
    """Decides the noise: the same seed, image and script give the same video; 0, or a .reverie file's."""
    overlay: bool = False
    """Show the keys and the camera's turn below the frame."""
    scale: int = 1
    """Enlarge the video by this whole factor."""
    sheet: Path | None = None
    """Also write a contact sheet of the video, a .png file."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""

    def run(self) -> None:
        from rich.console import Console

        if self.scene is not None and self.image is not None:
            raise ImageError("a video begins on an image or in a scene: leave --image or --scene out")
        if self.scene is None and self.start:
            raise ImageError(f"--start {self.start} is a start of a scene, and none is named; add --scene")
        if self.scene is not None:
            from reverie.engine.loading.scenes import SceneCard

            SceneCard.read(self.scene).start(self.start)
        file = SessionFile.load(self.actions) if self.actions.lower().endswith(SUFFIX) else None
        script = load_script(self.actions) if file is None else file.script
        if script is None:
            raise ActionError(f"nothing was played in {self.actions!r}; give a session with actions, or a script")
        check_scale(self.scale)
        check_output(self.output, *SUFFIXES)
        if self.sheet is not None:
            check_output(self.sheet, ".png")
        console = Console(stderr=True)
        engine = load_engine(self, console)
        script.check(engine.action_space)
        session = self._open(engine, file)
        log = {**describe(session, script), "image": self.image}
        frames = render(session, script, self.output, log, console, overlay=self.overlay, scale=self.scale)
        if self.sheet is not None:
            write_sheet(self.sheet, frames, script)
        session.close()
        console.print(
            f"{self.output}: {script.seconds:g} s, {script.num_frames + 1} frames", highlight=False, soft_wrap=True
        )

    def _open(self, engine: Engine, file: SessionFile | None) -> Session:
        """The session at its start: from the options, else from `file`."""
        if file is not None and self.scene is None and self.image is None:
            return open_session(engine, file if self.seed is None else replace(file, seed=self.seed))
        seed = self.seed if self.seed is not None else file.seed if file is not None else 0
        if self.scene is not None:
            return engine.open(seed=seed, scene=self.scene, start=self.start)
        return engine.open(find_image(engine, self.image), seed)


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
    coming: deque[tuple[Coming, list[Action]]] = deque()
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
    console: Any,
    *,
    overlay: bool = False,
    scale: int = 1,
    watch: Callable[[Frames], None] = lambda frames: None,
) -> list[Picture]:
    """Writes the video of a session that plays `script` (None: its first frame alone).

    overlay: show the keys below each frame; scale: enlarge by this whole factor; watch: gets the frames as they are.
    Returns the frames for a contact sheet, spread evenly over it.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    height, width = (side * scale for side in session.resolution)
    num_frames = 1 + (script.num_frames if script else 0)
    wanted = set(sheet_frames(num_frames))
    kept: list[Picture] = []
    columns = TextColumn("generating"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} frames")
    full_height = height + (strip_height(width) if overlay else 0)
    with (
        open_video(output, (full_height, width), log) as video,
        Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        task = progress.add_task("", total=num_frames)
        num_seen = 0
        for frames, actions in rollout(session, script):
            watch(frames)
            kept += [frame for i, frame in enumerate(frames, num_seen) if i in wanted]
            num_seen += len(frames)
            pictures = [enlarge(frame, (height, width)) for frame in frames]
            if overlay:
                pictures = [add_keys(p, a, session.action_space) for p, a in zip(pictures, actions, strict=True)]
            video.write(np.stack(pictures))
            progress.advance(task, len(frames))
    return kept


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


def load_engine(config: Any, console: Any) -> Engine:
    """The engine of a command's options."""
    from reverie.engine.engine import load

    names = ("device", "dtype", "variant", "decoder", "preset", "weights", "mode")
    with console.status(f"loading {config.model}") as status:
        return load(
            config.model,
            **{name: getattr(config, name) for name in names},
            say=lambda text: console.print(text, highlight=False, soft_wrap=True),
            progress=lambda share, text: status.update(f"{text} ({share:.0%})"),
        )
