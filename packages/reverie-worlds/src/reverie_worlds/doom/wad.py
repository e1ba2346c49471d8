"""Doom's WAD files: what is in them, and a palette that is brighter than the game's own."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.errors import WorldError


@dataclass(frozen=True, slots=True)
class Lump:
    """A named piece of a WAD file: where it begins and how long it is, in bytes."""

    name: str
    start: int
    size: int


class Wad:
    """A WAD file's list of contents.  Raises WorldError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._data = path.read_bytes()
            magic, count, start = struct.unpack_from("<4sii", self._data)
            entries = list(struct.iter_unpack("<ii8s", self._data[start : start + 16 * count]))
        except (OSError, struct.error) as error:
            raise WorldError(f"{path}: not a readable WAD file ({error}); try reinstalling vizdoom") from error
        if magic not in (b"IWAD", b"PWAD"):
            raise WorldError(f"{path}: not a WAD file, it begins with {magic!r}; try reinstalling vizdoom")
        self.lumps = [Lump(name.rstrip(b"\0").decode("ascii", "replace"), at, size) for at, size, name in entries]

    def read(self, name: str, after: str | None = None) -> bytes:
        """The bytes of the first lump `name`, or of the first one after the lump `after` (a level's are after its
        name)."""
        names = [lump.name for lump in self.lumps]
        try:
            lump = self.lumps[names.index(name, names.index(after) if after is not None else 0)]
        except ValueError:
            raise WorldError(f"{self.path}: has no {after or ''} {name}; try reinstalling vizdoom") from None
        return self._data[lump.start : lump.start + lump.size]


def write_palette(path: Path, source: Wad, gamma: float) -> None:
    """A WAD at `path` with the palettes of `source` brightened by `gamma`: the game then draws bright at no cost."""
    bright = (255.0 * (np.arange(256) / 255.0) ** (1.0 / gamma) + 0.5).astype(np.uint8)
    palettes = bright[np.frombuffer(source.read("PLAYPAL"), np.uint8)].tobytes()
    entry = struct.pack("<ii8s", 12, len(palettes), b"PLAYPAL")
    path.write_bytes(struct.pack("<4sii", b"PWAD", 1, 12 + len(palettes)) + palettes + entry)
