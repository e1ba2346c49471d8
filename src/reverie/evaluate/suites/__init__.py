"""Published action suites: what the player does, as data, so that others can repeat the numbers.

A suite is a JSON file beside this one: `name`, `title`, `source`, `frames` (how long each action lasts), `seed` (of the
starts and the noise) and `actions`.  An action is a list of segments (`keys`, `mouse_deg` as pitch and yaw per frame,
`frames`) that follow each other and start again from the first until `frames` are full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

from reverie.errors import DataError
from reverie.paths import own_files
from reverie.types import Action, ActionSpace

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Suite:
    """actions: by name, one Action per frame."""

    name: str
    title: str
    source: str
    seed: int
    actions: dict[str, list[Action]]

    def sayable(self, space: ActionSpace) -> dict[str, list[Action]]:
        """Those actions that `space` can encode in full."""
        return {
            name: actions
            for name, actions in self.actions.items()
            if all(space.restrict(action) == action for action in actions)
        }


def suite_names() -> list[str]:
    return [file.stem for file in own_files(FOLDER.glob("*.json"))]


def load_suite(name: str) -> Suite:
    """A suite by its name, or by the path of a JSON file.  Raises DataError."""
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        actions = {str(action["name"]): _fill(action, int(raw["frames"])) for action in raw["actions"]}
        return Suite(raw["name"], raw["title"], raw["source"], int(raw["seed"]), actions)
    except FileNotFoundError:
        choices = ", ".join(suite_names())
        raise DataError(f"there is no suite {name!r}; expected {choices} or the path of a JSON file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not an action suite ({type(error).__name__}: {error}); see evaluate/suites"
        ) from None


def _fill(action: Mapping[str, Any], num_frames: int) -> list[Action]:
    segments = [
        [Action(frozenset(segment["keys"]), (float(segment["mouse_deg"][0]), float(segment["mouse_deg"][1])))]
        * int(segment["frames"])
        for segment in action["segments"]
    ]
    if not any(segments):
        raise ValueError(f"the action {action['name']} has no frames")
    return list(islice(cycle(chain.from_iterable(segments)), num_frames))
