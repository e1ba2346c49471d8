"""Exclusive locks on files, on every system.  The system drops a lock when its process ends, however it ends."""

from __future__ import annotations

import os
import sys

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
