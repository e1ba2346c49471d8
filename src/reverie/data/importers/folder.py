"""A plain folder of videos, each with a table of actions of the same name: `walk.mp4` with `walk.csv` or `walk.jsonl`.

A row (a line of the CSV under its header, or a JSON object) has
    frame       the number of a frame of the video, from 0: what was done during it, which shows in the next; or
    time_s      from when the row holds, in seconds of the video, until the next row's time
    key.NAME    1 while the key is held, 0 otherwise (with any other number the row is left out); NAME as in our own
                recordings (forward, jump, ...), or any other
    mouse.pitch, mouse.yaw   how far the camera turned during the row, in degrees; up and right positive
A row of time_s spreads its turn evenly over its time.  Columns of other names are left alone.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.data.importers.take import Mask, Source, Table, Take, Track, ordered, parse_json, read_lines
from reverie.data.importers.video import VIDEO_SUFFIXES
from reverie.errors import DataError
from reverie.paths import own_files
from reverie.types import FPS, ActionSpace

if TYPE_CHECKING:
    from reverie.data.importers.config import ImportConfig

TABLE_SUFFIXES = (".csv", ".jsonl")
MAX_FRAMES = 2**31
LONGEST_ROW_S = 0.5
"""The last row of a table, which has no next one, holds no longer than this."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table: the line of each row in its file, from 1, its columns, and remarks for the report."""

    path: Path
    numbers: list[int]
    columns: dict[str, list[Any]]
    notes: list[str] = field(default_factory=list)


def _find_table(video: Path, is_shared: bool) -> Path:
    """The table of a video.  Raises DataError where there is none, or several, or one of several videos."""
    found = [table for suffix in TABLE_SUFFIXES if (table := video.with_suffix(suffix)).is_file()]
    if not found:
        raise DataError(f"{video}: its table {video.stem}.csv or .jsonl is missing")
    if len(found) > 1:
        raise DataError(f"{video}: has two tables, {found[0].name} and {found[1].name}; remove one")
    if is_shared:
        raise DataError(f"{video}: shares its table {found[0].name} with another video; rename one of them")
    return found[0]


def open_source(config: ImportConfig) -> Source:
    """Every video under the folder with its table; the action space is all the columns that any table has."""
    videos = [config.src] if config.src.is_file() else own_files(config.src.rglob("*"))
    videos = [path for path in videos if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()]
    if not videos:
        raise DataError(f"{config.src}: has no videos ({', '.join(VIDEO_SUFFIXES)})")
    tables: dict[Path, Path] = {}
    names: set[str] = set()
    problems: dict[Path, str] = {}
    stems = Counter(video.with_suffix("") for video in videos)
    for video in videos:
        try:
            table = tables[video] = _find_table(video, is_shared=stems[video.with_suffix("")] > 1)
            names |= set(read_rows(table).columns)
        except DataError as error:
            problems[video] = str(error)
    keys = ordered(name.removeprefix("key.") for name in names if name.startswith("key."))
    space = ActionSpace(keys, mouse=bool(names & {"mouse.pitch", "mouse.yaw"}))
    if not space.size:
        why = next(iter(problems.values()), "the tables have no columns key.NAME, mouse.pitch or mouse.yaw")
        raise DataError(f"{config.src}: no actions found; {why}")

    def takes() -> Iterator[Take | str]:
        root = config.src if config.src.is_dir() else config.src.parent
        for video in videos:
            if video in problems:
                yield problems[video]
            else:
                read = partial(read_track, tables[video], space)
                yield Take(str(video.relative_to(root)), video, read, tables=(tables[video],))

    return Source(space, takes)


def read_track(path: Path, space: ActionSpace, times: Table) -> Track:
    """Reads the table at `path` into the actions of each frame."""
    table = read_rows(path)
    values = np.stack([_numbers(table.columns.get(name), len(table.numbers)) for name in space.names], axis=1)
    track = (_by_frame if "frame" in table.columns else _by_time)(table, values, space, times)
    track.notes += table.notes
    return track


def _by_frame(table: Rows, values: Table, space: ActionSpace, times: Table) -> Track:
    track = Track.blank(len(times), space)
    frames = _numbers(table.columns["frame"], len(values))
    usable = np.isfinite(frames) & (frames >= 0) & (frames < MAX_FRAMES) & (frames == np.floor(frames))
    track.note_rows(table.path, [table.numbers[i] for i in np.flatnonzero(~usable)], "frame is not a whole number")
    index = frames[usable].astype(int)
    track.match(int(index.max(initial=-1)) + 1, table.path)
    inside = index < len(times)
    track.actions[index[inside]] = values[usable][inside]
    there, count = np.unique(index[inside], return_counts=True)
    track.note_rows(table.path, there[count > 1].tolist(), "several rows for this frame")
    track.drop(there[count > 1].tolist(), "several rows")
    lacking = np.setdiff1d(np.arange(min(len(times), int(index.max(initial=-1)) + 1)), index)
    track.note_rows(table.path, lacking.tolist(), "no row for this frame")
    track.drop(lacking.tolist(), "no action")
    _drop_odd_keys(track, table.path, len(space.keys))
    track.validate(table.path, space)
    return track


def _drop_odd_keys(track: Track, table: Path, num_keys: int) -> None:
    keys = track.actions[:, :num_keys]
    odd = np.flatnonzero((np.isfinite(keys) & (keys != 0) & (keys != 1)).any(axis=1) & track.keep).tolist()
    track.note_rows(table, odd, "a key that is neither 0 nor 1")
    track.drop(odd, "a key that is neither 0 nor 1")


def _by_time(table: Rows, values: Table, space: ActionSpace, times: Table) -> Track:
    """Rows that hold from their time to the next: keys held at any time of a frame, turns spread evenly."""
    track = Track.blank(len(times), space)
    begins = _numbers(table.columns["time_s"], len(values)) + times[0]
    timed: Mask = np.isfinite(begins)
    known: Mask = np.logical_and.reduce(np.isfinite(values), axis=1)
    track.note_rows(table.path, [table.numbers[i] for i in np.flatnonzero(~(timed & known))], "not a number")
    odd = known & timed & ~np.isin(values[:, : len(space.keys)], (0.0, 1.0)).all(axis=1)
    track.note_rows(table.path, [table.numbers[i] for i in np.flatnonzero(odd)], "a key that is neither 0 nor 1")
    known &= ~odd
    begins, values, known = begins[timed], np.where(known[:, None], values, 0.0)[timed], known[timed]
    if not len(begins) or (np.diff(begins) <= 0).any():
        raise DataError(f"{table.path}: time_s must be numbers that grow from row to row; sort the rows")
    step = float(np.median(np.diff(begins))) if len(begins) > 1 else 1.0 / FPS
    ends = np.append(begins[1:], begins[-1] + min(step, LONGEST_ROW_S))
    unknown = _overlaps(begins[~known], ends[~known], times)
    edges = np.append(times, times[-1] + 1.0 / FPS)
    keys = len(space.keys)
    sums = np.concatenate([np.zeros((1, space.size - keys)), np.cumsum(values[:, keys:], axis=0)])
    for column in range(space.size - keys):
        track.actions[:, keys + column] = np.diff(np.interp(edges, np.append(begins, ends[-1]), sums[:, column]))
    for column in range(keys):
        down = values[:, column] > 0.5
        track.actions[:, column] = _overlaps(begins[down], ends[down], times)
    track.drop(unknown, "not a number" if not odd.any() else "not a number, or a key that is neither 0 nor 1")
    outside = (times < begins[0] - 1e-6) | (times > ends[-1] + 1e-6)
    if outside.any():
        track.notes.append(
            f"{table.path}: covers {begins[0] - times[0]:.2f} to {ends[-1] - times[0]:.2f} s of the video"
        )
    if ends[-1] > edges[-1] + 1.0 / FPS:
        track.notes.append(f"{table.path}: goes on to {ends[-1] - times[0]:.2f} s, the video ends before")
    track.drop(outside, "no action")
    track.validate(table.path, space)
    return track


def _overlaps(begins: Table, ends: Table, times: Table) -> Mask:
    """Frames `(f,)` during which any of the intervals [begin, end) lies, at least in part."""
    until = np.append(times[1:], times[-1] + 1.0 / FPS)
    started = np.searchsorted(begins, until - 1e-6)
    ended = np.searchsorted(ends, times + 1e-6, side="right")
    return started > ended


def read_rows(path: Path) -> Rows:
    """The table at `path`.  Raises DataError for another kind of file, and without frame and time_s."""
    notes: list[str] = []
    rows = list(_csv_rows(path, notes) if path.suffix.lower() == ".csv" else _jsonl_rows(path))
    names = {name for _, row in rows for name in row}
    wanted = [n for n in names if n in ("frame", "time_s", "mouse.pitch", "mouse.yaw") or n.startswith("key.")]
    if strange := sorted(n for n in names if n.startswith("mouse.") and n not in wanted):
        raise DataError(f"{path}: has a column {strange[0]}, known are mouse.pitch and mouse.yaw; rename it")
    if not {"frame", "time_s"} & set(wanted):
        raise DataError(f"{path}: needs a column frame or time_s, has {sorted(names)[:8]}")
    columns = {name: [row.get(name) for _, row in rows] for name in wanted}
    return Rows(path, [number for number, _ in rows], columns, notes)


def _csv_rows(path: Path, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if not lines:
        return
    header = [name.strip() for name in lines[0][1]]
    for name, count in Counter(header).items():
        if count > 1 and name:
            raise DataError(f"{path}: has the column {name} {count} times; keep one")
    if text[-1] not in "\r\n" and len(lines) > 1:
        number, _ = lines.pop()
        notes.append(f"{path}: row {number}: has no line end, and may be cut short; it is left out")
    for number, cells in lines[1:]:
        if len(cells) > len(header):
            raise DataError(f"{path}: row {number} has {len(cells)} cells, the header {len(header)}; mend or remove it")
        yield number, dict(zip(header, cells, strict=False))


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row, why = parse_json(line), ""
        except ValueError as error:
            row, why = None, f" ({error})"
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is not a JSON object{why}; mend or remove it")
        yield number, row


def _numbers(column: list[Any] | None, length: int) -> Table:
    """A column as numbers; NaN where it is none, 0 where the table has no such column."""
    if column is None:
        return np.zeros(length)
    return np.array([_number(value) for value in column], np.float64)


def _number(value: Any) -> float:
    try:
        return float("nan") if isinstance(value, str) and "_" in value else float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
