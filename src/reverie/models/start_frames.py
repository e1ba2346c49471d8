"""Start frames of a model folder: images to begin a session in, their titles, and the controls of their game.

    starts/*.png                the images
    starts.json                 {"starts": [{"file": "starts/hall.png", "title": "hall", "keys": [...], "mouse": true}]}

An image in `starts/` that the list does not name counts too: its title is its file name, its controls are unknown.
Torch-free.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.errors import CheckpointError

STARTS = "starts"
"""The folder of start frames in a model folder."""
INDEX = "starts.json"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_FILE = re.compile(rf"{STARTS}/[^/\\\x00-\x1f]{{1,200}}")


@dataclass(frozen=True, slots=True)
class StartFrame:
    """An image file to begin in.

    keys, mouse: the controls of the game that it is from; None where they are not known, as for anybody's photo.
    """

    file: Path
    title: str
    keys: tuple[str, ...] | None = None
    mouse: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NewStartFrame:
    """A start frame that is not written yet.  image: `(H, W, 3)` uint8."""

    image: npt.NDArray[np.uint8]
    title: str
    keys: tuple[str, ...] | None = None
    mouse: bool | None = None


def read_start_frames(folder: Path) -> list[StartFrame]:
    """The start frames of a model folder: those of its list in order, then other images by name.

    A listed image that is not there is left out.  Raises CheckpointError for a list that cannot be read.
    """
    listed = [frame for frame in _read_index(folder) if frame.file.is_file()]
    known = {frame.file for frame in listed}
    files = sorted(file for file in (folder / STARTS).glob("*") if file.suffix.lower() in SUFFIXES)
    others = [file for file in files if file not in known and not file.name.startswith(".")]
    return listed + [StartFrame(file, file.stem) for file in others]


def write_start_frames(folder: Path, frames: Sequence[NewStartFrame]) -> None:
    """Give a model folder these start frames in place of those that it has."""
    shutil.rmtree(folder / STARTS, ignore_errors=True)
    (folder / STARTS).mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for number, frame in enumerate(frames, 1):
        slug = re.sub(r"[^a-z0-9]+", "-", frame.title.lower()).strip("-")[:60]
        name = f"{STARTS}/{number:02d}-{slug or 'start'}.png"
        Image.fromarray(frame.image).save(folder / name)
        entries.append(_entry(name, frame))
    _write_index(folder, entries)


def copy_start_frames(source: Path, target: Path) -> int:
    """Give `target` the start frames of `source`, in place of its own; returns their number (0: nothing is done)."""
    frames = read_start_frames(source)
    if not frames:
        return 0
    shutil.rmtree(target / STARTS, ignore_errors=True)
    (target / STARTS).mkdir(parents=True)
    for frame in frames:
        shutil.copyfile(frame.file, target / STARTS / frame.file.name)
    _write_index(target, [_entry(f"{STARTS}/{frame.file.name}", frame) for frame in frames])
    return len(frames)


def listed_files(index: Path) -> list[str]:
    """The files, relative to the model folder, that a list names.  Raises CheckpointError."""
    return [f"{STARTS}/{frame.file.name}" for frame in _read_index(index.parent)]


def _entry(name: str, frame: StartFrame | NewStartFrame) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": name, "title": frame.title}
    if frame.keys is not None:
        entry["keys"] = list(frame.keys)
    if frame.mouse is not None:
        entry["mouse"] = frame.mouse
    return entry


def _write_index(folder: Path, entries: list[dict[str, Any]]) -> None:
    temporary = folder / f"{INDEX}.tmp"
    temporary.write_text(json.dumps({"starts": entries}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / INDEX)


def _read_index(folder: Path) -> list[StartFrame]:
    path = folder / INDEX
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["starts"]
        return [_read_entry(folder, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no list of start frames ({error!r}); expected "
            '{"starts": [{"file": "starts/NAME.png", "title": "..."}]}; mend it, or delete it'
        ) from error


def _read_entry(folder: Path, entry: Any) -> StartFrame:
    file, title, keys, mouse = entry["file"], entry["title"], entry.get("keys"), entry.get("mouse")
    if not (isinstance(file, str) and _FILE.fullmatch(file) and Path(file).suffix.lower() in SUFFIXES):
        raise ValueError(f"{file!r} is no image in {STARTS}/")
    if not isinstance(title, str) or not title:
        raise ValueError(f"the title of {file} is {title!r}")
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise ValueError(f"the keys of {file} are {keys!r}")
    if mouse is not None and not isinstance(mouse, bool):
        raise ValueError(f"the mouse of {file} is {mouse!r}")
    return StartFrame(folder / file, title, None if keys is None else tuple(keys), mouse)
