"""`reverie replay`: a session's file -> a video, generated again by the model that made it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from reverie.argument_markers import alias, positional
from reverie.cli.generate import generating_bar
from reverie.cli.loading import load_engine, load_options
from reverie.engine.loading.load_options import ModelSettings
from reverie.types import Frames

if TYPE_CHECKING:
    from reverie.engine.sessions.session_file import SessionFile


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayConfig(ModelSettings):
    """Make a video of a saved session (.reverie), as it was played: the same frames, bit for bit, on the same machine.

    Examples: reverie replay walk.reverie -o walk.mp4;  reverie replay walk.reverie --overlay -o walk.gif
    """

    file: Annotated[Path, positional()]
    """The session: a file that the page exported."""
    output: Annotated[Path, alias("-o")] = Path("replay.mp4")
    """The video to write: .mp4, .webm or .gif."""
    overlay: bool = False
    """Show the keys and the turn below the frames."""
    scale: int = 1
    """Enlarge the video by this whole factor."""
    scene: Path | None = None
    """The folder of the session's scene, where it is not a bundled one."""
    model: str | None = None
    """Generate with this model instead of the one that the file names: a bundled name, a folder, or a hub id."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""


def replay(config: ReplayConfig) -> None:
    """Plays the session again, and says whether its last frame is the same."""
    from reverie.engine.media.render import check_scale, describe, length_of, render
    from reverie.engine.media.video import SUFFIXES, check_output
    from reverie.engine.sessions.session_file import SessionFile, open_session

    file = SessionFile.load(config.file)
    check_output(config.output, *SUFFIXES)
    check_scale(config.scale)
    scenes = None
    if config.scene is not None:
        from reverie.engine.loading.scenes import SceneCard

        scenes = {SceneCard.read(config.scene).name: config.scene}
    console = Console(stderr=True)
    engine = load_engine(load_options(replace(config, model=config.model or file.model_name)), console)
    session = open_session(engine, file, scenes)
    for warning in file.warnings(session):
        console.print(f"note: {warning}", highlight=False, soft_wrap=True)
    log = {**describe(session, file.script), "title": file.title, "last_frame": file.last_frame}
    last: list[Frames] = []

    def keep(frames: Frames) -> None:
        last[:] = [frames]

    shown = {"overlay": config.overlay, "scale": config.scale, "watch": keep}
    with generating_bar(console, length_of(file.script)) as advance:
        render(session, file.script, config.output, log, **shown, advance=advance)
    session.close()
    console.print(
        f"{config.output}: {file.num_frames} frames{_comparison(file, last[0])}", highlight=False, soft_wrap=True
    )


def _comparison(file: SessionFile, last: Frames) -> str:
    """Compares the replay's last frame with the session's by hash; returns the result as a clause, empty without a
    hash."""
    from reverie.engine.sessions.session_file import hash_frame

    if file.last_frame is None:
        return ""
    if hash_frame(last[-1]) == file.last_frame:
        return "; the last one equals the session's, bit for bit"
    return "; the last one differs from the session's: it was played on another machine, or with another model"
