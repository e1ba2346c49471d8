"""A small process that tidies up after this one, however it ends (kill -9 too).

A game that runs as a process of its own is named by the folder it was given, which is on its command line.  When its
owner has ended, the guardian kills the processes with that folder on their command line, and removes the folder and the
shared memory they had.  Where there is no /proc (outside Linux) only the folder is removed.

The kernel's own PR_SET_PDEATHSIG is of no use here: it must be asked for between fork and exec, which is in the hands
of the game's library, and it is sent when the *thread* ends that started the game.

This file runs by itself: it imports nothing of the package.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

POLL_S = 0.5
ANSWER_S = 20.0
"""How long the guardian is waited for, at most."""
SHARED_MEMORY = Path("/dev/shm")

_INSTANCE = re.compile(rb"\+viz_instance_id\0([A-Za-z0-9]{4,64})\0")
_lock = threading.Lock()
_guardian: tuple[int, subprocess.Popen[bytes]] | None = None  # and the process that it belongs to
_unanswered = 0
"""Lines that the guardian has not said yet that it has noted."""


def guard(folder: Path) -> None:
    """See to it that the processes of `folder`, and the folder, do not outlive this process.

    Call before a process is started, and again afterwards: then its shared memory goes even if both are killed at once.
    """
    _tell(f"+{folder}\n")


def release(folder: Path) -> None:
    """The processes of `folder` have ended, and it is removed already."""
    _tell(f"-{folder}\n")


def _tell(line: str) -> None:
    global _guardian, _unanswered
    if sys.platform == "win32":
        return
    with _lock:
        if _guardian is None or _guardian[0] != os.getpid() or _guardian[1].poll() is not None:
            _guardian, _unanswered = (os.getpid(), _start()), 0
        stdin, stdout = _guardian[1].stdin, _guardian[1].stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(OSError):
            stdin.write(line.encode())
            stdin.flush()
            _unanswered += 1
            end = time.monotonic() + ANSWER_S
            # Until it has noted this line, and not only one before it: from then on we may be killed.
            while _unanswered > 0 and select.select([stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                answers = os.read(stdout.fileno(), 64)
                if not answers:
                    break
                _unanswered -= len(answers)


def _start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # signals to the owner's group, such as a Ctrl-C, are not for the guardian
    )
    atexit.register(_stop, os.getpid(), process)
    return process


def _stop(owner: int, process: subprocess.Popen[bytes]) -> None:
    if os.getpid() != owner:
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(ANSWER_S)
        process.stdout.close()


# ------------------------------------------------------------------------------------------------ in the process


def main(owner: int) -> None:
    """Read folders from standard input until it closes or `owner` has ended; then tidy up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folders: dict[str, set[Path]] = {}
    rest = b""
    while True:
        is_owned = os.getppid() == owner  # asked first: what an owner wrote that has ended meanwhile is still read
        if not select.select([0], [], [], POLL_S if is_owned else 0)[0]:
            if is_owned:
                continue
            break
        piece = os.read(0, 65_536)
        if not piece:
            break
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            folder = os.fsdecode(line[1:])
            if line.startswith(b"-"):
                folders.pop(folder, None)
            elif folder.startswith("/"):
                folders.setdefault(folder, set()).update(_memory(_processes(folder)))
            with contextlib.suppress(OSError):
                os.write(1, b".")
    for folder, memory in folders.items():
        processes = _processes(folder)
        for pid in processes:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for file in memory | _memory(processes):
            file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: str) -> dict[int, bytes]:
    """The processes with `folder` on their command line, and that line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes() + b"\0"
            if os.fsencode(folder) + b"/" in line and int(entry.parent.name) != os.getpid():
                found[int(entry.parent.name)] = line
    return found


def _memory(processes: dict[int, bytes]) -> set[Path]:
    """The files of shared memory that belong to VizDoom games, by the instance on their command lines."""
    instances = [match[1].decode() for line in processes.values() if (match := _INSTANCE.search(line))]
    return {file for name in instances for file in SHARED_MEMORY.glob(f"ViZDoom*{name}")}


if __name__ == "__main__":
    main(int(sys.argv[1]))
