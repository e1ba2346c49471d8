"""Results that survive an interruption: each is stored under `work/`, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from zipfile import BadZipFile

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from reverie.errors import DataError
from reverie.models.checkpoint import write_json_atomic

VERSION = 4
"""Version of reports: figures of two versions do not mix."""


class Record:
    """Base of the dataclasses that are stored: numbers, text and arrays, and lists, mappings and records of them."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)


R = TypeVar("R", bound=Record)


class Store:
    """The results so far of one evaluation: of one model with one set of settings.

    Raises DataError for a folder that holds another evaluation, and where it cannot be written.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, Any]) -> None:
        self.folder = make_folder(folder / "work")
        wanted, path = json.loads(json.dumps(stamp)), self.folder / "stamp.json"
        found = _read_stamp(path)
        if found is None:
            write_json_atomic(path, wanted)
        elif found != wanted:
            different = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            what = "; ".join(f"{key} was {_short(found.get(key))}, is {_short(wanted.get(key))}" for key in different)
            raise DataError(
                f"{folder} holds another evaluation ({what}); say -o ANOTHER, or delete {self.folder} to start again"
            )

    def get(self, name: str, kind: type[R], make: Callable[[], R]) -> R:
        """Returns the stored result `name`, or what `make` gives, stored.  A damaged one is made again."""
        path = self.folder / f"{name}.npz"
        try:
            return load_record(path, kind)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            made = make()
            save_record(path, made)
            return made


def save_record(path: Path, record: Record) -> None:
    """Writes a record as one npz file: its arrays, and JSON of the rest.  Raises DataError where that fails."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}

    def move_out(array: np.ndarray[Any, Any]) -> dict[str, str]:
        arrays[name := str(len(arrays))] = array
        return {"array": name}

    text = json.dumps(asdict(record), default=move_out)  # type: ignore[call-overload]  # a dataclass, as Record says
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.npz")
    try:
        np.savez_compressed(partial, allow_pickle=False, record=np.frombuffer(text.encode(), np.uint8), **arrays)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; free some space, then run it again") from None
    finally:
        partial.unlink(missing_ok=True)


def load_record(path: Path, kind: type[R]) -> R:
    """Reads what `save_record` wrote."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        text = file["record"].tobytes()
        plain = json.loads(text, object_hook=lambda found: file[found["array"]] if [*found] == ["array"] else found)
    return TypeAdapter(kind).validate_python(plain)


def make_folder(folder: Path) -> Path:
    """Returns the folder, made if it is not there.  Raises DataError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write the report into {str(folder)!r}: {error.strerror}; say -o FOLDER") from None
    return folder


def _read_stamp(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
