"""Matches a model, a recording and an inverse-dynamics model: actions are matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.types import FPS, MAX_TURN_DEG, Action, ActionSpace

Rows = npt.NDArray[np.float32]
"""Actions as rows of an action space, (f, size)."""


@dataclass(frozen=True, slots=True)
class ActionMapping:
    """Mapping from the actions of a recording to those of a model.

    common: the actions that both have, in the recording's order.
    turn_scale: degrees of the model for one of the recording, whose field of view may be another.
    """

    model: ActionSpace
    data: ActionSpace
    common: ActionSpace
    turn_scale: float = 1.0

    @property
    def dropped(self) -> tuple[str, ...]:
        """Keys of the recording that the model lacks."""
        return tuple(key for key in self.data.keys if key not in self.model.keys)

    def map_action(self, action: Action) -> Action:
        """Maps an action of the game to the model's action space."""
        mapped = self.model.restrict(action)
        pitch, yaw = (max(-MAX_TURN_DEG, min(MAX_TURN_DEG, turn * self.turn_scale)) for turn in mapped.mouse)
        return Action(mapped.keys, (pitch, yaw))

    def map_rows(self, rows: Rows) -> list[Action]:
        """Maps rows of the recording to actions of the model."""
        return [self.map_action(action) for action in self.data.decode(rows)]

    def notes(self) -> list[str]:
        """Lists remarks for the report; empty if the action spaces are the same."""
        unasked = [key for key in self.model.keys if key not in self.data.keys]
        notes = {
            f"The model lacks {', '.join(self.dropped)}: dropped from the recorded actions.": self.dropped,
            f"The recording lacks {', '.join(unasked)}: never pressed in recorded actions.": unasked,
            "The recording has no mouse: the model is never turned.": self.model.mouse and not self.data.mouse,
            f"The model sees another field of view: recorded turns are said {self.turn_scale:.2f} times.": (
                abs(self.turn_scale - 1) > 0.01
            ),
        }
        return [note for note, applies in notes.items() if applies]


def match_actions(
    model: ActionSpace, data: ActionSpace, name: str = "the dataset", turn_scale: float = 1.0
) -> ActionMapping:
    """Maps a recording's actions to a model's.

    Raises DataError where the recording turns and the model cannot, or no key is shared.
    """
    if data.mouse and not model.mouse:
        raise DataError(
            f"{name} has a mouse, the model has none (keys {', '.join(model.keys)}); "
            "evaluate the model on a recording of its own game"
        )
    common = shared_space(data, model)
    if data.keys and not common.keys:
        raise DataError(
            f"the model takes the keys {', '.join(model.keys) or 'none'}, {name} holds {', '.join(data.keys)}: none is "
            "shared; evaluate it on a recording of its own game"
        )
    return ActionMapping(model, data, common, turn_scale)


def check_frames(
    model_size: tuple[int, int], data_size: tuple[int, int], model_fps: float = FPS, data_fps: float = FPS
) -> None:
    """Raises DataError unless the recording has the model's frame size and frame rate."""
    if tuple(model_size) != tuple(data_size):
        sizes = [f"{height}x{width}" for height, width in (model_size, data_size)]
        raise DataError(
            f"the model makes pictures of {sizes[0]}, the dataset holds {sizes[1]}; record it at the model's size"
        )
    if round(model_fps) != round(data_fps):
        raise DataError(
            f"the model makes {model_fps:g} frames a second, the dataset holds {data_fps:g}; "
            f"bring it to {model_fps:g} with `reverie import`"
        )


def shared_space(first: ActionSpace, second: ActionSpace) -> ActionSpace:
    """Intersection of two action spaces, in the order of the first."""
    return ActionSpace(tuple(key for key in first.keys if key in second.keys), first.mouse and second.mouse)


def columns_of(rows: Rows, space: ActionSpace, part: ActionSpace) -> Rows:
    """The columns of `rows` `(f, space.size)` that `part` names, in its order."""
    return rows[:, [space.names.index(name) for name in part.names]]


def match_idm(data: ActionSpace, spaces: Sequence[ActionSpace], index: int, num_data: int) -> int | None:
    """Picks the inverse-dynamics model for the `index`-th recording; None if there is none.

    It is the only one of the recording's action space, else the one at the same index.  Raises DataError if the choice
    is ambiguous.
    """
    alike = [i for i, space in enumerate(spaces) if space == data]
    if len(alike) == 1:
        return alike[0]
    if len(spaces) == num_data and index in (alike or range(len(spaces))):
        is_usable = spaces[index].mouse == data.mouse and shared_space(data, spaces[index]).size
        return index if is_usable else None
    if alike:
        raise DataError(
            f"{len(alike)} of the inverse-dynamics models have the actions {', '.join(data.names)}; "
            "give one --idm for each --data, in the same order"
        )
    return None
