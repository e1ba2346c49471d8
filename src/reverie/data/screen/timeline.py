"""From raw input, stamped on the clock of the frames, to one action a frame.  Pure: no screen is needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reverie.types import MAX_TURN_DEG, Action


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """A key or mouse button went down or up.  name: X11's, such as `w`, `space`, `Shift_L`, `button1`."""

    time_ns: int
    name: str
    is_down: bool


@dataclass(frozen=True, slots=True)
class MotionEvent:
    """The mouse moved by so many counts: right and down are positive."""

    time_ns: int
    right: float
    down: float


InputEvent = KeyEvent | MotionEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """Mapping from input to actions of the game.

    keys: X11 name -> key name.  deg_per_count: camera rotation for one count of the mouse.
    latency_ns: from the hand to the screen: an event shows in the first frame that is so much later.
    """

    keys: Mapping[str, str]
    deg_per_count: float = 0.0
    latency_ns: int = 0


class Timeline:
    """Collects events in the order of their times and gives the action between two frames."""

    def __init__(self, meaning: Meaning) -> None:
        self._meaning = meaning
        self._held: set[str] = set()

    def action(self, events: Sequence[InputEvent]) -> Action:
        """The action of a row: `events` are those whose effect falls between its frame and the next.

        A key counts as held if it was down at any moment in between; turns add up, and stop at 180 degrees.
        """
        held = set(self._held)
        right = down = 0.0
        for event in events:
            if isinstance(event, MotionEvent):
                right, down = right + event.right, down + event.down
            elif event.is_down:
                self._held.add(event.name)
                held.add(event.name)
            else:
                self._held.discard(event.name)
        keys = frozenset(self._meaning.keys[name] for name in held if name in self._meaning.keys)
        scale = self._meaning.deg_per_count
        return Action(keys, (_within(-down * scale), _within(right * scale)))


def split(events: Sequence[InputEvent], time_ns: int, latency_ns: int) -> tuple[list[InputEvent], list[InputEvent]]:
    """Those that show in a frame taken at `time_ns`, and those that come later."""
    ordered = sorted(events, key=lambda event: event.time_ns)
    shown = [event for event in ordered if event.time_ns + latency_ns <= time_ns]
    return shown, ordered[len(shown) :]


def _within(angle: float) -> float:
    return max(-MAX_TURN_DEG, min(MAX_TURN_DEG, angle)) + 0.0
