"""Options of an import (`ImportConfig`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from reverie.argument_markers import positional
from reverie.errors import DataError

Kind = Literal["vpt", "gf-minecraft", "owamcap", "opencs2", "folder", "lerobot"]
Place = Annotated[Path, positional()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig:
    """Bring in what others recorded, at 25 frames a second, each action with the frame before the one it shows in.

    Kinds: vpt (OpenAI's contractors: mp4 and jsonl), gf-minecraft (GameFactory: metadata and video), owamcap (ocap's
    mcap and mkv), opencs2 (rounds of Counter-Strike 2: mp4 and ticks.parquet), folder (videos, each with a .csv or
    .jsonl of the same name), lerobot (any LeRobot dataset of version 3.0, 2.1 or 2.0).
    A table of actions has columns frame or time_s, key.NAME (0 or 1), mouse.pitch and mouse.yaw (degrees, up and right
    positive).  Running it again brings in what is missing: a take is identified by the contents of its files, not by
    their names.  With other options it replaces what it brought in before.

    Example: reverie import vpt downloads/vpt recordings/minecraft
    """

    kind: Annotated[Kind, positional()]
    """Format of the recording."""
    src: Place
    """The folder, or one file of it."""
    dst: Place
    """The dataset's folder; made, or continued."""
    resolution: tuple[int, int] = (128, 224)
    """Height and width of the frames; the middle of the source is cut to that shape."""
    episode_seconds: float = 40.0
    """Longest episode."""
    min_episode_seconds: float = 2.0
    """A shorter stretch is dropped."""
    map: tuple[str, ...] = ()
    """owamcap: KEY=NAME, such as w=forward mouse.left=attack; opencs2: BUTTON=NAME, such as attack2=aim;
    lerobot: DIMENSION=key.NAME or DIMENSION=mouse.yaw*57."""
    degrees_per_count: float | None = None
    """owamcap: how far one count of the mouse turns the camera (0: there is no camera to turn)."""
    video_key: str | None = None
    """lerobot: which video, where there are several."""
    late_frames: int = 0
    """The source's frames show actions so many of its frames later than its table states."""
    heldout: bool = False
    """Mark the episodes as held out: never trained on."""
    checks: bool = True
    """Judge each episode (blank, broken, out of step, turning the wrong way) and keep bad ones out."""
    limit: int | None = None
    """Bring in only so many takes."""

    def __post_init__(self) -> None:
        for name in ("episode_seconds", "min_episode_seconds"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name} must be positive, got {getattr(self, name)}")
        if min(self.resolution) < 16 or any(side % 2 for side in self.resolution):
            raise DataError(f"resolution must be two even numbers of at least 16, got {self.resolution}")

    def options(self) -> dict[str, object]:
        """Options that decide which episodes come of a take."""
        names = ("kind", "episode_seconds", "min_episode_seconds", "map", "degrees_per_count", "video_key")
        names += ("late_frames", "heldout", "checks")
        return {name: getattr(self, name) for name in names}
