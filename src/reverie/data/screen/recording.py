"""`reverie record screen`: any window of an X11 desktop becomes a dataset while a person plays in it.

Frames are taken 25 times a second and stamped, with the raw input, on one monotonic clock.  A row's action is what
the hands did between its frame and the next, shifted by `latency_ms`, the time the game needs from hand to screen.
An episode ends where the capture falls behind, where the window loses the focus or moves, and after a minute.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from reverie.argument_markers import alias
from reverie.data.live import EPISODE_FRAMES, EpisodeKeeper
from reverie.data.screen.timeline import InputEvent, Meaning, MotionEvent, Timeline, split
from reverie.data.screen.x11 import Camera, InputListener, find_window, is_focused, open_display, place_of
from reverie.data.writer import DatasetWriter
from reverie.errors import DataError
from reverie.types import FPS, ActionSpace

PERIOD_NS = 1_000_000_000 // FPS
KEYS = (
    "w=forward", "s=back", "a=left", "d=right", "space=jump", "c=crouch", "Control_L=crouch",
    "button1=attack", "button3=use", "e=use",
)  # fmt: skip
VOCABULARY = ("forward", "back", "left", "right", "jump", "crouch", "attack", "use")
"""The order of the keys in the dataset; others follow as they are named."""

MAX_CUTS_A_MINUTE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordScreenConfig:
    """Record any window while you play in it (Linux with X11), as a LeRobot v3 dataset.  Ctrl-C ends it.

    Example: reverie record screen --window Minetest --counts-per-turn 3600 -o recordings/my-game
    """

    window: str
    """Part of the window's title."""
    out: Annotated[Path, alias("-o")]
    """The dataset's folder; made, or continued."""
    counts_per_turn: float = 0.0
    """Mouse counts for a whole turn of the camera (see the figures printed at the end); 0 records no mouse."""
    keys: tuple[str, ...] = KEYS
    """Meaning of the keys: X11 key or buttonN = key name."""
    latency_ms: float = 0.0
    """From the hand to the screen in your game, usually 20 to 60."""
    size: tuple[int, int] = (128, 224)
    """(H, W) of the recorded frames; the window's middle is cut to this shape."""
    seconds: float = 0.0
    """Stop after so long; 0 goes on until Ctrl-C."""
    wait_s: float = 3.0
    """Time to get into the game before the recording begins."""

    def __post_init__(self) -> None:
        if min(self.counts_per_turn, self.latency_ms, self.seconds, self.wait_s) < 0:
            raise DataError("counts-per-turn, latency-ms, seconds and wait-s must not be negative")
        if any(side <= 0 or side % 16 for side in self.size):
            raise DataError(f"the size must be positive multiples of 16, got {self.size[0]} {self.size[1]}")
        for pair in self.keys:
            if pair.count("=") != 1 or not all(pair.split("=")):
                raise DataError(f"keys are said like w=forward or button1=attack, got {pair!r}")

    @property
    def meaning(self) -> Meaning:
        names = {name: key for name, _, key in (pair.partition("=") for pair in self.keys)}
        turn = 360.0 / self.counts_per_turn if self.counts_per_turn else 0.0
        return Meaning(keys=names, deg_per_count=turn, latency_ns=round(self.latency_ms * 1e6))

    @property
    def action_space(self) -> ActionSpace:
        named = list(dict.fromkeys(self.meaning.keys.values()))
        ordered = [name for name in VOCABULARY if name in named]
        return ActionSpace(tuple(ordered + [n for n in named if n not in ordered]), mouse=self.counts_per_turn > 0)


@dataclass(slots=True)
class ScreenReport:
    """Result of a recording.  cuts: reasons why episodes ended, counted.  counts_right: net mouse motion, in counts."""

    num_frames: int = 0
    cuts: dict[str, int] = field(default_factory=dict)
    counts_right: float = 0.0
    grab_ms: list[float] = field(default_factory=list)

    def describe(self) -> str:
        cuts = ", ".join(f"{why} {times} times" for why, times in self.cuts.items()) or "none"
        grab = float(np.median(self.grab_ms)) if self.grab_ms else 0.0
        return (
            f"{self.num_frames} frames, {self.num_frames / FPS:.0f} s; a picture takes {grab:.1f} of {1000 / FPS:g} ms;"
            f" cuts: {cuts}; the mouse went {self.counts_right:+.0f} counts to the right in all"
        )


def record_screen(config: RecordScreenConfig, *, display: str | None = None) -> ScreenReport:
    """Record until Ctrl-C, the end of `seconds` or of the window; returns what came of it.

    display: the X display, such as `:1`; None is the session's own.
    Raises WorldError without X11 or the window, DataError for a folder in use and where the machine is too slow.
    """
    with contextlib.closing(open_display(display)) as connection:
        window = find_window(connection, config.window)
        notes = {
            "player": "person",
            "window": config.window,
            "keys": list(config.keys),
            "latency_ms": config.latency_ms,
        }
        task = f"play {config.window}"
        writer = DatasetWriter(config.out, config.action_space, config.size, FPS, task=task, notes=notes)
        camera = Camera(config.size, display)
        with writer, contextlib.closing(camera), InputListener(display) as listener:
            recording = _Recording(config, EpisodeKeeper(writer))
            with contextlib.closing(recording), contextlib.suppress(KeyboardInterrupt):
                recording.go_on(
                    look=lambda: None if (place := place_of(window)) is None else (place, *camera.look(place)),
                    listen=listener.take,
                    is_watched=lambda: is_focused(connection, window),
                )
            return recording.report


class _Recording:
    """The loop at 25 frames a second, and its state between them."""

    def __init__(self, config: RecordScreenConfig, keeper: EpisodeKeeper) -> None:
        self.report = ScreenReport()
        self._config = config
        self._keeper = keeper
        self._timeline = Timeline(config.meaning)
        self._waiting: list[InputEvent] = []
        self._last: tuple[npt.NDArray[np.uint8], int] | None = None
        self._place: object = None

    def go_on(
        self,
        look: Callable[[], tuple[object, npt.NDArray[np.uint8], int] | None],
        listen: Callable[[], list[InputEvent]],
        is_watched: Callable[[], bool],
    ) -> None:
        """Take frames on a grid of 40 ms; returns when the window has gone or the time is over."""
        began = due = time.monotonic_ns()
        while not self._config.seconds or due - began < self._config.seconds * 1e9:
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            seen = look()
            if seen is None:
                self.cut("the window was closed")
                return
            place, picture, taken = seen
            self.report.grab_ms.append((time.monotonic_ns() - taken) / 1e6)
            self._take_in(listen(), picture, taken)
            if self._place is not None and place != self._place:
                self.cut("the window was moved")
            self._place = place
            if not is_watched():
                self.cut("the window was not in front")
                self._last = None
            due += PERIOD_NS
            late = time.monotonic_ns() - due
            if late > PERIOD_NS:
                self.cut("the capture fell behind")
                self._check_speed(began)
                due += late // PERIOD_NS * PERIOD_NS

    def _take_in(self, events: list[InputEvent], picture: npt.NDArray[np.uint8], taken_ns: int) -> None:
        """A new frame: the row before it is complete now."""
        self.report.counts_right += sum(event.right for event in events if isinstance(event, MotionEvent))
        shown, self._waiting = split([*self._waiting, *events], taken_ns, self._config.meaning.latency_ns)
        action = self._timeline.action(shown)
        if self._last is not None:
            self._keeper.add(self._last[0], action)
            self.report.num_frames += 1
        self._last = (picture, taken_ns)
        if len(self._keeper) >= EPISODE_FRAMES:
            self.cut("")

    def cut(self, why: str) -> None:
        """The episode ends, for a reason that is counted if it has one.  The next begins with the next frame."""
        if why and self._last is not None:
            self.report.cuts[why] = self.report.cuts.get(why, 0) + 1
            self._last = None
        self._keeper.end({"seed": 0, "map": self._config.window, "heldout": False, "player": "person"})

    def close(self) -> None:
        """Keep what there is of the last episode, and wait until all is written."""
        self.cut("")
        self._keeper.close()

    def _check_speed(self, began_ns: int) -> None:
        minutes = (time.monotonic_ns() - began_ns) / 6e10
        cuts = self.report.cuts.get("the capture fell behind", 0)
        if cuts > MAX_CUTS_A_MINUTE * max(minutes, 0.5):
            grab = float(np.median(self.report.grab_ms))
            raise DataError(
                f"this machine is too slow to record: a picture takes {grab:.0f} of {1000 / FPS:g} ms;"
                f" {'make the window smaller' if grab > 500 / FPS else 'end what else runs on it'}"
            )
