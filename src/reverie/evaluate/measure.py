"""Obedience to actions that are held for a whole clip, by the camera's motion alone: no trained judge is needed.

Shares are in [0, 1].  Frame i + 1 of a clip is the first to show action i.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from reverie.evaluate import metrics
from reverie.evaluate.scripts import PAIRS, TURN_DEG, can_say
from reverie.evaluate.tables import Column, Table
from reverie.types import ActionSpace, Clip, Frames

WINDOW_FRAMES = 16
"""Length of the real clips that check the ruler itself."""

SHARE = "{:.3f}"

OBEDIENCE = (
    Column("turn", "turns the right way", SHARE, "high"),
    Column("turn_deg", "turn, deg/frame"),
    Column("look", "looks the right way", SHARE, "high"),
    Column("look_deg", "look, deg/frame"),
    Column("forward_expands", "forward expands", SHARE, "high"),
    Column("back_contracts", "back contracts", SHARE, "high"),
    Column("walk_clips", "walk clips right", SHARE, "high"),
    Column("walk_apart", "forward above back", SHARE, "high"),
    Column("strafe", "strafes the right way", SHARE, "high"),
    Column("clips", "clips", "{:.0f}"),
)


class Obedience:
    """Collects clips of held actions and counts those that moved the right way.

    turn, look, strafe: share of clips whose mean camera motion (yaw, pitch, yaw) has the asked sign and is at least
    `metrics.MIN_TURN_DEG`.  turn_deg, look_deg: the mean motion in the asked direction, degrees per frame.
    forward_expands, back_contracts: share of clips whose mean expansion from the centre has that sign and at least
    `metrics.MIN_ZOOM`; walk_clips: both kinds together.  walk_apart: share of starts where forward's expansion exceeds
    back's by twice MIN_ZOOM.  A static video gets 0 everywhere.
    """

    def __init__(self, fov_deg: float) -> None:
        self._fov_deg = fov_deg
        self._rates: dict[tuple[str, int], list[float]] = {}

    def add(self, pair: str, side: int, frames: Frames) -> None:
        """A clip of `PAIRS[pair][side]`."""
        self.add_rate(pair, side, rate_of(pair, frames, self._fov_deg))

    def add_rate(self, pair: str, side: int, rate: float) -> None:
        """The same, by the clip's `rate_of`."""
        self._rates.setdefault((pair, side), []).append(rate)

    def figures(self, paired: bool = True) -> dict[str, float]:
        """The row.  paired: clip k of either side began in the same start."""
        row: dict[str, float] = {}
        for pair in ("turn", "look", "strafe"):
            signed = [(rate, sign) for side, sign in ((0, -1), (1, 1)) for rate in self._rates.get((pair, side), [])]
            if signed:
                row[pair] = float(np.mean([metrics.turns_towards(rate, sign) for rate, sign in signed]))
            if signed and pair != "strafe":
                row[f"{pair}_deg"] = float(np.mean([rate * sign for rate, sign in signed]))
        forward, back = self._rates.get(("walk", 0), []), self._rates.get(("walk", 1), [])
        right = [[metrics.zooms_towards(r, sign) for r in rates] for rates, sign in ((forward, 1), (back, -1))]
        for name, flags in zip(("forward_expands", "back_contracts"), right, strict=True):
            if flags:
                row[name] = float(np.mean(flags))
        if right[0] and right[1]:
            row["walk_clips"] = float(np.mean(right[0] + right[1]))
        if paired and forward and back:
            apart = [f - b >= 2 * metrics.MIN_ZOOM for f, b in zip(forward, back, strict=True)]
            row["walk_apart"] = float(np.mean(apart))
        row["clips"] = float(sum(map(len, self._rates.values())))
        return row


def rate_of(pair: str, frames: Frames, fov_deg: float) -> float:
    """Motion of a clip along a pair's axis: expansion per frame for walk, degrees of pitch for look, of yaw else."""
    if pair == "walk":
        return metrics.zoom_rate(frames)
    pitch, yaw = metrics.turn_deg(frames, fov_deg)
    return pitch if pair == "look" else yaw


def held_table() -> Table:
    note = (
        f"Asked: {TURN_DEG:g} degrees of yaw a frame, or a key held for 1.3 s; judged by the flow of the picture. The "
        "real row is stretches of the recording in which the player did so: it checks the ruler. Shuffled: half of the "
        "clips are judged as their opposite."
    )
    return Table("held", "Obedience to held actions", OBEDIENCE, note)


MIN_WALK_M = 2 / 32
"""Metres a frame: 1.6 m/s."""


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
        found = _what_was_done(clip, space, yaw[i : i + n], slice(i, i + n))
        if found:
            yield *found, clip.frames[i : i + n + 1]
        i += n if found else n // 4


def _what_was_done(
    clip: Clip, space: ActionSpace, turn: npt.NDArray[np.float32], part: slice
) -> tuple[str, int] | None:
    """The pair and side of PAIRS that the player did throughout a part of a clip, if any; turn: its yaw."""
    stands = clip.actions[part, : len(space.keys)].max(initial=0) < 0.5
    if stands and abs(turn.mean()) >= 1 and (np.sign(turn) == np.sign(turn.mean())).all():
        return "turn", int(turn.mean() > 0)
    for side, key in enumerate(("forward", "back")):
        is_held = key in space.keys and clip.actions[part, space.keys.index(key)].min() > 0.5
        if is_held and np.abs(turn).max() < 1 and _moved(clip, part):
            return "walk", side
    return None


def _moved(clip: Clip, part: slice) -> bool:
    if clip.poses is None:
        return True
    ground = clip.poses[[part.start, part.stop], :2]
    return bool(np.linalg.norm(ground[1] - ground[0]) >= MIN_WALK_M * (part.stop - part.start))


def static(frames: Frames) -> Frames:
    """The control that never moves: the first frame, repeated."""
    return np.broadcast_to(frames[:1], frames.shape)


def delayed(frames: Frames) -> Frames:
    """The control that copies: each frame is the true frame before it.  It reads the truth; a rollout does not."""
    return np.concatenate([frames[:1], frames[:-1]])


def pair_names(space: ActionSpace, quick: bool) -> list[str]:
    """The opposite actions of PAIRS that `space` can encode; quick: turning and walking alone."""
    names = ("turn", "walk") if quick else tuple(PAIRS)
    return [name for name in names if all(can_say(space, held) for held in PAIRS[name])]
