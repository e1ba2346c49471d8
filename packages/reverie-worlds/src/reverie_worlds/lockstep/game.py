"""`LockstepGame`: a game process under the shim, stepped one frame at a time."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import socket
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.worlds import guardian
from reverie_worlds.lockstep import protocol
from reverie_worlds.lockstep.build import build
from reverie_worlds.lockstep.processes import Kept, last_lines, start_display

STEP_NS = 40_000_000
"""One frame at 25 frames a second."""

EPOCH_S = 1_700_000_000
"""Time of day that a game reads when it starts, unless set otherwise: always the same."""

GAME_PATH = "/usr/games:/usr/local/games"
"""Debian puts games where root's PATH does not look."""

_ENVIRONMENT = {
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "LP_NUM_THREADS": "0",  # llvmpipe draws in the game's own thread: one core a game, and no waiting between threads
    "SDL_VIDEODRIVER": "x11",
    "SDL_AUDIODRIVER": "dummy",
    "ALSOFT_DRIVERS": "null",
}


class LockstepGame:
    """Runs `command` on a display of its own and holds it at each frame.  The first frame is there when this returns.

    command: program and arguments; the program is looked for in PATH and among Debian's games.
    size: (width, height) of the frames.  render_scale: the game draws so many times larger (its window must have
    `render_size`), and each pixel is the mean of a square.
    env: on top of this process's environment.  HOME is `home` unless set here.
    home: a folder, with configuration files perhaps, that belongs to the game from now on and is removed when it ends;
    None makes one.
    matrices: capture the camera of fixed-function OpenGL games.
    present: show frames on the display too; only needed to look on.
    epoch_s: the time of day at the start, seconds since 1970 (games seed their random numbers with it); 0: the real
    one.
    log_chatter: lines of the log with this text are left out of error messages; empty: none.
    start_timeout_s, step_timeout_s: real seconds after which a game that shows no frame counts as hung.

    `window` is the size of the game's window, `time_ns` the virtual clock, `modelview` and `projection` are `(4, 4)`
    float32 for column vectors (None where the frame had no camera), all of the frame that was returned last.

    Raises WorldError for a missing compiler, X server or game, and for one that ends, crashes or hangs: everything is
    closed then, and the message ends with the last lines of the game's log.
    """

    modelview: protocol.Matrix | None
    projection: protocol.Matrix | None

    def __init__(
        self,
        command: Sequence[str],
        size: tuple[int, int] = (224, 128),
        *,
        render_scale: int = 1,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        home: Path | None = None,
        screen: tuple[int, int] | None = None,
        matrices: bool = True,
        present: bool = False,
        epoch_s: int = EPOCH_S,
        log_chatter: str = "",
        start_timeout_s: float = 120.0,
        step_timeout_s: float = 60.0,
    ) -> None:
        if min(size) < 1 or render_scale < 1:
            raise WorldError(f"frames need a positive size and scale, got {size} and {render_scale}")
        self.name = Path(command[0]).name
        self.size = size
        self.render_size = (size[0] * render_scale, size[1] * render_scale)
        self.home = guardian.make_folder(f"reverie-{self.name}-") if home is None else home
        guardian.guard(self.home)
        self.log = self.home / "game.log"
        self._log_chatter = log_chatter
        self._held: set[tuple[int, int]] = set()
        self._is_blind = False
        self._step_timeout_s = step_timeout_s
        self._stack = contextlib.ExitStack()
        self._close = weakref.finalize(self, self._stack.close)
        self._stack.callback(guardian.release, self.home)
        self._stack.callback(shutil.rmtree, self.home, ignore_errors=True)
        try:
            flags = protocol.FLAG_MATRICES * matrices | protocol.FLAG_PRESENT * present
            self._start(_find(command), env or {}, cwd, screen or self.render_size, flags, epoch_s)
            self._socket.settimeout(start_timeout_s)
            self.pid = protocol.check_hello(self._receive())
            self.frame = self._next_frame()
        except BaseException:
            self.close()
            raise

    def step(
        self,
        keys: Iterable[str] = (),
        mouse_px: tuple[int, int] = (0, 0),
        buttons: Iterable[int] = (),
        *,
        move_to: tuple[int, int] | None = None,
        dt_ns: int = STEP_NS,
        blind: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Hold `keys` and `buttons` for one frame, which is returned: `(height, width, 3)` uint8 RGB.

        keys: X11 key names (`w`, `Up`, `space`, `Shift_L`).  buttons: 1 left, 2 middle, 3 right.  mouse_px: how far
        the pointer moves, right and down.  move_to: where it is put before that.  dt_ns: how far the clock goes on.
        blind: the frame is not needed: it is not drawn if that can be left out; the frame before is returned.
        """
        if not self._close.alive:
            raise WorldError(f"{self.name} is closed; start it again")
        held = {(protocol.KEY, protocol.keysym(key)) for key in keys} | {(protocol.BUTTON, n) for n in buttons}
        events: list[protocol.Event] = [] if move_to is None else [(protocol.POINTER, *move_to)]
        events += [(*what, 0) for what in sorted(self._held - held)]
        events += [(*what, 1) for what in sorted(held - self._held)]
        message = protocol.pack_action(events, mouse_px, dt_ns, protocol.ACTION_BLIND * blind)
        self._held, self._is_blind = held, blind
        try:
            self._socket.settimeout(self._step_timeout_s)
            self._send(message)
            self.frame = self._next_frame()
        except BaseException:  # an interrupted exchange cannot be taken up again
            self.close()
            raise
        return self.frame

    def read_depth(self) -> npt.NDArray[np.float32]:
        """Reads the depth buffer of the frame that was returned last; the game stays where it is.

        Returns `(height, width)` float32 of `render_size`, top row first: 0 at the near plane, 1 where nothing is.
        Raises WorldError where the game has ended or the frame was a blind one.
        """
        if not self._close.alive:
            raise WorldError(f"{self.name} is closed; start it again")
        if self._is_blind:
            raise WorldError(f"{self.name} did not draw this frame, so it has no depth; step once without blind")
        try:
            self._socket.settimeout(self._step_timeout_s)
            self._send(protocol.pack_action((), (0, 0), 0, protocol.ACTION_DEPTH))
            protocol.unpack_frame(self._receive())
        except BaseException:
            self.close()
            raise
        return self._depth[::-1].copy()

    def log_text(self) -> str:
        """All that the game wrote so far."""
        with contextlib.suppress(OSError):
            return self.log.read_text("utf-8", "replace")
        return ""

    def close(self) -> None:
        """End the game and its display and remove its folder; safe to call twice.  Also done when this is collected."""
        self._close()
        self._pixels = np.empty((0, 0, 3), np.uint8)  # gives the shared memory back
        self._depth = np.empty((0, 0), np.float32)

    def __enter__(self) -> LockstepGame:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(
        self,
        command: list[str],
        env: Mapping[str, str],
        cwd: Path | None,
        screen: tuple[int, int],
        flags: int,
        epoch_s: int,
    ) -> None:
        built = build()
        if shutil.which("Xvfb") is None:
            raise WorldError("games need an X server and there is no Xvfb; sudo apt install xvfb")
        server, display = start_display(built.keeper, screen, self.home / "display.log")
        self._stack.callback(server.stop)
        memory_fd = self._make_memory(flags)
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._stack.callback(self._socket.close)
            with theirs:
                whole = {**os.environ, "HOME": str(self.home), **_ENVIRONMENT, "DISPLAY": display, **env}
                whole |= {"LD_PRELOAD": str(built.library), "LOCKSTEP_FDS": f"{theirs.fileno()},{memory_fd}"}
                whole |= {"LOCKSTEP_EPOCH_S": str(epoch_s)}
                self._game = Kept(
                    built.keeper,
                    command,
                    log=self.log,
                    doomed=self.home,
                    env=whole,
                    cwd=cwd,
                    pass_fds=(theirs.fileno(), memory_fd),
                )
                self._stack.callback(self._game.stop)
        finally:
            os.close(memory_fd)

    def _make_memory(self, flags: int) -> int:
        """The memory in which frames arrive: its descriptor.  It has no name, so nothing is left of it."""
        width, height = self.size
        fd = os.memfd_create("lockstep")
        depth_offset, (across, down) = protocol.depth_offset(self.size), self.render_size
        os.truncate(fd, depth_offset + 4 * across * down)
        os.pwrite(fd, protocol.pack_shared(self.render_size, self.size, flags), 0)
        memory = mmap.mmap(fd, 0)
        pixels = np.frombuffer(memory, np.uint8, 3 * height * width, protocol.PIXELS_OFFSET)
        self._pixels = pixels.reshape(height, width, 3)
        self._depth = np.frombuffer(memory, np.float32, offset=depth_offset).reshape(down, across)
        return fd

    def _next_frame(self) -> npt.NDArray[np.uint8]:
        message = protocol.unpack_frame(self._receive())
        self.number, self.window, self.time_ns, self.modelview, self.projection = message
        return self._pixels.copy()

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError as error:
            raise self._failure() from error

    def _receive(self) -> bytes:
        try:
            message = self._socket.recv(4096)
        except TimeoutError as error:
            seconds = self._socket.gettimeout()
            raise WorldError(f"{self.name} hangs: no frame for {seconds:g} s; {self._last_words()}") from error
        except OSError as error:
            raise self._failure() from error
        if not message:
            raise self._failure()
        return message

    def _failure(self) -> WorldError:
        return WorldError(f"{self.name} {self._game.exit_status(2.0)}; {self._last_words()}")

    def _last_words(self) -> str:
        return last_lines(self.log, chatter=self._log_chatter)


def _find(command: Sequence[str]) -> list[str]:
    found = shutil.which(command[0]) or shutil.which(command[0], path=GAME_PATH)
    if found is None:
        raise WorldError(f"the game {command[0]} is not installed; sudo apt install {Path(command[0]).name}")
    return [found, *command[1:]]
