"""Processes of games under test: those that are left, and what they hold open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reverie_worlds.lockstep import LockstepGame

SIZE = (96, 64)

Start = Callable[..., LockstepGame]


def descendants(root: int) -> dict[int, str]:
    """The living processes below `root` that are not Python: their ids and names."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
            if rest[0] != "Z":
                parents[int(folder.name)] = (int(rest[1]), name)
    found: dict[int, str] = {}
    grown = True
    while grown:
        grown = False
        for pid, (parent, name) in parents.items():
            if pid not in found and (parent == root or parent in found):
                found[pid] = name
                grown = True
    return {pid: name for pid, name in found.items() if not name.startswith(("python", "pytest"))}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: Iterator[int] | list[int], seconds: float = 15.0) -> list[int]:
    """Those that still live after `seconds`."""
    left = list(pids)
    until = time.monotonic() + seconds
    while left and time.monotonic() < until:
        left = [pid for pid in left if is_alive(pid)]
        time.sleep(0.02)
    return left


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
