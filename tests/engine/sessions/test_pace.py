"""Pacing under a fake clock: no gaps when there is time, a bounded lead always, fresh input."""

import random
from dataclasses import dataclass, field

import pytest

from reverie.engine.sessions.pace import (
    MAX_ROUND_TRIP_S,
    PaceConfig,
    PaceState,
    begin,
    decide,
    gather,
    made,
    played,
    smooth_cost,
)


@dataclass
class FakePlayer:
    """Shows one frame every `frame_s` and reports it after half a round trip."""

    frame_s: float
    one_way_s: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    shown_at: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    reported: int = 0

    def receive(self, num_frames: int, now_s: float) -> None:
        self.arrivals += [now_s + self.one_way_s] * num_frames

    def advance(self, now_s: float) -> None:
        while len(self.shown_at) < len(self.arrivals):
            due = self.shown_at[-1] + self.frame_s if self.shown_at else 0.0
            shown = max(due, self.arrivals[len(self.shown_at)])
            if shown > now_s:
                return
            self.gaps_s.append(shown - due if self.shown_at else 0.0)
            self.shown_at.append(shown)

    def reports(self, now_s: float) -> int:
        """Frames that the server knows to be shown at `now_s`."""
        while self.reported < len(self.shown_at) and self.shown_at[self.reported] + self.one_way_s <= now_s:
            self.reported += 1
        return self.reported


@dataclass
class Run:
    player: FakePlayer
    state: PaceState
    leads: list[int] = field(default_factory=list)
    input_ages_s: list[float] = field(default_factory=list)


def simulate(config: PaceConfig, cost, seconds: float, round_trip_s: float = 0.0, hidden_after_s: float = 1e9) -> Run:
    """Play for `seconds`, a millisecond at a time; `cost()` gives the seconds that each block takes."""
    player = FakePlayer(config.frame_s, round_trip_s / 2)
    state = made(config, begin(config, 0.0), 1, 0.0)
    player.receive(1, 0.0)
    run = Run(player, state)
    busy_until = None
    sampled = 0.0
    for tick in range(int(seconds * 1000)):
        now = tick / 1000
        if now < hidden_after_s:
            player.advance(now)
        state = played(config, state, player.reports(now), now, round_trip_s=round_trip_s)
        if busy_until is not None and now >= busy_until:
            player.receive(config.block_frames, now)
            state = made(config, state, config.block_frames, now, cost_s=now - sampled)
            busy_until = None
        if busy_until is None and decide(config, state, now).generate:
            run.leads.append(state.unplayed_frames)
            sampled, busy_until = now, now + cost()
    run.state = state
    return run


@pytest.mark.parametrize("block_frames", [1, 4, 12])
@pytest.mark.parametrize("load", [0.2, 0.7, 0.9])
def test_no_gaps_when_there_is_time(block_frames: int, load: float):
    config = PaceConfig(block_frames=block_frames)
    dice = random.Random(0)
    run = simulate(config, lambda: load * config.block_s * dice.uniform(0.95, 1.05), 20.0)
    settled = run.player.gaps_s[20 * block_frames :]
    assert max(settled) < 0.002
    assert len(run.player.shown_at) >= 19 * config.fps


def test_begins_as_late_as_it_can():
    """A block of 40 ms is begun about 70 ms before the player runs dry, not as soon as the last one is done."""
    config = PaceConfig(block_frames=4)
    run = simulate(config, lambda: 0.04, 10.0)
    assert max(run.leads[-30:]) <= 1


def test_lead_is_bounded_for_a_fast_world():
    config = PaceConfig(block_frames=4)
    run = simulate(config, lambda: 0.001, 10.0)
    assert max(run.leads) <= config.lead_frames
    assert len(run.player.arrivals) - len(run.player.shown_at) <= 2 * config.block_frames


def test_a_player_that_stops_showing_stops_the_work():
    config = PaceConfig(block_frames=4)
    run = simulate(config, lambda: 0.02, 30.0, hidden_after_s=2.0)
    assert run.state.unplayed_frames <= config.lead_frames + config.block_frames
    assert decide(config, run.state, 1e6).reason == "lead"
    assert decide(config, run.state, 1e6).wait_s is None


@pytest.mark.parametrize("round_trip_s", [0.05, 0.2])
def test_a_slow_link_gets_a_larger_lead_and_no_gaps(round_trip_s: float):
    config = PaceConfig(block_frames=4)
    run = simulate(config, lambda: 0.1, 20.0, round_trip_s=round_trip_s)
    assert max(run.player.gaps_s[80:]) < 0.002


def test_a_slow_world_never_rests():
    """A block that takes longer than it lasts: the next one begins at once, and the lead stays at a block."""
    config = PaceConfig(block_frames=4)
    run = simulate(config, lambda: 0.25, 20.0)
    assert len(run.leads) >= 20 / 0.252 - 3
    assert max(run.leads) <= config.block_frames


@pytest.mark.parametrize("block_frames", [1, 4, 12])
@pytest.mark.parametrize("round_trip_s", [0.0, 10.0])
def test_a_player_that_confirms_at_once_gets_no_more_than_the_frame_rate(block_frames: int, round_trip_s: float):
    """It says of each frame, the moment it arrives, that it is on the screen, and of the network what it likes."""
    config = PaceConfig(block_frames=block_frames)
    state, now, seconds = begin(config, 0.0), 0.0, 20.0
    while now < seconds:
        decision = decide(config, state, now)
        if decision.generate:
            now += 0.002
            state = made(config, state, block_frames, now, cost_s=0.002)
            state = played(config, state, state.made_frames, now, round_trip_s=round_trip_s)
        else:
            now += max(decision.wait_s or 0.0, 1e-6)
    burst = config.lead_frames + 1 + config.block_frames + MAX_ROUND_TRIP_S * config.fps
    assert seconds * config.fps - 1 <= state.made_frames <= seconds * config.fps + burst
    assert decide(config, state, now + 60.0).generate  # and it is not held back for ever


def test_reports_can_neither_go_back_nor_run_ahead():
    config = PaceConfig(block_frames=4)
    state = made(config, begin(config, 0.0), 9, 0.0)
    state = played(config, state, 5, 1.0)
    assert played(config, state, 3, 2.0) == state
    assert played(config, state, 10**9, 2.0).played_frames == 9
    assert played(config, state, 6, 2.0, round_trip_s=1e9).round_trip_s == MAX_ROUND_TRIP_S
    assert played(config, state, 6, 2.0, round_trip_s=-1.0).round_trip_s == 0.0


def test_a_new_episode_forgets_the_frames_and_keeps_the_cost():
    config = PaceConfig(block_frames=4)
    state = made(config, begin(config, 0.0), 4, 0.1, cost_s=0.1)
    again = begin(config, 5.0, before=state)
    assert (again.made_frames, again.played_frames, again.dry_at_s) == (0, 0, 5.0)
    assert again.cost_s == state.cost_s
    assert decide(config, again, 5.0).reason == "due"


@pytest.mark.parametrize("bad", [{"block_frames": 0}, {"block_frames": 4, "fps": 0}, {"block_frames": 4, "lead_s": -1}])
def test_bad_config(bad: dict):
    with pytest.raises(ValueError, match="pacing needs"):
        PaceConfig(**bad)


def test_gather_takes_nobody_while_none_is_due() -> None:
    assert gather([], 1.0, 0.1, 4) == []
    assert gather([1.2, 1.1], 1.0, 0.5, 4) == []


def test_gather_takes_those_that_would_have_to_wait() -> None:
    assert gather([1.0, 1.09, 1.11, 0.9], 1.0, 0.1, 4) == [3, 0, 1]


def test_gather_takes_the_most_urgent_of_too_many() -> None:
    assert gather([1.0, 0.8, 0.9], 1.0, 0.1, 2) == [1, 2]


def test_cost_follows_what_batches_take() -> None:
    cost_s = 0.0
    for _ in range(60):
        cost_s = smooth_cost(cost_s, 0.2)
    assert cost_s == pytest.approx(0.2, abs=1e-3)
