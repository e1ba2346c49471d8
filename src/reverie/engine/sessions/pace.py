"""Pacing of block generation: pure arithmetic on times that the caller passes in.

A player shows frames at a fixed rate.  Making a block too late leaves a gap; making it too early means that it answers
an input that is already old.  So a block is begun at the last moment at which it still arrives before the player runs
dry, and its action is sampled only then.  What has been made but not yet shown (the lead) is bounded by what the player
*reports* as shown: a player that stops showing frames (a hidden tab, a dead link) stops the work.  A player that
reports frames as shown that it was only just sent gets no more frames than the frame rate allows.

Nothing here reads a clock, sleeps, or depends on sockets and models.  Times are seconds on any one monotonic clock.

    state = begin(config, now)
    while playing:
        decision = decide(config, state, now)
        ... wait `decision.wait_s` (None: until something happens), or make a block and call `made` ...
        ... call `played` whenever the player reports ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reverie.types import FPS

MAX_ROUND_TRIP_S = 0.5
"""The longest network round trip that pacing makes up for by a larger lead."""

_SMOOTHING = 0.125
_DEVIATION_SMOOTHING = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceConfig:
    """Frame rate and limits that a world is played with."""

    block_frames: int
    """Frames made together."""
    fps: float = FPS
    """Frames shown a second."""
    margin_s: float = 0.03
    """Slack for timers, encoding and the screen's refresh."""
    lead_s: float = 0.12
    """Frames that may wait to be shown when a block is begun, in seconds; at least one block may."""

    def __post_init__(self) -> None:
        if self.block_frames < 1 or not self.fps > 0 or self.margin_s < 0 or self.lead_s < 0:
            raise ValueError(f"pacing needs block_frames >= 1, fps > 0, margin_s and lead_s >= 0, got {self}")

    @property
    def frame_s(self) -> float:
        """Seconds that one frame is shown."""
        return 1.0 / self.fps

    @property
    def block_s(self) -> float:
        """Seconds that one block is shown."""
        return self.block_frames / self.fps

    @property
    def lead_frames(self) -> int:
        """Frames that may be waiting to be shown when a block is begun, on a link without delay."""
        return max(self.block_frames, math.ceil(self.lead_s * self.fps))


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceState:
    """Counters and clocks of a player's stream.

    made_frames: frames handed to the player since `begin`; played_frames: those that it reported as begun.
    dry_at_s: when the player will have nothing left to show, as its reports reach us.
    filled_until_s: until when the frames made fill the screen at the frame rate, whatever the player reports.
    cost_s, cost_deviation_s: running mean and mean deviation of what a block takes, from sampling to sending.
    """

    made_frames: int = 0
    played_frames: int = 0
    dry_at_s: float = 0.0
    filled_until_s: float = 0.0
    cost_s: float = 0.0
    cost_deviation_s: float = 0.0
    round_trip_s: float = 0.0

    @property
    def unplayed_frames(self) -> int:
        """Frames made (waiting or under way) that the player has not begun to show."""
        return self.made_frames - self.played_frames

    @property
    def expected_cost_s(self) -> float:
        """Upper estimate of the next block's cost in seconds: the mean and two deviations."""
        return self.cost_s + 2 * self.cost_deviation_s


@dataclass(frozen=True, slots=True)
class Decision:
    """Next action of the pacing loop.  generate: sample the input and make a block.  Else wait `wait_s` seconds and ask
    again (None: nothing will change until the player reports).  reason: `due`, `early`, `lead` (far enough ahead of
    what the player reports), or `rate` (far enough ahead of the frame rate)."""

    generate: bool
    wait_s: float | None
    reason: Literal["due", "early", "lead", "rate"]


def begin(config: PaceConfig, now_s: float, *, before: PaceState | None = None) -> PaceState:
    """A new episode: nothing made, nothing shown.  What `before` learnt about cost and network is kept."""
    if before is None:
        return PaceState(dry_at_s=now_s, filled_until_s=now_s, cost_s=config.block_s)
    return replace(before, made_frames=0, played_frames=0, dry_at_s=now_s, filled_until_s=now_s)


def made(
    config: PaceConfig, state: PaceState, num_frames: int, now_s: float, *, cost_s: float | None = None
) -> PaceState:
    """`num_frames` have just been sent, after `cost_s` seconds of work (None: no measure, as for a first frame)."""
    dry_at_s = max(state.dry_at_s, now_s + state.round_trip_s) + num_frames * config.frame_s
    filled_until_s = max(state.filled_until_s, now_s) + num_frames * config.frame_s
    state = replace(state, made_frames=state.made_frames + num_frames, dry_at_s=dry_at_s, filled_until_s=filled_until_s)
    if cost_s is None:
        return state
    error_s = cost_s - state.cost_s
    return replace(
        state,
        cost_s=state.cost_s + _SMOOTHING * error_s,
        cost_deviation_s=state.cost_deviation_s + _DEVIATION_SMOOTHING * (abs(error_s) - state.cost_deviation_s),
    )


def played(
    config: PaceConfig, state: PaceState, played_frames: int, now_s: float, *, round_trip_s: float | None = None
) -> PaceState:
    """The player reports that it has begun to show `played_frames` frames of this episode.

    Reports that go backwards or beyond what was made are ignored or cut: a player can only slow itself down.
    """
    if round_trip_s is not None:
        state = replace(state, round_trip_s=min(max(round_trip_s, 0.0), MAX_ROUND_TRIP_S))
    played_frames = min(played_frames, state.made_frames)
    if played_frames <= state.played_frames:
        return state
    left_s = (state.made_frames - played_frames + 1) * config.frame_s
    return replace(state, played_frames=played_frames, dry_at_s=now_s + left_s)


def decide(config: PaceConfig, state: PaceState, now_s: float) -> Decision:
    """Decides between sampling the input for a new block at `now_s` and waiting."""
    lead_limit = config.lead_frames + math.ceil(state.round_trip_s * config.fps)
    if state.unplayed_frames > lead_limit:
        return Decision(generate=False, wait_s=None, reason="lead")
    ahead_s = state.filled_until_s - now_s - (lead_limit + 1) * config.frame_s
    if ahead_s > 0:
        return Decision(generate=False, wait_s=ahead_s, reason="rate")
    start_at_s = state.dry_at_s - state.round_trip_s - state.expected_cost_s - config.margin_s
    if now_s >= start_at_s:
        return Decision(generate=True, wait_s=0.0, reason="due")
    return Decision(generate=False, wait_s=start_at_s - now_s, reason="early")


def gather(begin_by_s: Sequence[float], now_s: float, cost_s: float, limit: int) -> list[int]:
    """Indices of several players' blocks that are made now, together, the most urgent first; none while none is due.

    Blocks that would become due while the first is being made would have to wait for it: they join it.

    begin_by_s: when each block has to be begun; cost_s: how long a batch takes; limit: blocks of a batch.
    """
    if not begin_by_s or min(begin_by_s) > now_s:
        return []
    joining = [i for i, begin_s in enumerate(begin_by_s) if begin_s <= now_s + cost_s]
    return sorted(joining, key=lambda i: begin_by_s[i])[:limit]


def smooth_cost(cost_s: float, took_s: float) -> float:
    """The expected cost of a batch after one that took `took_s`."""
    return cost_s + _SMOOTHING * (took_s - cost_s)
