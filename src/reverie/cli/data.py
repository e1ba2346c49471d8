"""`reverie data check | sheet | report | pack | view | push | pull`: datasets of recordings."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console

from reverie.argument_markers import alias, positional
from reverie.cli.pull_options import PullOptions
from reverie.errors import DataError
from reverie.hub.push_options import PushOptions
from reverie.types import FPS

if TYPE_CHECKING:
    from rich.table import Table

    from reverie.data.audit import Examined
    from reverie.data.dataset import Dataset

Folder = Annotated[Path, positional()]
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


def data_check(config: CheckConfig) -> int:
    """Prints a table and the lines of what is wrong; returns the exit code."""
    from rich.progress import track

    from reverie.data import audit

    dataset = audit.open_dataset(config.dataset)
    total = min(config.episodes or dataset.num_episodes, dataset.num_episodes)
    console = Console(stderr=True)
    watched = track(audit.examine(dataset, config.episodes), "checking", total, console=console, transient=True)
    seen = list(watched)
    damage = [*audit.head_problems(dataset), *(line for one in seen for line in audit.damage_lines(one))]
    bad = [one for one in seen if one.damage or one.reasons]
    if listed := (seen if config.every else bad):
        Console().print(_table(listed))
    for line in damage:
        print(f"damaged: {line}", file=sys.stderr)
    print(_summary(dataset, seen, len(damage)))
    fits = damage or _print_geometry(dataset)
    return DAMAGED if damage else SUSPECT if bad or not fits else 0


def _print_geometry(dataset: Dataset) -> bool:
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


def _table(seen: list[Examined]) -> Table:
    from rich.table import Table

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


def _summary(dataset: Dataset, seen: list[Examined], damaged: int) -> str:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetConfig:
    """Draw a contact sheet: a row an episode, the keys under each frame and an arrow for the mouse.

    Example: reverie data sheet recordings/vizdoom -o sheet.png --episodes 6 --apart 0.5
    """

    dataset: Folder
    """The dataset's folder."""
    out: Annotated[Path, alias("-o")] = Path("sheet.png")
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


def data_sheet(config: SheetConfig) -> None:
    """Writes the image and prints its path."""
    from reverie.data.audit import open_dataset
    from reverie.data.sheet import choose_episodes, draw_sheet, image_format

    kind = image_format(config.out)
    dataset = open_dataset(config.dataset)
    chosen = choose_episodes(dataset, config.episodes, config.seed)
    sheet = draw_sheet(dataset, chosen, config.frames, config.apart, config.scale)
    sheet.save(config.out, kind, **({"quality": 88} if kind == "JPEG" else {}))
    print(f"{config.out}: {len(chosen)} episodes, {sheet.width}x{sheet.height} pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Report the coverage of a dataset: keys, combinations, camera speeds, places, idle, stuck and static clips.

    Prints a summary; files get all of it: a page (.html), an image (.png) or the figures (.json).

    Example: reverie data report recordings/vizdoom -o coverage.html coverage.json
    """

    dataset: Folder
    """The dataset's folder."""
    out: Annotated[tuple[Path, ...], alias("-o")] = ()
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


def data_report(config: ReportConfig) -> None:
    """Prints the summary and writes the files."""
    from reverie.data.audit import open_dataset
    from reverie.data.charts import draw_page, draw_report, summary
    from reverie.data.coverage import measure

    found = measure(open_dataset(config.dataset), config.clips, config.seed)
    for line in summary(found):
        print(line)
    for key, use in found.keys.items():
        print(f"  {key:<12} {use.share:6.1%} of frames, {use.presses} presses, median {use.median_s:.2f} s")
    for path in config.out:
        if path.suffix.lower() == ".png":
            draw_report(found).save(path, "PNG")
        elif path.suffix.lower() == ".html":
            path.write_text(draw_page(found), encoding="utf-8")
        else:
            path.write_text(json.dumps(found.as_json(), indent=1), encoding="utf-8")
        print(f"wrote {path}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackConfig:
    """Write recordings with camera poses and depth as a pack: files that training reads on a bare machine.

    Example: reverie data pack recordings/vizdoom -o packs/doom
    """

    recordings: Annotated[tuple[Path, ...], positional()]
    """Folders of LeRobot datasets, of one game."""
    output: Annotated[Path, alias("-o")]
    """The pack's folder."""
    part: Literal["all", "train", "held-out"] = "all"
    """The episodes that are packed: all, or those that are (not) held out.  Where none is marked as held out, every
    eighth is."""
    depth_every: int = 16
    """Frames between depth images, a multiple of 4."""
    fov: float | None = None
    """Horizontal field of view in degrees, if the recordings do not state it."""


def data_pack(config: PackConfig) -> None:
    """Packs the recordings, with a bar on a terminal."""
    from rich.progress import Progress

    from reverie.train.spatial.packing import pack

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("packing", total=1.0)
        count, frames = pack(
            config.recordings,
            config.output,
            part=config.part,
            depth_every=config.depth_every,
            fov_deg=config.fov,
            report=lambda share: bar.update(task, completed=share),
        )
    print(f"{config.output}: {count} episodes, {frames} frames")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """Open an episode of a recording in rerun: frames, actions, camera, depth, and a memory that fills as it walks.

    With -o it writes a file instead, which `rerun FILE` opens, here or on another machine.

    Examples: reverie data view recordings/vizdoom;  reverie data view recordings/vizdoom --episode 3 -o walk.rrd
    """

    dataset: Annotated[Path, positional()]
    """The dataset's folder."""
    episode: int = 0
    """The episode's number."""
    output: Annotated[Path | None, alias("-o")] = None
    """A file to write, .rrd, instead of opening the viewer."""
    memory_s: float = 2.0
    """Seconds between the keyframes of the memory; 0 shows none."""

    def __post_init__(self) -> None:
        if self.output is not None and self.output.suffix != ".rrd":
            raise DataError(f"{self.output}: rerun's files end in .rrd; choose another name")
        if self.memory_s < 0:
            raise DataError(f"--memory-s must be 0 or more seconds, got {self.memory_s:g}")


def data_view(config: ViewConfig) -> None:
    """Writes the file, or opens the viewer."""
    from reverie.data.audit import open_dataset
    from reverie.data.view import import_rerun, save_clip, show_clip

    import_rerun()  # before anything is read
    dataset = open_dataset(config.dataset)
    clip = dataset.clip(config.episode)
    name = f"{dataset.path.absolute().name}, episode {config.episode}"
    if config.output is None:
        show_clip(dataset, clip, name, config.memory_s)
    else:
        save_clip(config.output, dataset, clip, name, config.memory_s)
        print(f"{config.output}: {len(clip.frames)} frames; rerun {config.output} opens it")


@dataclass(frozen=True, kw_only=True, slots=True)
class PushDatasetConfig(PushOptions):
    """Push a recording to the Hugging Face Hub, in one commit, with a card; LeRobot reads it from there.

    Log in first, with `hf auth login` or HF_TOKEN.

    Example: reverie data push recordings/vizdoom somebody/doom-walks --licence CC-BY-4.0
    """

    dataset: Annotated[Path, positional()]
    """The dataset's folder."""
    repository: Annotated[str, positional()]
    """OWNER/NAME; made if it is not there."""
    licence: str = ""
    """The licence of the frames, for the card."""


def data_push(config: PushDatasetConfig) -> None:
    """Pushes the dataset and prints its address."""
    from reverie.data.hub import push_dataset

    print(push_dataset(config.dataset, config.repository, config, licence=config.licence))


@dataclass(frozen=True, kw_only=True, slots=True)
class PullDatasetConfig(PullOptions):
    """Download a recording in the LeRobot v3 layout from the Hugging Face Hub into a folder.

    Example: reverie data pull somebody/doom-walks -o recordings/doom-walks
    """


def data_pull(config: PullDatasetConfig) -> None:
    """Downloads the dataset and prints its folder."""
    from reverie.data.hub import pull_dataset

    print(pull_dataset(config.repository, config.output, revision=config.revision))
