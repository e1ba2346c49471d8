"""Processes that end with us, whatever happens to us: games and X displays, each under the shim's `keeper`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from reverie.errors import WorldError

STOP_SECONDS = 10.0
DISPLAY_SECONDS = 60.0
LOG_LINES = 6


class Kept:
    """A running command and all that it starts.  It ends at `stop`, and when this process dies, by kill -9 even.

    gently: ask it to end (SIGTERM) and give it two seconds, else kill it at once.
    doomed: a folder to remove if this process dies before it could; the owner removes it otherwise.
    """

    def __init__(
        self,
        keeper: Path,
        command: Sequence[str],
        *,
        log: Path,
        gently: bool = False,
        doomed: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        ours, self._pipe = os.pipe()
        self._owner = os.getpid()
        sign = signal.SIGTERM if gently else signal.SIGKILL
        watched = [str(keeper), str(ours), str(int(sign)), "2000", str(doomed or ""), *command]
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    watched,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    pass_fds=(ours, *pass_fds),
                )
        except OSError as error:
            os.close(self._pipe)
            raise WorldError(f"{command[0]} cannot be started: {error}") from error
        finally:
            os.close(ours)

    def stop(self) -> None:
        """End it and wait until it is gone.  Safe to call twice, and in a fork of the process that started it."""
        if self._pipe < 0:
            return
        os.close(self._pipe)
        self._pipe = -1
        if os.getpid() != self._owner:
            return
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the kernel then ends the command itself
            self.process.wait()

    def exit_status(self, seconds: float) -> str:
        """Describes how the process ended, in words; waits up to `seconds` for that."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(seconds)
            if code < 0 or code > 128:  # of the keeper, or passed on by it
                return f"was ended by {_signal_name(-code if code < 0 else code - 128)}"
            return f"ended with status {code}"
        return "closed its connection"


def start_display(keeper: Path, screen: tuple[int, int], log: Path) -> tuple[Kept, str]:
    """An X display of its own without a monitor: the process, and its name such as `:3`.

    The server itself picks a free number, so that displays which others have taken do no harm.
    Raises WorldError if it does not start.
    """
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{screen[0]}x{screen[1]}x24"]
    command += ["-nolisten", "tcp", "-noreset", "-r", "-s", "0"]
    try:
        server = Kept(keeper, command, log=log, gently=True, pass_fds=(writer,))
    finally:
        os.close(writer)
    try:
        number = _read_line(reader, time.monotonic() + DISPLAY_SECONDS)
    except BaseException:
        server.stop()
        raise
    finally:
        os.close(reader)
    if not number:
        server.stop()
        raise WorldError(f"Xvfb gave no display: {last_lines(log, 2)}; sudo apt install xvfb")
    return server, f":{number}"


def last_lines(log: Path, count: int = LOG_LINES, chatter: str = "") -> str:
    """The end of a log, in one line, without lines that contain `chatter`."""
    with contextlib.suppress(OSError):
        lines = log.read_text("utf-8", "replace").splitlines()
        said = [line.strip() for line in lines if line.strip() and not (chatter and chatter in line)]
        if said:
            return " | ".join(said[-count:])
    return "it wrote nothing"


def _read_line(fd: int, until: float) -> str:
    """One line, or what there was of it at the end of the file or the deadline: then it is empty."""
    text = b""
    while not text.endswith(b"\n"):
        if not select.select([fd], [], [], max(until - time.monotonic(), 0))[0]:
            return ""
        piece = os.read(fd, 64)
        if not piece:
            return ""
        text += piece
    return text.decode().strip()


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
