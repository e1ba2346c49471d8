"""Interface of an importer: takes, each a video and a function that reads the actions of its frames."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.types import MAX_TURN_DEG, ActionSpace

Table = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

VOCABULARY = (
    "forward", "back", "left", "right", "jump", "crouch", "attack", "use", "handbrake", "trick", "turn-left",
    "turn-right",
)  # fmt: skip
"""The names of keys, in the order that a dataset has them in."""

WALKER = ActionSpace(VOCABULARY[:8], mouse=True)
"""Somebody on foot with a mouse: what minetest, Minecraft and shooters have in common."""

MAX_NOTES = 8
"""A take's report names so many bad rows and counts the others."""


@dataclass(slots=True)
class Track:
    """Actions during each frame of a video, and the frames that cannot be used.

    actions: `(f, size)`; row j follows frame j, and shows in frame j + 1.
    keep: `(f,)`, False where the row is unknown or the frame is not wanted.  poses: `(f, 5)` or None.
    dropped: frames by reason.  notes: one line each, with the row or file.
    """

    actions: Table
    keep: Mask
    poses: Table | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def blank(cls, frames: int, space: ActionSpace) -> Track:
        return cls(np.zeros((frames, space.size)), np.ones(frames, np.bool_))

    def drop(self, frames: npt.NDArray[np.bool_] | Iterable[int] | slice, reason: str) -> None:
        """Leave these frames out; those that are out already do not count again."""
        before = self.keep.copy()
        self.keep[frames if isinstance(frames, np.ndarray | slice) else list(frames)] = False
        if count := int((before & ~self.keep).sum()):
            self.dropped[reason] += count

    def match(self, rows: int, path: Path) -> None:
        """Drop the frames that `rows` rows do not reach, and note it; note also if there are more rows than frames."""
        frames = len(self.keep)
        if rows < frames:
            self.notes.append(f"{path}: ends after {rows} rows, the video has {frames} frames")
            self.drop(slice(rows, None), "no action")
        elif rows > frames:
            self.notes.append(f"{path}: has {rows} rows, the video ends after {frames} frames")
            self.dropped["rows without a frame"] += rows - frames

    def validate(self, path: Path, space: ActionSpace, first_row: int = 0) -> None:
        """Drop rows that are not numbers or turn further than anybody can; `first_row` numbers the notes."""
        turns = self.actions[:, len(space.keys) :]
        bad_numbers = ~np.isfinite(self.actions).all(axis=1)
        if self.poses is not None:
            bad_numbers |= ~np.isfinite(self.poses).all(axis=1)
        with np.errstate(invalid="ignore"):
            too_far = (np.abs(turns) > MAX_TURN_DEG).any(axis=1) & ~bad_numbers
        for bad, what in ((bad_numbers, "not a number"), (too_far, f"a turn of more than {MAX_TURN_DEG:g} degrees")):
            rows = np.flatnonzero(bad & self.keep)
            self.note_rows(path, [int(row) + first_row for row in rows], what)
            self.drop(rows.tolist(), what)
        self.actions[~self.keep] = 0.0

    def note_rows(self, path: Path, rows: list[int], what: str) -> None:
        """A line for each of the first rows, and one that counts the rest."""
        self.notes += [f"{path}: row {row}: {what}" for row in rows[:MAX_NOTES]]
        if len(rows) > MAX_NOTES:
            self.notes.append(f"{path}: {len(rows) - MAX_NOTES} more rows: {what}")


@dataclass(frozen=True, slots=True)
class Take:
    """One recording of somebody else.

    name: its usual name.  read: the times of the video's frames in seconds, `(f,)` -> the track; with a
    window they are counted from the video's first frame.  window: from when to when of the video, in seconds after its
    first frame; all of it if None.  meta: what else is worth keeping.  tables: the files of the actions.
    rows: for a part of larger files, the bytes of the part that holds the actions.
    """

    name: str
    video: Path
    read: Callable[[Table], Track]
    window: tuple[float, float] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    tables: tuple[Path, ...] = ()
    rows: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of takes of one kind: all have this action space; `has_poses` if each has the camera's pose.

    takes: yields a Take, or a line on why one cannot be read.
    """

    space: ActionSpace
    takes: Callable[[], Iterator[Take | str]]
    has_poses: bool = False


def ordered(keys: Iterable[str]) -> tuple[str, ...]:
    """Names of keys in the vocabulary's order; others follow, by name."""
    rank = {name: index for index, name in enumerate(VOCABULARY)}
    return tuple(sorted(set(keys), key=lambda key: (rank.get(key, len(rank)), key)))


def read_json(path: Path) -> Any:
    """The JSON in a file.  Raises DataError, naming the file, if there is none."""
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a JSON file ({error})") from error


def parse_json(text: str) -> Any:
    """A JSON value.  Raises ValueError for text that is none, nested too deep, or with a name of an object twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique_names)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, with or without a byte order mark: they end with a line feed, and with nothing else.

    U+2028, U+0085 and their like may stand inside a JSON text.  Raises DataError for a file that is no such text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a text file ({error})") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines


def file_digest(path: Path) -> bytes:
    """The SHA-256 of a file.  Raises DataError if it cannot be read."""
    try:
        state = path.stat()
        return _file_digest(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, changed_ns: int, size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found
