"""Units of work that survive an interruption: each stores its result under `work/`, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.models.checkpoint import write_json_atomic

VERSION = 4
"""Version of reports and of stored unit results: figures of two versions do not mix."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(slots=True)
class Unit:
    """The result of a unit.  facts: JSON.  arrays: by name."""

    facts: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


class Store:
    """The results so far of one evaluation: of one model with one set of settings.

    Raises DataError for a folder that holds another evaluation, and where it cannot be written.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, Any]) -> None:
        self.folder = folder / "work"
        self.num_found = 0
        make_folder(self.folder)
        stamp = json.loads(json.dumps(stamp))
        path = self.folder / "stamp.json"
        found = _read(path)
        if found is not None and found != stamp:
            different = sorted(key for key in {*found, *stamp} if found.get(key) != stamp.get(key))
            what = "; ".join(f"{key} was {_short(found.get(key))}, is {_short(stamp.get(key))}" for key in different)
            raise DataError(
                f"{folder} holds another evaluation ({what}); say -o ANOTHER, or delete {self.folder} to start again"
            )
        if found is None:
            write_json_atomic(path, stamp)

    def get(self, name: str, make: Callable[[], Unit]) -> tuple[Unit, bool]:
        """The stored result of unit `name`, or what `make` gives, stored; and whether it was there."""
        path = self.folder / f"{name}.npz"
        unit = _load(path)
        if unit is not None:
            self.num_found += 1
            return unit, True
        unit = make()
        facts = np.frombuffer(json.dumps(unit.facts).encode(), np.uint8)
        partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.npz")
        try:
            np.savez_compressed(partial, allow_pickle=False, **{**unit.arrays, "facts": facts})
            os.replace(partial, path)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}; free some space, then run it again") from None
        finally:
            partial.unlink(missing_ok=True)
        return unit, False

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.npz").is_file()


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there.  Raises DataError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write the report into {str(folder)!r}: {error.strerror}; say -o FOLDER") from None
    return folder


def _load(path: Path) -> Unit | None:
    """A stored unit; None for none or a damaged one, which is then made again."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return Unit(json.loads(arrays.pop("facts").tobytes()), arrays)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
