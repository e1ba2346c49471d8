"""The X11 side: find a window, look at it, and listen to raw keys, buttons and mouse motion (XInput 2).

Raw events come whichever window has the focus, also while a game holds the pointer, and without acceleration.
Their server times (milliseconds of a clock that runs like ours) are moved onto `time.monotonic_ns` by the smallest
delay measured so far: an event cannot arrive before it happened.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.data.screen.timeline import InputEvent, KeyEvent, MotionEvent
from reverie.errors import WorldError

INSTALL = 'pip install "reverie-world[screen]"'
SCROLL_BUTTONS = (4, 5, 6, 7)
_KEY_PRESS, _KEY_RELEASE, _BUTTON_PRESS, _BUTTON_RELEASE, _MOTION = 13, 14, 15, 16, 17
_WRAP_MS = 1 << 32


@dataclass(frozen=True, slots=True)
class Place:
    """Position and size of a window on the screen, in pixels."""

    left: int
    top: int
    width: int
    height: int


def open_display(name: str | None = None) -> Any:
    """A connection to the X server.  Raises WorldError without python-xlib, a display or XInput 2."""
    try:
        from Xlib import display, error
    except ImportError:
        raise WorldError(f"recording the screen needs python-xlib and mss; {INSTALL}") from None
    try:
        connection = display.Display(name)
    except (error.DisplayError, OSError) as problem:
        raise WorldError(
            f"no X11 display ({problem}); log in to an X11 session: Wayland lets nobody record another's input"
        ) from None
    if not connection.has_extension("XInputExtension"):
        raise WorldError("this X server has no XInput 2, which raw input needs; use an X.Org server")
    return connection


def find_window(connection: Any, title: str) -> Any:
    """The first mapped window whose title contains `title`, whatever the case.

    Raises WorldError, with the titles that there are.
    """
    titles = []
    for window in _windows(connection.screen().root):
        name = _title(connection, window)
        if name:
            titles.append(name)
            if title.lower() in name.lower():
                return window
    listed = ", ".join(repr(name) for name in dict.fromkeys(titles)) or "none"
    raise WorldError(f"no window has {title!r} in its title; the windows are: {listed}")


def place_of(window: Any) -> Place | None:
    """Finds the position of `window`; None once it is closed or hidden."""
    from Xlib import X, error

    try:
        geometry = window.get_geometry()
        if window.get_attributes().map_state != X.IsViewable:
            return None
        corner = window.translate_coords(geometry.root, 0, 0)
    except error.XError:
        return None
    return Place(-corner.x, -corner.y, geometry.width, geometry.height)


def is_focused(connection: Any, window: Any) -> bool:
    """Tests whether the player's keys go to `window`, as the window manager reports; True if nothing reports it."""
    from Xlib import error

    root = connection.screen().root
    try:
        active = root.get_full_property(connection.get_atom("_NET_ACTIVE_WINDOW"), 0)
        if active is None or not active.value or active.value[0] == 0:
            return True
        wanted, current = active.value[0], window
        while current != root and current.id:
            if current.id == wanted:
                return True
            current = current.query_tree().parent
    except error.XError:
        return False
    return False


class Camera:
    """Captures frames of a part of the screen, cut to the requested shape and averaged down."""

    def __init__(self, resolution: tuple[int, int], display_name: str | None = None) -> None:
        try:
            import mss
        except ImportError:
            raise WorldError(f"recording the screen needs mss; {INSTALL}") from None
        self._height, self._width = resolution
        self._mss = mss.MSS(display=display_name) if display_name else mss.MSS()

    def look(self, place: Place) -> tuple[npt.NDArray[np.uint8], int]:
        """`(H, W, 3)` uint8 of the middle of `place`, and when it was taken (`time.monotonic_ns`)."""
        from mss.exception import ScreenShotError

        width = min(place.width, place.height * self._width // self._height)
        height = min(place.height, place.width * self._height // self._width)
        left, top = place.left + (place.width - width) // 2, place.top + (place.height - height) // 2
        began = time.monotonic_ns()
        try:
            shot = self._mss.grab({"left": left, "top": top, "width": width, "height": height})
        except ScreenShotError as error:
            raise WorldError(f"the window cannot be seen ({error}); bring it back onto the screen") from error
        taken = (began + time.monotonic_ns()) // 2
        picture = Image.frombuffer("RGB", (shot.width, shot.height), bytes(shot.bgra), "raw", "BGRX", 0, 1)
        size = (self._width, self._height)
        return np.asarray(picture.resize(size, Image.Resampling.BOX, reducing_gap=3.0)), taken

    def close(self) -> None:
        self._mss.close()


class InputListener:
    """Listens on a thread of its own from entry to exit; `take` gives what came in since the last call."""

    def __init__(self, display_name: str | None = None) -> None:
        self._connection = open_display(display_name)
        self._events: list[InputEvent] = []
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._delay_ns: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="reverie-input", daemon=True)

    def __enter__(self) -> InputListener:
        from Xlib.ext import xinput

        mask = (
            xinput.RawKeyPressMask
            | xinput.RawKeyReleaseMask
            | xinput.RawButtonPressMask
            | xinput.RawButtonReleaseMask
            | xinput.RawMotionMask
        )
        self._connection.xinput_query_version()
        self._connection.screen().root.xinput_select_events([(xinput.AllMasterDevices, mask)])
        self._connection.sync()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(2)
        with contextlib.suppress(Exception):  # the display may be gone already
            self._connection.close()

    def take(self) -> list[InputEvent]:
        """Events since the last call, in the order they came."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def _listen(self) -> None:
        import select

        while not self._stopping.is_set():
            select.select([self._connection.fileno()], [], [], 0.1)
            try:
                pending = self._connection.pending_events()
                for _ in range(pending):
                    self._put(self._connection.next_event())
            except Exception:  # the server has gone: the recorder finds its window gone, and reports it
                return

    def _put(self, event: Any) -> None:
        arrived_ns = time.monotonic_ns()
        kind = getattr(event, "evtype", None)
        if kind is None or not _KEY_PRESS <= kind <= _MOTION:
            return
        server_ms, detail, motion = parse_raw(event.data)
        time_ns = self._on_our_clock(server_ms, arrived_ns)
        made: InputEvent | None = None
        if kind == _MOTION:
            made = MotionEvent(time_ns, *motion) if any(motion) else None
        elif kind in (_KEY_PRESS, _KEY_RELEASE):
            made = KeyEvent(time_ns, self._key_name(detail), kind == _KEY_PRESS)
        elif detail not in SCROLL_BUTTONS:
            made = KeyEvent(time_ns, f"button{detail}", kind == _BUTTON_PRESS)
        if made is not None:
            with self._lock:
                self._events.append(made)

    def _on_our_clock(self, server_ms: int, arrived_ns: int) -> int:
        delay_ns = (arrived_ns - server_ms * 1_000_000) % (_WRAP_MS * 1_000_000)
        self._delay_ns = delay_ns if self._delay_ns is None else min(self._delay_ns, delay_ns)
        return arrived_ns - (delay_ns - self._delay_ns)

    def _key_name(self, code: int) -> str:
        if code not in self._names:
            from Xlib import XK

            keysym = self._connection.keycode_to_keysym(code, 0)
            name = XK.keysym_to_string(keysym)
            named = (key[3:] for key, value in vars(XK).items() if key.startswith("XK_") and value == keysym)
            self._names[code] = next(named, name or f"code{code}")
        return self._names[code]


def parse_raw(data: bytes) -> tuple[int, int, tuple[float, float]]:
    """An xXIRawEvent after its type: (server time in ms, key code or button, (right, down) without acceleration).

    Layout: XInput 2 protocol, section RawEvent; values are 32.32 fixed point, one for each bit of the mask.
    """
    _, server_ms, detail, _, num_words, _ = struct.unpack_from("<HIIHHI", data)
    at = 22  # the fixed part, counted from the device, with its four bytes of padding
    masks = struct.unpack_from(f"<{num_words}I", data, at)
    axes = [bit + 32 * word for word, mask in enumerate(masks) for bit in range(32) if mask >> bit & 1]
    at += 4 * num_words + 8 * len(axes)  # skips the values with acceleration
    values = dict.fromkeys((0, 1), 0.0)
    for index, axis in enumerate(axes):
        whole, part = struct.unpack_from("<iI", data, at + 8 * index)
        if axis in values:
            values[axis] = whole + part / _WRAP_MS
    return server_ms, detail, (values[0], values[1])


def _windows(root: Any) -> Iterator[Any]:
    """Every mapped window, parents first."""
    from Xlib import X, error

    waiting = [root]
    while waiting:
        window = waiting.pop(0)
        with contextlib.suppress(error.XError):
            if window.get_attributes().map_state == X.IsViewable:
                yield window
                waiting.extend(window.query_tree().children)


def _title(connection: Any, window: Any) -> str:
    from Xlib import error

    with contextlib.suppress(error.XError):
        property = window.get_full_property(connection.get_atom("_NET_WM_NAME"), 0)
        if property is not None and property.value:
            value = property.value
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        name = window.get_wm_name()
        return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")
    return ""
