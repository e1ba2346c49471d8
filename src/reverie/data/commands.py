"""`reverie data check | sheet | report`: look at a dataset before training on it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reverie.data import audit
from reverie.data.charts import draw_page, draw_report, summary
from reverie.data.coverage import measure
from reverie.data.dataset import Dataset
from reverie.data.sheet import choose_episodes, draw_sheet, image_format
from reverie.errors import DataError
from reverie.types import FPS

Folder = Annotated[Path, tyro.conf.Positional]
SUSPECT, DAMAGED = 1, 2
"""Exit codes of `reverie data check`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckConfig:
    """Read every file of a dataset and judge every episode again.

    Where depth was recorded, frames are warped by depth and pose onto later ones, and settings that fit better
    otherwise (yaw, pitch, depth scale, field of view, poses a frame off) are reported.

    Exit code: 0 all is well; 1 some episodes are sound but poor (stuck, frozen, out of step), or the poses do not fit;
    2 something is damaged.

    Example: reverie data check recordings/vizdoom
    """

    dataset: Folder
    """The dataset's folder."""
    episodes: int | None = None
    """Check only so many, spread evenly."""
    every: bool = False
    """List the good episodes too."""

    def __post_init__(self) -> None:
        if self.episodes is not None and self.episodes < 1:
            raise DataError(f"episodes must be at least 1, got {self.episodes}; leave it out to check them all")

    def run(self) -> int:
        """Print a table and the lines of what is wrong; returns the exit code."""
        dataset = audit.open_dataset(self.dataset)
        total = min(self.episodes or dataset.num_episodes, dataset.num_episodes)
        console = Console(stderr=True)
        watched = track(audit.examine(dataset, self.episodes), "checking", total, console=console, transient=True)
        seen = list(watched)
        damage = [*audit.head_problems(dataset), *(line for one in seen for line in audit.damage_lines(one))]
        bad = [one for one in seen if one.damage or one.reasons]
        if listed := (seen if self.every else bad):
            Console().print(_table(listed))
        for line in damage:
            print(f"damaged: {line}", file=sys.stderr)
        print(_summary(dataset, seen, len(damage)))
        fits = damage or self._print_geometry(dataset)
        return DAMAGED if damage else SUSPECT if bad or not fits else 0

    def _print_geometry(self, dataset: Dataset) -> bool:
        """Prints the check of depth and poses against the frames; False where a setting is wrong."""
        if not any(episode.depth_file for episode in dataset.episodes):
            return True
        from reverie.data.geometry_check import check_geometry  # torch: only where there is depth

        dataset.require_poses()
        fit = check_geometry(dataset)
        if fit is None:
            print(f"{dataset.path}: too little motion to tell whether depth and poses fit")
            return True
        print(
            f"{dataset.path}: frames warped by depth and pose onto later ones fit {fit.warped_db:.1f} dB,"
            f" left as they are {fit.still_db:.1f} dB ({fit.pairs} pairs)"
        )
        for name, gain in fit.wrong:
            print(f"wrong: {name}: {gain:.1f} dB better", file=sys.stderr)
        if not fit.fits and not fit.wrong:
            print("wrong: depth and poses do not fit the frames, for a reason that is not known", file=sys.stderr)
        return fit.fits


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetConfig:
    """Draw a contact sheet: a row an episode, the keys under each frame and an arrow for the mouse.

    Example: reverie data sheet recordings/vizdoom -o sheet.png --episodes 6 --apart 0.5
    """

    dataset: Folder
    """The dataset's folder."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("sheet.png")
    """The image to write, .png or .jpg."""
    episodes: int = 8
    """Rows."""
    frames: int = 8
    """Frames in a row."""
    apart: float | None = None
    """Seconds between frames; leave it out to spread them over the whole episode."""
    seed: int | None = None
    """Draw episodes by this seed; leave it out to spread them evenly."""
    scale: int = 1
    """Enlarge each frame so many times, 1 to 4."""

    def __post_init__(self) -> None:
        for name, low, high in (("episodes", 1, 1000), ("frames", 1, 1000), ("scale", 1, 4)):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"{name} must be {low} to {high}, got {getattr(self, name)}")
        if self.apart is not None and not self.apart > 0:
            raise DataError(f"apart must be positive, got {self.apart}")

    def run(self) -> None:
        """Writes the image and prints its path."""
        kind = image_format(self.out)
        dataset = audit.open_dataset(self.dataset)
        chosen = choose_episodes(dataset, self.episodes, self.seed)
        sheet = draw_sheet(dataset, chosen, self.frames, self.apart, self.scale)
        sheet.save(self.out, kind, **({"quality": 88} if kind == "JPEG" else {}))
        print(f"{self.out}: {len(chosen)} episodes, {sheet.width}x{sheet.height} pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Report the coverage of a dataset: keys, combinations, camera speeds, places, idle, stuck and static clips.

    Prints a summary; files get all of it: a page (.html), an image (.png) or the figures (.json).

    Example: reverie data report recordings/vizdoom -o coverage.html coverage.json
    """

    dataset: Folder
    """The dataset's folder."""
    out: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["-o"])] = ()
    """Files to write: .html, .json or .png."""
    clips: int = 200
    """Clips of two seconds whose frames are decoded."""
    seed: int = 0
    """Draws the clips."""

    def __post_init__(self) -> None:
        for path in self.out:
            if path.suffix.lower() not in (".html", ".json", ".png"):
                raise DataError(f"{path}: a report ends in .html, .json or .png; choose another name")
            if not path.parent.is_dir():
                raise DataError(f"{path}: the folder {path.parent} does not exist; make it, or choose another")
        if self.clips < 0 or self.seed < 0:
            raise DataError(f"clips and seed must not be negative, got {self.clips} and {self.seed}")

    def run(self) -> None:
        """Print the summary and write the files."""
        found = measure(audit.open_dataset(self.dataset), self.clips, self.seed)
        for line in summary(found):
            print(line)
        for key, use in found.keys.items():
            print(f"  {key:<12} {use.share:6.1%} of frames, {use.presses} presses, median {use.median_s:.2f} s")
        for path in self.out:
            if path.suffix.lower() == ".png":
                draw_report(found).save(path, "PNG")
            elif path.suffix.lower() == ".html":
                path.write_text(draw_page(found), encoding="utf-8")
            else:
                path.write_text(json.dumps(found.as_json(), indent=1), encoding="utf-8")
            print(f"wrote {path}")


def _table(seen: list[audit.Examined]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("episode", "map", "frames", "still", "idle", "verdict"):
        table.add_column(name, justify="left" if name in ("map", "verdict") else "right", overflow="fold")
    for one in seen:
        verdict = "; ".join((*(f"damaged: {line}" for line in one.damage), *one.reasons)) or "good"
        table.add_row(
            str(one.episode.index),
            str(one.episode.meta.get("map", "")),
            str(one.episode.length),
            f"{one.still:.0%}",
            f"{one.idle:.0%}",
            verdict,
        )
    return table


def _summary(dataset: Dataset, seen: list[audit.Examined], damaged: int) -> str:
    hours = sum(one.episode.length for one in seen) / dataset.fps / 3600
    poor = sum(bool(one.reasons) for one in seen)
    frames = max(1, sum(one.episode.length for one in seen))
    idle = sum(one.idle * one.episode.length for one in seen) / frames
    still = sum(one.still * one.episode.length for one in seen) / frames
    return (
        f"{dataset.path}: {len(seen)} of {dataset.num_episodes} episodes checked, {hours:.2f} h at {dataset.fps} fps;"
        f" {damaged} damaged, {poor} poor; idle {idle:.1%}, still {still:.1%}"
        + ("" if dataset.fps == FPS else f"; Reverie works at {FPS} fps: import it with `reverie import lerobot`")
    )
