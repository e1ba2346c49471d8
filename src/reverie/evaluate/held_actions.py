"""Obedience to actions that are held for a whole clip, by the camera's motion alone: no trained model is needed.

Shares are in [0, 1].  Frame i + 1 of a clip is the first to show action i.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reverie.evaluate import metrics
from reverie.evaluate.tables import Column, Metrics, Table
from reverie.types import Action, ActionSpace, Clip, Frames

TURN_DEG = 3.0
"""The yaw per frame of the turning clips, degrees."""
PITCH_DEG = 1.0
"""The pitch per frame of the looking clips, degrees."""
WINDOW_FRAMES = 16
"""Length of the real clips that check the ruler itself."""
MIN_WALK_M = 2 / 32
"""Metres a frame: 1.6 m/s."""


@dataclass(frozen=True, slots=True)
class Held:
    """One action held for a whole clip.  label: its name on sheets."""

    label: str
    action: Action


PAIRS = {
    "turn": (
        Held("turn left", Action(mouse=(0.0, -TURN_DEG))),
        Held("turn right", Action(mouse=(0.0, TURN_DEG))),
    ),
    "walk": (Held("forward", Action(frozenset({"forward"}))), Held("back", Action(frozenset({"back"})))),
    "look": (Held("look down", Action(mouse=(-PITCH_DEG, 0.0))), Held("look up", Action(mouse=(PITCH_DEG, 0.0)))),
    "strafe": (Held("left", Action(frozenset({"left"}))), Held("right", Action(frozenset({"right"})))),
}
"""The opposite actions that are compared, by name."""


class Rate(NamedTuple):
    """Motion of a clip under PAIRS[pair][side], as `motion_rate` gives it."""

    pair: str
    side: int
    rate: float


def pair_names(space: ActionSpace) -> list[str]:
    """The opposite actions of PAIRS that `space` can encode."""
    return [name for name, pair in PAIRS.items() if all(space.restrict(held.action) == held.action for held in pair)]


def motion_rate(pair: str, frames: Frames, fov_deg: float) -> float:
    """Motion of a clip along a pair's axis: expansion per frame for walk, degrees of pitch for look, of yaw else."""
    if pair == "walk":
        return metrics.zoom_rate(frames)
    pitch, yaw = metrics.turn_deg(frames, fov_deg)
    return pitch if pair == "look" else yaw


def held_metrics(rates: Iterable[Rate], paired: bool = True) -> Metrics:
    """Counts the clips that moved the right way.  paired: clip k of either side began in the same start.

    turn, look, strafe: share of clips whose mean camera motion (yaw, pitch, yaw) has the asked sign and is at least
    `metrics.MIN_TURN_DEG`.  turn_deg, look_deg: the mean motion in the asked direction, degrees per frame.
    forward_expands, back_contracts: share of clips whose mean expansion from the centre has that sign and at least
    `metrics.MIN_ZOOM`; walk_clips: both kinds together.  walk_apart: share of starts where forward's expansion exceeds
    back's by twice MIN_ZOOM.  A static video gets 0 everywhere.
    """
    by_side: dict[tuple[str, int], list[float]] = {(pair, side): [] for pair in PAIRS for side in (0, 1)}
    for pair, side, rate in rates:
        by_side[pair, side].append(rate)
    row: Metrics = {}
    for pair in ("turn", "look", "strafe"):
        signed = [(rate, sign) for side, sign in ((0, -1), (1, 1)) for rate in by_side[pair, side]]
        if signed:
            row[pair] = float(np.mean([metrics.turns_towards(rate, sign) for rate, sign in signed]))
        if signed and pair != "strafe":
            row[f"{pair}_deg"] = float(np.mean([rate * sign for rate, sign in signed]))
    forward, back = by_side["walk", 0], by_side["walk", 1]
    expands, contracts = ([metrics.zooms_towards(r, sign) for r in side] for side, sign in ((forward, 1), (back, -1)))
    if expands:
        row["forward_expands"] = float(np.mean(expands))
    if contracts:
        row["back_contracts"] = float(np.mean(contracts))
    if expands and contracts:
        row["walk_clips"] = float(np.mean(expands + contracts))
    if paired and forward and back:
        apart = [f - b >= 2 * metrics.MIN_ZOOM for f, b in zip(forward, back, strict=True)]
        row["walk_apart"] = float(np.mean(apart))
    return {**row, "clips": float(sum(map(len, by_side.values())))}


def held_table(rows: dict[str, Metrics]) -> Table:
    note = (
        f"Asked: {TURN_DEG:g} degrees of yaw a frame, or a key held for 1.3 s; judged by the flow of the picture. The "
        "real row is stretches of the recording in which the player did so: it checks the ruler. Shuffled: half of the "
        "clips are judged as their opposite."
    )
    columns = (
        Column("turn", "turns the right way", "{:.3f}", "high"),
        Column("turn_deg", "turn, deg/frame"),
        Column("look", "looks the right way", "{:.3f}", "high"),
        Column("look_deg", "look, deg/frame"),
        Column("forward_expands", "forward expands", "{:.3f}", "high"),
        Column("back_contracts", "back contracts", "{:.3f}", "high"),
        Column("walk_clips", "walk clips right", "{:.3f}", "high"),
        Column("walk_apart", "forward above back", "{:.3f}", "high"),
        Column("strafe", "strafes the right way", "{:.3f}", "high"),
        Column("clips", "clips", "{:.0f}"),
    )
    return Table("Obedience to held actions", columns, note, rows)


def real_windows(clip: Clip, space: ActionSpace) -> Iterator[tuple[str, int, Frames]]:
    """Stretches of a real clip in which the player did one of PAIRS: (pair, side, frames (17, H, W, 3)).

    turn: no key held, yaw of one sign, at least 1 degree a frame on average (while walking, near walls may truly move
    the other way).  walk: forward or back held, the yaw below 1 degree a frame.  Where the recording has poses, a walk
    must also go at least MIN_WALK_M a frame: players meet walls.
    """
    n = WINDOW_FRAMES
    yaw = clip.actions[:, len(space.keys) + 1] if space.mouse else np.zeros(len(clip.actions), np.float32)
    i = 0
    while i + n < len(clip.frames):
        found = _held_pair(clip, space, yaw[i : i + n], slice(i, i + n))
        if found:
            yield *found, clip.frames[i : i + n + 1]
        i += n if found else n // 4


def _held_pair(clip: Clip, space: ActionSpace, turn: npt.NDArray[np.float32], part: slice) -> tuple[str, int] | None:
    """The pair and side of PAIRS that the player did throughout a part of a clip, if any; turn: its yaw."""
    stands = clip.actions[part, : len(space.keys)].max(initial=0) < 0.5
    if stands and abs(turn.mean()) >= 1 and (np.sign(turn) == np.sign(turn.mean())).all():
        return "turn", int(turn.mean() > 0)
    for side, key in enumerate(("forward", "back")):
        is_held = key in space.keys and clip.actions[part, space.keys.index(key)].min() > 0.5
        if is_held and np.abs(turn).max() < 1 and _walks(clip, part):
            return "walk", side
    return None


def _walks(clip: Clip, part: slice) -> bool:
    if clip.poses is None:
        return True
    ground = clip.poses[[part.start, part.stop], :2]
    return bool(np.linalg.norm(ground[1] - ground[0]) >= MIN_WALK_M * (part.stop - part.start))


def freeze(frames: Frames) -> Frames:
    """The control that never moves: the first frame, repeated."""
    return np.broadcast_to(frames[:1], frames.shape)


def delay(frames: Frames) -> Frames:
    """The control that copies: each frame is the true frame before it.  It reads the truth; a rollout does not."""
    return np.concatenate([frames[:1], frames[:-1]])
