"""The words everything else is written in: actions, action spaces, clips and worlds.

Layout: pictures are `f H W 3` uint8 RGB, 25 a second.  This module imports nothing of ours and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from reverie.errors import ActionError

FPS = 25
"""Frames per second, everywhere."""

Frames = npt.NDArray[np.uint8]
"""Pictures: `(f, H, W, 3)` uint8 RGB."""

MAX_TURN_DEG = 180.0
"""The largest mouse turn that one frame may ask for, in degrees, on either axis."""


@dataclass(frozen=True, slots=True)
class Action:
    """What the player does during one frame.

    keys: names of the keys held, such as `forward`.
    mouse: the camera's turn (pitch, yaw) in degrees during this frame; up and right are positive.
    """

    keys: frozenset[str] = frozenset()
    mouse: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ActionSpace:
    """What a game, or a model, can be told: the keys by name, and whether it has a free camera.

    As numbers an action is one float32 row: a 0/1 value for each key in order, then, if `mouse`, pitch and yaw in
    degrees.
    """

    keys: tuple[str, ...]
    mouse: bool = True
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(set(self.keys)) != len(self.keys):
            raise ActionError(f"an action space names each key once, got {self.keys}")
        object.__setattr__(self, "_index", {key: i for i, key in enumerate(self.keys)})

    @property
    def size(self) -> int:
        """Numbers in one row."""
        return len(self.keys) + 2 * self.mouse

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each number in a row, as recordings store them: `key.forward`, ..., `mouse.yaw`."""
        return tuple(f"key.{key}" for key in self.keys) + (("mouse.pitch", "mouse.yaw") if self.mouse else ())

    @classmethod
    def from_names(cls, names: Sequence[str]) -> ActionSpace:
        """The inverse of `names`.  Raises ActionError for a name that is not one of ours."""
        keys = tuple(name.removeprefix("key.") for name in names if name.startswith("key."))
        space = cls(keys, mouse="mouse.yaw" in names)
        if space.names != tuple(names):
            raise ActionError(
                f"action dimensions must be key.* in front, then mouse.pitch and mouse.yaw; got {list(names)}"
            )
        return space

    def check(self, action: Action) -> None:
        """Raise ActionError if `action` cannot be said in this space."""
        unknown = sorted(action.keys - self._index.keys())
        if unknown:
            raise ActionError(f"unknown key {unknown[0]!r}; this world knows {', '.join(self.keys) or 'no keys'}")
        if not all(abs(turn) <= MAX_TURN_DEG for turn in action.mouse):  # false for what is not a number, too
            raise ActionError(
                f"a mouse turn is two finite angles of at most {MAX_TURN_DEG:g} degrees a frame, got {action.mouse}"
            )
        if not self.mouse and any(action.mouse):
            raise ActionError(f"this world has no mouse, got a turn of {action.mouse} degrees")

    def encode(self, actions: Iterable[Action]) -> npt.NDArray[np.float32]:
        """Actions -> rows `(f, size)` float32.  Raises ActionError as `check` does."""
        rows: list[list[float]] = []
        for action in actions:
            self.check(action)
            rows.append([float(key in action.keys) for key in self.keys] + (list(action.mouse) if self.mouse else []))
        return np.asarray(rows, np.float32).reshape(len(rows), self.size)

    def decode(self, rows: npt.ArrayLike) -> list[Action]:
        """Rows `(f, size)` -> actions; a key counts as held above 0.5.  Raises ActionError for another width."""
        table = np.asarray(rows, np.float32)
        if table.ndim != 2 or table.shape[1] != self.size:
            raise ActionError(f"action rows must be (frames, {self.size}), got {table.shape}")
        num_keys = len(self.keys)
        return [
            Action(
                frozenset(key for key, held in zip(self.keys, row, strict=False) if held > 0.5),
                (float(row[num_keys]), float(row[num_keys + 1])) if self.mouse else (0.0, 0.0),
            )
            for row in table
        ]

    def restrict(self, action: Action) -> Action:
        """The part of `action` that this space can say: unknown keys dropped, the mouse dropped where there is none."""
        return Action(action.keys & self._index.keys(), action.mouse if self.mouse else (0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch of play.  `actions[i]` is the action whose effect is first seen in `frames[i + 1]`.

    frames: `(f, H, W, 3)` uint8; actions: `(f, size)` float32 rows of an ActionSpace; poses: `(f, p)` float32 or None.
    """

    frames: Frames
    actions: npt.NDArray[np.float32]
    fps: int = FPS
    poses: npt.NDArray[np.float32] | None = None


@runtime_checkable
class World(Protocol):
    """Anything that can be played: a real game, or a session dreamt by a model.  They are interchangeable.

    block_frames: frames that one `step` returns (a game 1; a dream the frames of one block, 4 for nano).
    """

    @property
    def action_space(self) -> ActionSpace: ...
    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        ...

    @property
    def block_frames(self) -> int: ...

    def reset(self, seed: int) -> Frames:
        """Start again; returns the first picture, `(1, H, W, 3)`."""
        ...

    def step(self, action: Action) -> Frames:
        """Hold `action` for one block; returns its `(block_frames, H, W, 3)` pictures."""
        ...

    def close(self) -> None: ...
