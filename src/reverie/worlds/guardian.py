"""A small process that tidies up after this one, however it ends (kill -9 too).

A game that runs as a process of its own is named by the folder it was given, which is on its command line.  When its
owner has ended, the guardian kills the processes with that folder on their command line, and removes the folder and the
shared memory they had; and shared memory of VizDoom that was made in its time and that no process uses, for an owner
that is killed while a game starts has made it before there is a command line to tell.  Where there is no /proc (outside
Linux) only the folder is removed.

The kernel's own PR_SET_PDEATHSIG is of no use here: it must be asked for between fork and exec, which is in the hands
of the game's library, and it is sent when the *thread* ends that started the game.

This file runs by itself: it imports nothing of the package.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

POLL_S = 0.5
ANSWER_S = 20.0
"""Longest wait for the guardian's answer, in seconds."""
SETTLE_S = 1.0
"""Seconds between the first scan and the second: a process that was being started then has its name, or its user, by
now."""
TICK_S = 0.01
"""Files are dated by the clock's last tick, which lies up to so many seconds before `time.time()`."""
SHARED_MEMORY = Path("/dev/shm")

_MEMORY_NAME = re.compile(r"ViZDoom(?:SM|MQCtr|MQDoom)([A-Za-z0-9]{4,64})")
_INSTANCE = re.compile(rb"\+viz_instance_id\0([A-Za-z0-9]{4,64})\0")
_lock = threading.Lock()
_guardian: tuple[int, subprocess.Popen[bytes]] | None = None  # and the process that it belongs to
_unanswered = 0
"""Lines that the guardian has not confirmed yet."""


def make_folder(prefix: str) -> Path:
    """Make a temporary folder for a game, guarded from before it is there."""
    folder = Path(tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(8)}"
    guard(folder)
    folder.mkdir(mode=0o700)
    return folder


def guard(folder: Path) -> None:
    """Register `folder` and its processes to be removed when this process ends.

    Call before a process is started, and again afterwards: then its shared memory goes even if both are killed at once.
    """
    if sys.platform != "win32":
        _tell(f"+{folder}")


def release(folder: Path) -> None:
    """The processes of `folder` have ended, and it is removed already."""
    if _guardian is not None and _guardian[0] == os.getpid() and _guardian[1].poll() is None:
        _tell(f"-{folder}")


def _tell(line: str) -> None:
    global _guardian, _unanswered
    with _lock:
        if _guardian is None or _guardian[0] != os.getpid() or _guardian[1].poll() is not None:
            _guardian, _unanswered = (os.getpid(), _start()), 0
        stdin, stdout = _guardian[1].stdin, _guardian[1].stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(OSError):
            stdin.write(os.fsencode(line) + b"\0")
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
    began_s = time.time() - TICK_S
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
        *lines, rest = (rest + piece).split(b"\0")
        for line in lines:
            folder = os.fsdecode(line[1:])
            if line.startswith(b"-"):
                folders.pop(folder, None)
            elif folder.startswith("/"):
                folders.setdefault(folder, set()).update(_memory(_processes(folder)))
            with contextlib.suppress(OSError):
                os.write(1, b".")
    unused = _unused_memory(began_s)
    _tidy(folders)
    if unused or (folders and os.getppid() != owner):  # an owner that was killed may have been starting a game
        time.sleep(SETTLE_S)
        for file in unused & _unused_memory(began_s):
            file.unlink(missing_ok=True)
        _tidy(folders)


def _tidy(folders: dict[str, set[Path]]) -> None:
    """Kill the processes of `folders`; remove the folders, and the shared memory that they and these processes have."""
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
    inside = os.fsencode(folder) + b"/"
    return {pid: line for pid, line in _command_lines().items() if inside in line and pid != os.getpid()}


def _command_lines() -> dict[int, bytes]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found[int(entry.parent.name)] = entry.read_bytes() + b"\0"
    return found


def _memory(processes: dict[int, bytes]) -> set[Path]:
    """The files of shared memory that belong to VizDoom games, by the instance on their command lines."""
    instances = [match[1].decode() for line in processes.values() if (match := _INSTANCE.search(line))]
    return {file for name in instances for file in SHARED_MEMORY.glob(f"ViZDoom*{name}")}


def _unused_memory(since_s: float) -> set[Path]:
    """Shared memory of VizDoom games, made by this user since `since_s`, that no process has open or is named by."""
    found = {}
    for file in SHARED_MEMORY.glob("ViZDoom*"):
        with contextlib.suppress(OSError):
            state = file.stat()
            if (name := _MEMORY_NAME.fullmatch(file.name)) and state.st_uid == os.getuid() and state.st_ctime > since_s:
                found[file] = name[1].encode()
    if not found:
        return set()
    used = b"".join(_command_lines().values())
    for entry in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            used += b"".join(line for line in entry.read_bytes().splitlines() if b"/ViZDoom" in line)
    return {file for file, instance in found.items() if instance not in used}


if __name__ == "__main__":
    main(int(sys.argv[1]))
