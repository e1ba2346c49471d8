"""Arrays that a training makes once of its recordings, and keeps on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.locks import waiting
from reverie.models.checkpoint import write_json_atomic

Arrays = dict[str, npt.NDArray[Any]]


def kept_arrays(stamp: Path, wanted: Mapping[str, Any], names: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
    """Arrays `names`, mapped from the files beside `stamp`; made first where they are not those of `wanted`.

    An array that is missing or cut short is made again.  Of several processes one makes them, and the others wait.

    stamp: file that holds what the arrays beside it were made of.  make: returns at least the arrays `names`.
    Raises DataError where the disk refuses.
    """
    found = _read(stamp, wanted, names)
    if found is not None:
        return found
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        with waiting(stamp.with_name(".lock")):
            found = _read(stamp, wanted, names)
            if found is None:
                stamp.unlink(missing_ok=True)
                _write(stamp, wanted, names, make())
                found = _read(stamp, wanted, names)
    except OSError as error:
        raise DataError(
            f"cannot write to {stamp.parent}: {error.strerror or error}; free some space, or give another folder, and "
            "run the same command"
        ) from error
    if found is None:
        raise DataError(f"{stamp.parent} cannot be read after writing; look at its disk, or give another folder")
    return found


def _write(stamp: Path, wanted: Mapping[str, Any], names: Sequence[str], arrays: Arrays) -> None:
    """Every file is there whole or not at all, and the stamp comes last."""
    for name in names:
        partial = stamp.with_name(f".{name}.partial.npy")
        np.save(partial, arrays[name])
        os.replace(partial, _file(stamp, name))
    write_json_atomic(stamp, wanted)


def _read(stamp: Path, wanted: Mapping[str, Any], names: Sequence[str]) -> Arrays | None:
    """None where the arrays were made of something else, or are damaged."""
    try:
        if json.loads(stamp.read_text()) != wanted:
            return None
        return {name: np.load(_file(stamp, name), mmap_mode="r") for name in names}
    except (OSError, ValueError, EOFError):
        return None


def _file(stamp: Path, name: str) -> Path:
    return stamp.with_name(f"{name}.npy")
