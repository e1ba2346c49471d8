"""Paths for libraries that read URLs, and the files of a folder without what macOS leaves beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def local_path(path: str | os.PathLike[str]) -> str:
    """Returns `path` as absolute text, for FFmpeg and Arrow.

    Both take a relative `take:1/walk.mp4` for a URL of the protocol `take`; an absolute path is never a URL.
    """
    return os.path.abspath(path)


def is_companion(path: Path) -> bool:
    """True for `._NAME`, in which macOS keeps a file's attributes on drives that have none (exFAT, network)."""
    return path.name.startswith("._")


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """True for a path below `folder` by its names; links are not followed, for caches are made of them."""
    inner, outer = os.path.abspath(path), os.path.abspath(folder)
    return inner != outer and inner.startswith(os.path.join(outer, ""))


def own_files(paths: Iterable[Path]) -> list[Path]:
    """Returns `paths` sorted, without the companions of macOS."""
    return sorted(path for path in paths if not is_companion(path))
