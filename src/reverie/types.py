"""The words everything else is written in: actions, action spaces, clips and worlds.

Layout: frames are `f H W 3` uint8 RGB, 25 a second.  This module imports nothing of ours and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from reverie.errors import ActionError

FPS = 25
"""Frames per second, everywhere."""
STEP_FRAMES = 4
"""Frames that one latent step holds (the first step of a video holds one)."""

Frames = npt.NDArray[np.uint8]
"""Frames: `(f, H, W, 3)` uint8 RGB."""

Pose = npt.NDArray[np.float32]
"""A camera pose `(6,)`, in the order of POSE_NAMES."""

POSE_NAMES = ("x", "y", "z", "yaw", "pitch", "roll")
"""The numbers of a camera pose, alike in all games.

x, y, z: metres, a right-handed frame with z up.  yaw: degrees from north (+y) to the right, so that the camera looks
along +y at yaw 0 and along +x at yaw 90.  pitch: degrees upwards.  roll: degrees that the head leans to the right.
"""

VIEWS = ("game", "dream", "both")
"""Views of a game and its generated counterpart: either, or both side by side in one frame."""

GEOMETRY_SHAPE = (64, 112)
"""(h, w) of the depth and the body mask of a frame: half the size of the frames."""

MAX_TURN_DEG = 180.0
"""The largest mouse turn that one frame may ask for, in degrees, on either axis."""


@dataclass(frozen=True, slots=True)
class Action:
    """Input of the player during one frame.

    keys: names of the keys held, such as `forward`.
    mouse: the camera's turn (pitch, yaw) in degrees during this frame; up and right are positive.
    """

    keys: frozenset[str] = frozenset()
    mouse: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ActionSpace:
    """Action space of a game or a model: the keys by name, and whether it has a free camera.

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
        """Raise ActionError if `action` is not in this space."""
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
        """The part of `action` that this space has: unknown keys dropped, the mouse dropped where there is none."""
        return Action(action.keys & self._index.keys(), action.mouse if self.mouse else (0.0, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """The camera that an image was taken with.

    pose: (6,), in the order of POSE_NAMES; fov_deg: horizontal field of view; pixel_aspect: the vertical focal
    length over the horizontal one.
    """

    pose: Pose
    fov_deg: float
    pixel_aspect: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """The geometry of one frame.

    depth: `(64, 112)` float32, metres along the optical axis at the centres of the cells; infinite for the sky.  Where
    the game can draw without the player, it is the depth of what stands behind the body.
    body: `(64, 112)` bool, the player's own body and what else is fixed to the screen.
    """

    depth: npt.NDArray[np.float32]
    body: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name, array in (("depth", self.depth), ("body", self.body)):
            if array.shape != GEOMETRY_SHAPE:
                raise ValueError(f"{name} must have the shape {GEOMETRY_SHAPE}, got {array.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class ClipDepth:
    """The recorded depth of some frames of a clip.

    frames: `(n,)` int64 indices into the clip's frames; depth: `(n, 64, 112)` float32 metres, infinite for the sky;
    body: `(n, 64, 112)` bool.
    """

    frames: npt.NDArray[np.int64]
    depth: npt.NDArray[np.float32]
    body: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch of play.  `actions[i]` is the action whose effect first shows in `frames[i + 1]`.

    frames: `(f, H, W, 3)` uint8; actions: `(f, size)` float32 rows of an ActionSpace; poses: `(f, 6)` float32 in the
    order of POSE_NAMES, or None; depth: of the frames that it was recorded for, or None.
    """

    frames: Frames
    actions: npt.NDArray[np.float32]
    fps: int = FPS
    poses: npt.NDArray[np.float32] | None = None
    depth: ClipDepth | None = None


@runtime_checkable
class World(Protocol):
    """Anything that can be played: a real game, or a session generated by a model.  They are interchangeable.

    block_frames: frames that one `step` returns (a game 1; a session the frames of one block, 4 for nano).
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
        """Start again; returns the first frame, `(1, H, W, 3)`."""
        ...

    def step(self, action: Action) -> Frames:
        """Hold `action` for one block; returns its `(block_frames, H, W, 3)` frames."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class HasGeometry(Protocol):
    """A game that reports the depth of its frames."""

    def geometry(self) -> Geometry:
        """Computes the depth and the body mask of the last frame.  It changes nothing about the frames that follow."""
        ...


@runtime_checkable
class PlaceableWorld(World, Protocol):
    """A game whose player can be asked to stand somewhere, and is played on from there."""

    def stand(self, pose: Pose) -> Frames:
        """Puts the player where the camera has `pose`, or as near as the game allows, at rest.

        Returns the frame `(1, H, W, 3)`; the world's `pose` is then that of its camera.  Raises WorldError, with the
        episode as it was, where nobody can stand.
        """
        ...


@runtime_checkable
class ExplorableWorld(Protocol):
    """A game whose place can be looked at from anywhere, for captures of scenes."""

    def look_from(self, pose: Pose) -> tuple[Frames, Geometry]:
        """Shows the place of this episode from `pose`, without the player and without what moves.

        Returns the frame `(1, H, W, 3)` and its geometry; `pose` of the world is then the pose it was taken from.  An
        episode does not go on from there: call `reset` before the next `step`.
        """
        ...

    def standpoints(self, step_m: float, reach_m: float) -> npt.NDArray[np.float32]:
        """Free places for a camera within `reach_m` of the player in both directions, about `step_m` apart.

        Returns `(n, 3)` metres, at the height of the player's camera.
        """
        ...


@runtime_checkable
class RecordableWorld(World, HasGeometry, Protocol):
    """A game with a camera: what recorders, policies and scene captures use beyond the World protocol.

    All of it is of the frame that was returned last, and may be asked for after `reset`.
    """

    @property
    def pose(self) -> Pose:
        """The camera's pose `(6,)` float32, see POSE_NAMES."""
        ...

    @property
    def fov_deg(self) -> float:
        """Horizontal field of view of the frames, degrees."""
        ...

    @property
    def pixel_aspect(self) -> float:
        """The vertical focal length over the horizontal one, in pixels: 1 for square pixels, 1.2 in Doom."""
        ...

    @property
    def map(self) -> str:
        """The name of the level."""
        ...

    @property
    def finished(self) -> bool:
        """Returns whether the last step ended the level; the frame it returned is then the first of another episode."""
        ...

    @property
    def episode_info(self) -> Mapping[str, Any]:
        """Facts of the episode that are recorded with it, such as weather and time of day."""
        ...

    @property
    def hints(self) -> Mapping[str, Any]:
        """Privileged facts for a policy, such as the road ahead; never recorded."""
        ...
