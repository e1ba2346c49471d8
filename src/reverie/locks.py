"""Exclusive locks on files, on every system.  The system drops a lock when its process ends, however it ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    LOCKED_BYTE = 2**30
    """Windows locks bytes, and nobody else can read them: this one lies behind what lock files hold."""

    def lock(handle: int) -> None:
        """Locks an open file, given by its number.  Raises OSError at once if another process holds the lock."""
        before = os.lseek(handle, 0, os.SEEK_CUR)
        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, before, os.SEEK_SET)

else:
    import fcntl

    def lock(handle: int) -> None:
        """Locks an open file, given by its number.  Raises OSError at once if another process holds the lock."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


WAIT_S = 0.2
"""Between two looks at a lock that another process holds."""


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Holds the lock on the file `path`, which is made where it is missing; waits while another process has it."""
    with path.open("a") as file:
        while True:
            try:
                lock(file.fileno())
                break
            except (BlockingIOError, PermissionError):  # the second on Windows
                time.sleep(WAIT_S)
        yield
