"""`reverie generate`: an image and an action script -> a video, through the same session that a player has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from reverie.argument_markers import alias
from reverie.cli.loading import load_engine, load_options
from reverie.engine.loading.load_options import LoadOptions
from reverie.errors import ActionError, ImageError

if TYPE_CHECKING:
    from reverie.engine.engine import Engine
    from reverie.engine.sessions.session import Session
    from reverie.engine.sessions.session_file import SessionFile


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig(LoadOptions):
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
    output: Annotated[Path, alias("-o")] = Path("out.mp4")
    """The video to write: .mp4, .webm or .gif."""
    image: str | None = None
    """The start image: a path, or the name of one that came with the model (the default is its first)."""
    scene: str | None = None
    """Begin in this scene instead: a bundled one's name (`reverie scene list`), or a folder."""
    start: int = 0
    """With --scene: the number of the start to begin at."""
    model: str = "nano"
    seed: int | None = None
    """Decides the noise: the same seed, image and script give the same video; 0, or a .reverie file's."""
    overlay: bool = False
    """Show the keys and the camera's turn below the frame."""
    scale: int = 1
    """Enlarge the video by this whole factor."""
    sheet: Path | None = None
    """Also write a contact sheet of the video, a .png file."""


def generate(config: GenerateConfig) -> None:
    """Generates the video, and the contact sheet if one is asked for."""
    from reverie.engine.media.render import check_scale, describe, length_of, render, write_sheet
    from reverie.engine.media.video import SUFFIXES, check_output
    from reverie.engine.sessions.script import load_script
    from reverie.engine.sessions.session_file import SUFFIX, SessionFile

    if config.scene is not None and config.image is not None:
        raise ImageError("a video begins on an image or in a scene: leave --image or --scene out")
    if config.scene is None and config.start:
        raise ImageError(f"--start {config.start} is a start of a scene, and none is named; add --scene")
    if config.scene is not None:
        from reverie.engine.loading.scenes import SceneCard

        SceneCard.read(config.scene).start(config.start)
    file = SessionFile.load(config.actions) if config.actions.lower().endswith(SUFFIX) else None
    script = load_script(config.actions) if file is None else file.script
    if script is None:
        raise ActionError(f"nothing was played in {config.actions!r}; give a session with actions, or a script")
    check_scale(config.scale)
    check_output(config.output, *SUFFIXES)
    if config.sheet is not None:
        check_output(config.sheet, ".png")
    console = Console(stderr=True)
    engine = load_engine(load_options(config), console)
    script.check(engine.action_space)
    session = _open(config, engine, file)
    log = {**describe(session, script), "image": config.image}
    with generating_bar(console, length_of(script)) as advance:
        frames = render(
            session, script, config.output, log, overlay=config.overlay, scale=config.scale, advance=advance
        )
    if config.sheet is not None:
        write_sheet(config.sheet, frames, script)
    session.close()
    console.print(
        f"{config.output}: {script.seconds:g} s, {script.num_frames + 1} frames", highlight=False, soft_wrap=True
    )


def _open(config: GenerateConfig, engine: Engine, file: SessionFile | None) -> Session:
    """The session at its start: from the options, else from `file`."""
    from reverie.engine.media.render import find_image
    from reverie.engine.sessions.session_file import open_session

    if file is not None and config.scene is None and config.image is None:
        return open_session(engine, file if config.seed is None else replace(file, seed=config.seed))
    seed = config.seed if config.seed is not None else file.seed if file is not None else 0
    if config.scene is not None:
        return engine.open(seed=seed, scene=config.scene, start=config.start)
    return engine.open(find_image(engine, config.image), seed)


@contextmanager
def generating_bar(console: Console, num_frames: int) -> Iterator[Callable[[int], None]]:
    """A bar of frames on a terminal; it is called with the number of new ones."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("generating"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} frames")
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=num_frames)
        yield lambda count: progress.advance(task, count)
