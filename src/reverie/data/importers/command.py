"""`reverie import KIND SRC DST`: bring in what others recorded."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from reverie.data.importers.take import Source, read_json
from reverie.data.importers.transfer import Report, Transfer
from reverie.data.writer import DatasetWriter
from reverie.errors import DataError
from reverie.types import FPS, POSE_NAMES

Kind = Literal["vpt", "gf-minecraft", "owamcap", "opencs2", "folder", "lerobot"]
Place = Annotated[Path, tyro.conf.Positional]


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

    kind: Annotated[Kind, tyro.conf.Positional]
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

    def run(self) -> None:
        """Import, and print what was brought in and what was dropped."""
        report = import_takes(self, show=True)
        Console().print(report.table())
        for note in report.notes:
            print(f"note: {note}", file=sys.stderr)
        print(f"{self.dst}: {report.episodes} episodes and {report.frames / FPS / 3600:.2f} h added")


def open_source(config: ImportConfig) -> Source:
    """The takes at `config.src`.  Raises DataError if there are none of that kind."""
    if not config.src.exists():
        raise DataError(f"{config.src}: there is no such file or folder")
    module = import_module(f"reverie.data.importers.{config.kind.replace('-', '_')}")
    return module.open_source(config)


def import_takes(config: ImportConfig, *, show: bool = False) -> Report:
    """Bring in every take that can be used.  Raises DataError if not one episode can, leaving nothing behind."""
    source = open_source(config)
    is_new = not config.dst.exists() or (config.dst.is_dir() and not any(config.dst.iterdir()))
    notes = _notes(config)
    writer = DatasetWriter(
        config.dst,
        source.space,
        config.resolution,
        FPS,
        pose_names=POSE_NAMES if source.has_poses else (),
        task=f"play {config.kind}",
        notes=notes,
    )
    try:
        transfer = Transfer(config, source, writer)
    except BaseException:
        writer.close()
        raise
    status = Console(stderr=True).status("importing") if show else contextlib.nullcontext()
    try:
        with writer, status:
            transfer.run()
            if transfer.report.episodes:
                writer.write_notes(_with_import(notes, config))
    finally:
        if is_new and not writer.rows:
            shutil.rmtree(config.dst, ignore_errors=True)
    if not writer.rows:
        notes = transfer.report.notes
        why = notes[0] if notes else "every stretch was too short"
        raise DataError(f"{config.src}: nothing could be imported; the first reason: {why}")
    return transfer.report


def _notes(config: ImportConfig) -> dict[str, Any]:
    """Notes of a dataset on how it was made; for a new one, this import.

    Raises DataError for a recording of our own.
    """
    path = config.dst / "meta/reverie.json"
    if not path.is_file():
        return _with_import({}, config)
    notes = read_json(path)
    if not isinstance(notes, dict) or not isinstance(notes.get("importer"), dict):
        raise DataError(f"{config.dst}: holds a recording of our own; import into another folder")
    return notes


def _with_import(notes: dict[str, Any], config: ImportConfig) -> dict[str, Any]:
    """`notes` with this import as the last: `importer` is the last one, `imports` all that brought something in.

    Which options an episode came of is in its row of the episode table, as `source_options`.
    """
    this = json.loads(json.dumps({"src": str(config.src), **config.options()}))
    before = [one for one in notes.get("imports", ()) if one != this]
    return {**notes, "importer": this, "imports": [*before, this]}
