"""Mapping of keys and mouse to a world's actions, and the player's current input.

Clients send key codes and pixels; here they become an Action in the words and degrees of the world that is played.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from reverie.serve.protocol import Input
from reverie.types import Action, ActionSpace

KEYS = {
    "KeyW": ("forward",),
    "KeyS": ("back",),
    "KeyA": ("left", "lean-left"),
    "KeyD": ("right", "lean-right"),
    "Space": ("jump", "handbrake"),
    "ShiftLeft": ("handbrake", "crouch"),
    "KeyC": ("crouch", "slide"),
    "KeyQ": ("turn-left",),
    "KeyE": ("turn-right", "use"),
    "KeyT": ("trick",),
    "KeyF": ("attack",),
    "Mouse0": ("attack",),
    "Mouse2": ("use",),
}
"""Key codes, and the key of an action space that each holds: the first that the world has."""

MOVES = {"ArrowUp": ("forward",), "ArrowDown": ("back",)}
"""Bound as well, as in the games of old: with the arrows alone one can walk and turn."""

STEERING = {
    "ArrowUp": ("forward", "jump"),
    "ArrowDown": ("back", "crouch", "slide"),
    "ArrowLeft": ("turn-left", "left"),
    "ArrowRight": ("turn-right", "right"),
}
"""Keys that the arrows are bound to where there is no camera to turn."""

TURNS = {"ArrowLeft": (0.0, -1.0), "ArrowRight": (0.0, 1.0), "PageUp": (1.0, 0.0), "PageDown": (-1.0, 0.0)}
"""Key codes that turn the camera: (pitch, yaw) directions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """Input mapping of one world.

    keys: code -> key name.  turn_deg: degrees a frame while a turn key is held, (pitch, yaw).
    deg_per_px: degrees that one pixel of mouse movement turns.
    max_turn_deg: the fastest turn in one frame, (pitch, yaw); what the mouse asks beyond it is dropped, not saved up.
    """

    keys: dict[str, str]
    turns: dict[str, tuple[float, float]] = field(default_factory=dict)
    turn_deg: tuple[float, float] = (1.5, 3.5)
    deg_per_px: float = 0.12
    max_turn_deg: tuple[float, float] = (2.0, 6.0)

    @property
    def codes(self) -> frozenset[str]:
        """Every key code that does something in this world."""
        return frozenset(self.keys) | frozenset(self.turns)

    def describe(self) -> dict[str, object]:
        """For the page: which code does what."""
        turns = {code: [p * self.turn_deg[0], y * self.turn_deg[1]] for code, (p, y) in self.turns.items()}
        return {"keys": dict(self.keys), "turns": turns, "deg_per_px": self.deg_per_px}

    def action(self, codes: frozenset[str], mouse_px: tuple[float, float], num_frames: int) -> Action:
        """The Action to hold for `num_frames` frames: the mouse movement is spread evenly over them."""
        keys = frozenset(self.keys[code] for code in codes if code in self.keys)
        if not self.turns:
            return Action(keys)
        right_px, down_px = mouse_px
        pitch, yaw = -down_px * self.deg_per_px / num_frames, right_px * self.deg_per_px / num_frames
        for code, (up, right) in self.turns.items():
            if code in codes:
                pitch, yaw = pitch + up * self.turn_deg[0], yaw + right * self.turn_deg[1]
        return Action(keys, (_clamp(pitch, self.max_turn_deg[0]), _clamp(yaw, self.max_turn_deg[1])))


def bindings_for(space: ActionSpace) -> Bindings:
    """The usual keys, as far as `space` has them; turning by arrows and mouse where it has a camera."""
    table = {**KEYS, **(MOVES if space.mouse else STEERING)}
    known = {code: [name for name in names if name in space.keys] for code, names in table.items()}
    keys = {code: names[0] for code, names in known.items() if names}
    steers = space.mouse and not {"left", "right"} & set(space.keys)  # as a car without keys for it
    turns = {**TURNS, "KeyA": TURNS["ArrowLeft"], "KeyD": TURNS["ArrowRight"]} if steers else dict(TURNS)
    return Bindings(keys=keys, turns=turns if space.mouse else {})


class InputBox:
    """The latest wish of one player: written by the connection, read by the generation thread at a block's start.

    Only the newest state counts and nothing queues up, with two exceptions that make it feel right: a key that was
    tapped between two blocks is held for the next one, and mouse movement adds up until it is taken.  Codes that the
    world does not bind are dropped at once, so that what a box holds is bounded.
    """

    def __init__(self, bindings: Bindings) -> None:
        self._bindings = bindings
        self._codes = bindings.codes
        self._lock = threading.Lock()
        self._held: frozenset[str] = frozenset()
        self._tapped: frozenset[str] = frozenset()
        self._mouse_px = (0.0, 0.0)
        self._seq = 0

    def put(self, message: Input) -> None:
        """Take in a message; one that is older than the last is ignored."""
        codes = message.codes & self._codes
        with self._lock:
            if message.seq < self._seq:
                return
            self._seq = message.seq
            self._held = codes
            self._tapped |= codes
            self._mouse_px = (self._mouse_px[0] + message.mouse[0], self._mouse_px[1] + message.mouse[1])

    def take(self, num_frames: int) -> tuple[Action, int]:
        """The action for the block that begins now, and the number of the latest input in it."""
        with self._lock:
            codes, mouse_px, seq = self._held | self._tapped, self._mouse_px, self._seq
            self._tapped, self._mouse_px = frozenset(), (0.0, 0.0)
        return self._bindings.action(codes, mouse_px, num_frames), seq

    def flush(self) -> None:
        """Drop taps and movement that no block has taken (after a pause or a restart); keys held stay held."""
        with self._lock:
            self._tapped, self._mouse_px = frozenset(), (0.0, 0.0)


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value)) + 0.0  # + 0.0: no minus zero in logs
