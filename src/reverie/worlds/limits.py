"""Limits of a game: where recorded play of it counts as bad (`reverie.data.checks` looks for it).

They are free of scale where they can be: lengths are counted in frames of travel, the way that the player covers in one
frame at full speed.
"""

from __future__ import annotations

from dataclasses import dataclass

WALKING = ("forward", "back", "left", "right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits beyond which a recording of one game counts as wrong.  Times are in seconds of 25 frames; None switches a
    check off."""

    travel: float | None = None
    """The way covered in one frame at full speed, in the units of the pose.  None: the episode's own, the 90th
    percentile of its steps while keys of motion are held, so that an episode that never moves has none."""
    keys: tuple[str, ...] = WALKING
    """Keys that should move the player, opposite ones cancelling; none: the player moves always, as a runner does."""
    stuck_s: float | None = 1.0
    """Keys of motion held so long within `stuck_share` of the way that they should have covered: stuck."""
    stuck_share: float = 0.05
    cell_travel: float | None = 13.0
    """Least distance from the start after ten seconds, in frames of travel; a player below it is in a cell."""
    jump_travel: float | None = 6.0
    """Largest distance in one frame, in frames of travel; beyond it is a teleport."""
    stare_depth: float | None = None
    """A view whose middle is nearer than this, in units of the depth image, is of a wall and nothing else."""
    stare_s: float = 1.8
    blank_s: float = 1.0
    """Seconds of frames of one colour, black or not."""
    frozen_s: float = 0.4
    """Seconds of the same frame while the player turned or moved: the game hung."""
    duplicates: float | None = 0.1
    """The largest share of repeated frames among those that should have changed: it draws fewer than 25 a second."""
    still: float = 0.7
    """The largest share of frames that hardly change: almost nothing happens."""
    agree: float | None = 0.55
    """The smallest share of clear turns that the frames show the right way round; chance gives a half."""


USUAL = Limits()
"""Limits of a game that has none of its own."""
