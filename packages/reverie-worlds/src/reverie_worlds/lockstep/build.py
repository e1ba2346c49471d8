"""Compiles the shim at first use, into `$XDG_CACHE_HOME/reverie`, under a name that is the hash of what went in."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reverie.errors import WorldError
from reverie.paths import own_files

SOURCES = Path(__file__).parent / "shim"
COMMON_FLAGS = ("-O3", "-std=gnu11", "-Wall", "-Wextra", "-pthread")
LIBRARY_FLAGS = ("-shared", "-fPIC", "-fvisibility=hidden")
LIBRARIES = ("-ldl", "-lX11", "-lXtst")
INSTALL = "sudo apt install gcc libc6-dev libx11-dev libxtst-dev"


@dataclass(frozen=True, slots=True)
class Build:
    """The two compiled files: the library that is preloaded, and the program that watches over processes."""

    library: Path
    keeper: Path


def build() -> Build:
    """The compiled shim, made if need be.  Any number of processes may do so at once.

    Raises WorldError if there is no compiler, it lacks the X11 headers, or the cache cannot be written.
    """
    compiler = _compiler()
    folder = _cache() / f"lockstep-{_key(compiler, SOURCES)}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lockstep-") as scratch:
                _compile(compiler, Path(scratch) / "made")
                with contextlib.suppress(FileExistsError):  # somebody else was first, with the same files
                    _move(Path(scratch) / "made", folder)
        except OSError as error:
            raise WorldError(f"cannot write {folder.parent}: {error.strerror}; set XDG_CACHE_HOME") from error
    return Build(folder / "lockstep.so", folder / "keeper")


def _move(made: Path, folder: Path) -> None:
    """Rename, at once or not at all."""
    try:
        made.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise
        raise FileExistsError(folder) from error


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reverie"


def _compiler() -> str:
    name = os.environ.get("CC", "gcc")
    found = shutil.which(name)
    if found is None:
        raise WorldError(f"games need a C compiler and there is no {name}; {INSTALL}")
    return found


@functools.cache
def _key(compiler: str, sources: Path) -> str:
    """Whatever changes the result: the sources, the flags, the compiler.

    A process looks once: should the package be updated under its feet, its games still speak its own protocol.
    """
    digest = hashlib.sha256(repr((COMMON_FLAGS, LIBRARY_FLAGS, LIBRARIES, os.uname().machine)).encode())
    digest.update(subprocess.run([compiler, "--version"], capture_output=True).stdout)
    for source in own_files(sources.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: str, folder: Path) -> None:
    folder.mkdir()
    parts = [str(path) for path in own_files(SOURCES.glob("*.c")) if path.name != "keeper.c"]
    _run([compiler, *COMMON_FLAGS, *LIBRARY_FLAGS, "-o", str(folder / "lockstep.so"), *parts, *LIBRARIES])
    _run([compiler, *COMMON_FLAGS, "-o", str(folder / "keeper"), str(SOURCES / "keeper.c")])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        why = next((line for line in lines if "error" in line), lines[-1])
        raise WorldError(f"the lock-step shim does not compile: {why}; {INSTALL}")
