"""Scripts of the player in an evaluation: held actions with a known answer, and a script that resembles play."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.types import Action, ActionSpace

TURN_DEG = 3.0
"""The yaw per frame of the turning clips, degrees."""

PITCH_DEG = 1.0
"""The pitch per frame of the looking clips, degrees."""


@dataclass(frozen=True, slots=True)
class Held:
    """One action held for a whole clip.  label: what sheets call it."""

    label: str
    action: Action


YAW_LEFT, YAW_RIGHT = (
    Held("turn left", Action(mouse=(0.0, -TURN_DEG))),
    Held("turn right", Action(mouse=(0.0, TURN_DEG))),
)
LOOK_UP, LOOK_DOWN = Held("look up", Action(mouse=(PITCH_DEG, 0.0))), Held("look down", Action(mouse=(-PITCH_DEG, 0.0)))
FORWARD, BACK = Held("forward", Action(frozenset({"forward"}))), Held("back", Action(frozenset({"back"})))
STRAFE_LEFT, STRAFE_RIGHT = Held("left", Action(frozenset({"left"}))), Held("right", Action(frozenset({"right"})))
PAIRS = {
    "turn": (YAW_LEFT, YAW_RIGHT),
    "walk": (FORWARD, BACK),
    "look": (LOOK_DOWN, LOOK_UP),
    "strafe": (STRAFE_LEFT, STRAFE_RIGHT),
}
"""The opposite actions that are compared, by name."""


def can_say(space: ActionSpace, held: Held) -> bool:
    """Tests whether the action space has the key or the mouse that `held` needs."""
    return space.restrict(held.action) == held.action


def player_actions(space: ActionSpace, num_frames: int, seed: int) -> list[Action]:
    """Actions that look like a person's: mostly walking forward, keys held for 0.4 to 2.4 s, turns that swell and ebb.

    Turns follow targets drawn every 0.4 to 1.6 s (none, a bend, or a quick look around of up to 6 degrees a frame) and
    reach them smoothly; the pitch wanders within a few degrees of level.  The same seed gives the same script.
    """
    rng = np.random.default_rng(seed)
    keys = _held_keys(rng, num_frames)
    yaw = _turns(rng, num_frames)
    pitch = _pitches(rng, num_frames)
    actions = (Action(k, (float(p), float(y))) for k, p, y in zip(keys, pitch, yaw, strict=True))
    return [space.restrict(action) for action in actions]


def _held_keys(rng: np.random.Generator, num_frames: int) -> list[frozenset[str]]:
    choices = [("forward",), ("forward", "left"), ("forward", "right"), ("left",), ("right",), ("back",), ()]
    chances = [0.62, 0.07, 0.07, 0.05, 0.05, 0.05, 0.09]
    keys: list[frozenset[str]] = []
    while len(keys) < num_frames:
        held = frozenset(choices[int(rng.choice(len(choices), p=chances))])
        keys += [held] * int(rng.integers(10, 60))
    return keys[:num_frames]


def _turns(rng: np.random.Generator, num_frames: int) -> list[float]:
    turns: list[float] = []
    speed = 0.0
    while len(turns) < num_frames:
        kind = rng.choice(3, p=[0.45, 0.35, 0.2])
        target = (0.0, rng.uniform(0.5, 2.5), rng.uniform(2.5, 6.0))[kind] * rng.choice([-1, 1])
        for _ in range(int(rng.integers(10, 40))):
            speed += 0.25 * (target - speed)
            turns.append(speed if abs(speed) > 0.02 else 0.0)
    return turns[:num_frames]


def _pitches(rng: np.random.Generator, num_frames: int) -> list[float]:
    """Turns whose sum stays within a few degrees: now and then the player glances up or down and comes back."""
    turns: list[float] = []
    angle = 0.0
    while len(turns) < num_frames:
        target = float(rng.uniform(-8, 8)) if rng.random() < 0.25 else 0.0
        for _ in range(int(rng.integers(20, 50))):
            step = 0.15 * (target - angle)
            angle += step
            turns.append(step if abs(step) > 0.02 else 0.0)
    return turns[:num_frames]
