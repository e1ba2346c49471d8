"""OpenAI's VPT contractor data: `NAME.mp4` at 20 Hz and `NAME.jsonl`, a line a frame, in one folder.

A line: {"mouse": {"dx": px, "dy": px, "buttons": [0], "newButtons": []}, "keyboard": {"keys": ["key.keyboard.w"]},
"isGuiOpen": false, "xpos": ..., "ypos": ..., "zpos": ..., "yaw": deg, "pitch": deg, "milli": ms, ...}.  A pixel of the
mouse is 360/2400 degrees, down and right positive; button 0 attacks, 1 uses.  Line i is what was done on seeing frame
i.  Frames with a menu open (isGuiOpen) are left out; the hotbar, sprinting and dropping have no key here.

Lines have no number.  Where there is not one for each frame, those after a line that cannot be read, or after gaps in
their clock (`milli`) that the missing lines explain, are left out; a clock that runs backwards refuses the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.data.importers.take import WALKER, Source, Table, Take, Track, parse_json, read_lines
from reverie.errors import DataError
from reverie.paths import own_files
from reverie.types import POSE_NAMES

if TYPE_CHECKING:
    from reverie.data.importers.config import ImportConfig

DEGREES_PER_PX = 360.0 / 2400.0

KEYS = {
    "key.keyboard.w": "forward",
    "key.keyboard.s": "back",
    "key.keyboard.a": "left",
    "key.keyboard.d": "right",
    "key.keyboard.space": "jump",
    "key.keyboard.left.shift": "crouch",
}
ATTACK, USE = 0, 1
POSE = ("xpos", "zpos", "ypos", "yaw", "pitch")
EYE_M = 1.62
"""Height of a player's eyes above the feet; the recordings hold the feet."""


def open_source(config: ImportConfig) -> Source:
    """Every .jsonl of the folder, or the one named, with the video beside it."""
    tables = [config.src] if config.src.is_file() else own_files(config.src.rglob("*.jsonl"))
    if not tables:
        raise DataError(f"{config.src}: has no .jsonl; VPT's recordings are NAME.mp4 with NAME.jsonl")
    root = config.src if config.src.is_dir() else config.src.parent
    there = [table for table in tables if table.with_suffix(".mp4").is_file()]
    known = {table: all(name in step for name in POSE) for table in there if (step := _first_step(table))}
    has_poses = bool(known) and all(known.values())

    def takes() -> Iterator[Take | str]:
        for table in tables:
            video = table.with_suffix(".mp4")
            if table not in there:
                yield f"{table}: its video {video.name} is missing"
                continue
            if any(known.values()) and known.get(table) is False:
                yield f"{table}: has no poses ({', '.join(POSE)}), so they are left out of all recordings"
            name = str(table.relative_to(root).with_suffix(""))
            yield Take(name, video, partial(read_track, table, has_poses), tables=(table,))

    return Source(WALKER, takes, has_poses)


def read_track(table: Path, has_poses: bool, times: Table) -> Track:
    """Reads the lines of `table` into the actions of each frame."""
    track = Track.blank(len(times), WALKER)
    track.poses = np.zeros((len(times), len(POSE_NAMES))) if has_poses else None
    steps = [_step(line) for line in read_lines(table)]
    _check_clock(steps, table)
    track.match(len(steps), table)
    if len(steps) != len(times):
        # A line lost or added: which frames the lines after it belong to is not known.
        if None in steps:
            first = steps.index(None)
            track.notes.append(f"{table}: row {first + 1}: cannot be read, and there is not a row for each frame")
            track.drop(slice(first, None), "after a row that cannot be read")
        for first in _gaps(steps, len(times) - len(steps))[:1]:
            track.notes.append(f"{table}: row {first + 1}: not at the time of a next row, and not a row for each frame")
            track.drop(slice(first, None), "after a gap in the rows")
    bad: list[int] = []
    stuck = False
    for row, step in enumerate(steps[: len(times)]):
        try:
            if step is None:
                raise ValueError
            pressed = 0 in step["mouse"].get("newButtons", ())
            # Some recordings begin with attack held down until the player first presses it.
            stuck = pressed if row == 0 else stuck and not pressed
            track.actions[row] = _action(step, stuck)
            if track.poses is not None:
                track.poses[row] = _pose(step)
            if step.get("isGuiOpen", False):
                track.drop([row], "with a menu open")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            bad.append(row)
    bad = [row for row in bad if track.keep[row]]
    track.note_rows(table, [row + 1 for row in bad], "malformed")
    track.drop(bad, "malformed")
    track.validate(table, WALKER, first_row=1)
    return track


def _action(step: dict[str, Any], attack_is_stuck: bool) -> list[float]:
    mouse, held = step["mouse"], {KEYS.get(key) for key in step["keyboard"]["keys"]}
    if ATTACK in mouse["buttons"] and not attack_is_stuck:
        held.add("attack")
    if USE in mouse["buttons"]:
        held.add("use")
    turn = [-DEGREES_PER_PX * float(mouse["dy"]), DEGREES_PER_PX * float(mouse["dx"])]
    return [float(key in held) for key in WALKER.keys] + turn


def _pose(step: dict[str, Any]) -> list[float]:
    """Our pose of a step: Minecraft's z points south and its y up, yaw 0 looks south and pitch grows downwards."""
    east, south, up, yaw, pitch = (float(step[name]) for name in POSE)
    return [east, -south, up + EYE_M, (yaw + 180.0) % 360.0, -pitch, 0.0]


def _step(line: str) -> dict[str, Any] | None:
    """A line as an object; None where it is none."""
    try:
        step = parse_json(line)
    except ValueError:
        return None
    return step if isinstance(step, dict) else None


def _check_clock(steps: list[dict[str, Any] | None], table: Path) -> None:
    """Raises DataError where a row is of an earlier time than one before it: rows are out of order."""
    before = -np.inf
    for row, step in enumerate(steps, 1):
        milli = float("nan") if step is None else _milli(step)
        if milli < before:
            raise DataError(f"{table}: row {row}: is of an earlier time than the row before; sort the rows by milli")
        before = before if np.isnan(milli) else milli


def _gaps(steps: list[dict[str, Any] | None], missing: int) -> list[int]:
    """Rows before which rows are missing, or that are there twice (`missing` below 0), by their clock.

    None where the clock's gaps do not amount to `missing` rows: then the game was slow there, and no row was lost.
    """
    clock = np.array([float("nan") if step is None else _milli(step) for step in steps])
    apart = np.diff(clock)
    usual = float(np.nanmedian(apart)) if np.isfinite(apart).any() else 0.0
    if not usual > 0:
        return []
    lost = np.where(np.isfinite(apart), np.round(apart / usual) - 1, 0.0)
    return (np.flatnonzero(lost) + 1).tolist() if lost.sum() == missing else []


def _milli(step: dict[str, Any]) -> float:
    """The row's clock, NaN where it has none."""
    milli = step.get("milli")
    if isinstance(milli, bool) or not isinstance(milli, int | float) or not abs(milli) < 1e15:
        return float("nan")
    return float(milli)


def _first_step(table: Path) -> dict[str, Any] | None:
    """The first line that is an object, of the first few; None for a file of another kind."""
    try:
        with table.open("rb") as file:
            for _ in range(8):
                step = _step(file.readline(2**20).decode("utf-8-sig"))
                if step is not None:
                    return step
    except (OSError, UnicodeDecodeError):
        pass
    return None
