"""Players whose blocks are made together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from tests.helpers.fake_source import FakeSource, FakeWorld
from tests.helpers.server_client import connected, served

from reverie.errors import WorldError
from reverie.serve.host import Host
from reverie.serve.together import Made, Together
from reverie.types import Action, Frames, World


@dataclass
class SharingSource(FakeSource):
    """A FakeSource whose worlds are stepped together; a batch waits for `ready`, where it is given."""

    batches: list[list[FakeWorld]] = field(default_factory=list)
    failing: list[FakeWorld] = field(default_factory=list)
    ready: threading.Event | None = None
    begun: threading.Event = field(default_factory=threading.Event)

    def step_together(self, worlds: Sequence[World], actions: Sequence[Action]) -> list[Frames | Exception]:
        self.batches.append([world for world in worlds if isinstance(world, FakeWorld)])
        self.begun.set()
        if self.ready is not None:
            assert self.ready.wait(20)
        return [
            WorldError("this row is no longer finite; start it again") if world in self.failing else world.step(action)
            for world, action in zip(worlds, actions, strict=True)
        ]


class Table:
    """Worlds of a source, and wishes for their blocks, on an event loop with a generation thread."""

    def __init__(self, source: SharingSource, limit: int = 4) -> None:
        self.source, self.host = source, Host(source)
        self.together = Together(source, self.host.call, limit)
        self.wake = asyncio.Event()
        picture = np.zeros((64, 112, 3), np.uint8)
        self.worlds = [source.open(picture, 0) for _ in range(3)]
        for world in self.worlds:
            world.reset(0)

    def ask(self, index: int, begin_by_s: float = 0.0) -> asyncio.Task:
        """0: due at once."""
        world = self.worlds[index]
        make = self.together.make(world, lambda: (Action(frozenset({"forward"})), 7 + index), begin_by_s, self.wake)
        return asyncio.create_task(make)

    async def until_begun(self) -> None:
        await asyncio.to_thread(self.source.begun.wait, 20)
        self.source.begun.clear()


def play(scenario) -> SharingSource:
    """Runs `scenario(table)` on an event loop."""
    source = SharingSource()

    async def run() -> None:
        table = Table(source)
        async with asyncio.timeout(60):
            await scenario(table)
        await asyncio.to_thread(table.host.close)

    asyncio.run(run())
    return source


def test_blocks_that_are_due_are_one_batch() -> None:
    async def scenario(table: Table) -> None:
        made = await asyncio.gather(*(table.ask(i) for i in range(3)))
        assert [block.action for block in made] == [7, 8, 9]
        assert all(len(block.frames) == 4 for block in made)
        assert (table.together.num_batches, table.together.num_blocks) == (1, 3)

    assert [len(batch) for batch in play(scenario).batches] == [3]


def test_late_comers_join_the_next() -> None:
    async def scenario(table: Table) -> None:
        table.source.ready = threading.Event()
        first = table.ask(0)
        await table.until_begun()
        late = [table.ask(1), table.ask(2)]
        await asyncio.sleep(0.05)
        assert len(table.source.batches) == 1
        table.source.ready.set()
        await asyncio.gather(first, *late)

    assert [len(batch) for batch in play(scenario).batches] == [1, 2]


def test_who_would_have_to_wait_for_the_batch_joins_it() -> None:
    async def scenario(table: Table) -> None:
        loop_s = table.together._clock()
        table.together._cost_s = 60.0
        made = await asyncio.gather(table.ask(0, loop_s), table.ask(1, loop_s + 50))
        assert all(made)

    assert [len(batch) for batch in play(scenario).batches] == [2]


def test_who_was_served_last_is_waited_for_where_others_wait() -> None:
    """A machine that is always busy serves both in one batch, not each in turn while the other asks."""

    async def scenario(table: Table) -> None:
        table.together._cost_s = 60.0
        table.source.ready = threading.Event()
        first = table.ask(0)
        await table.until_begun()
        second = table.ask(1)
        await asyncio.sleep(0.01)
        table.source.ready.set()
        await first
        again = table.ask(0)
        await asyncio.gather(second, again)

    assert [len(batch) for batch in play(scenario).batches] == [1, 2]


def test_a_wish_is_withdrawn_before_it_is_begun() -> None:
    async def scenario(table: Table) -> None:
        wish = table.ask(0, table.together._clock() + 60)
        await asyncio.sleep(0.05)
        table.wake.set()
        assert await wish is None
        table.wake.clear()
        assert (await table.ask(0)).action == 7  # and it may ask again

    assert [len(batch) for batch in play(scenario).batches] == [1]


def test_a_player_who_leaves_within_a_batch_leaves_the_others_alone() -> None:
    async def scenario(table: Table) -> None:
        table.source.ready = threading.Event()
        wishes = [table.ask(0), table.ask(1)]
        await table.until_begun()
        wishes[0].cancel()
        table.host.later(table.worlds[0].close)  # as a player does who goes: after the batch, on the same thread
        await asyncio.sleep(0.05)
        assert not table.worlds[0].is_closed
        table.source.ready.set()
        assert (await wishes[1]).action == 8
        with pytest.raises(asyncio.CancelledError):
            await wishes[0]

    assert play(scenario).worlds[0].is_closed


def test_one_that_fails_fails_alone() -> None:
    async def scenario(table: Table) -> None:
        table.source.failing.append(table.worlds[1])
        first, second, third = await asyncio.gather(*(table.ask(i) for i in range(3)), return_exceptions=True)
        assert isinstance(second, WorldError)
        assert [block.action for block in (first, third) if isinstance(block, Made)] == [7, 9]

    play(scenario)


def test_a_batch_that_fails_is_told_to_all_and_the_next_is_made() -> None:
    async def scenario(table: Table) -> None:
        table.source.failure = MemoryError("no memory")
        table.source.fail_at_step = 1
        results = await asyncio.gather(*(table.ask(i) for i in range(2)), return_exceptions=True)
        assert all(isinstance(result, MemoryError) for result in results)
        table.source.fail_at_step = None
        assert (await table.ask(2)).action == 9

    play(scenario)


def test_two_clients_play_in_shared_batches() -> None:
    """Through the server, each with its own input; one whose world ends is told so, and the other plays on."""
    source = SharingSource(cost_s=0.1)  # more than two can have one after another
    with served(source) as http, connected(http) as one, connected(http) as two:
        for client in (one, two):
            client.hello()
            client.play()
        for _ in range(20):
            one.frame()
            two.frame()
        assert max(map(len, source.batches)) == 2
        seq = two.input(["KeyW"])
        assert any(two.frame().action == seq for _ in range(40))
        source.failing.append(source.worlds[0])
        error = one.expect("error")
        assert "no longer finite; start it again" in error["message"]
        assert not error["fatal"]
        for _ in range(20):
            two.frame()
        source.failing.clear()
        assert one.play() is not None  # and the same client starts another
