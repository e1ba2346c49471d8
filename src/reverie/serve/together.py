"""Blocks of several players, made together on the generation thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from reverie.engine.sessions.pace import gather, smooth_cost
from reverie.serve.sources import PlaysTogether
from reverie.types import Action, Frames, World

LINGER_S, LINGER_SHARE = 0.03, 0.15
"""Longest wait for the players who were served last, where others wait: seconds, and share of a batch's cost.  Without
it a machine that is busy all the time would serve one half while the other half asks, in turn for ever."""

Take = Callable[[], tuple[Action, int]]
"""Samples a player's input: the action, and the number of the latest input in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A block.  action: number of the latest input that it obeys; sampled_s: when that was sampled; cost_s: from when
    it was begun, or, where it was begun late, from when it was due."""

    frames: Frames
    action: int
    sampled_s: float
    cost_s: float


@dataclass(slots=True, eq=False)
class _Wish:
    """A block that a player waits for."""

    world: World
    take: Take
    begin_by_s: float
    made: asyncio.Future[Made] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    is_begun: bool = False


class Together:
    """Collects the players' blocks and makes those that are due in one batch.  All methods run on the event loop."""

    def __init__(
        self,
        source: PlaysTogether,
        call: Callable[[Callable[[], list[Made | Exception]]], Awaitable[list[Made | Exception]]],
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """call: runs work on the generation thread; limit: blocks of a batch."""
        self._source, self._call, self._limit, self._clock = source, call, limit, clock
        self._wishes: list[_Wish] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cost_s = 0.0
        self._served: set[int] = set()
        self.num_batches = self.num_blocks = 0

    async def make(self, world: World, take: Take, begin_by_s: float, wake: asyncio.Event) -> Made | None:
        """The next block of `world`, begun at `begin_by_s`, or before where others are made then.

        None if `wake` is set before it is begun.  Raises what the world raises.
        """
        wish = _Wish(world, take, begin_by_s)
        self._wishes.append(wish)
        self._served.discard(id(world))
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        woken = asyncio.create_task(wake.wait())
        try:
            await asyncio.wait([wish.made, woken], return_when=asyncio.FIRST_COMPLETED)
            if not wish.is_begun:
                return None
            return await wish.made
        finally:
            woken.cancel()
            wish.made.cancel()  # nobody waits for it any more
            with suppress(ValueError):
                self._wishes.remove(wish)

    async def _run(self) -> None:
        """Makes batches until nobody waits for a block."""
        linger_until_s = 0.0
        while self._wishes:
            now_s = self._clock()
            due = [wish.begin_by_s for wish in self._wishes]
            if self._served and now_s < linger_until_s:
                await self._wait(linger_until_s - now_s)
                continue
            batch = [self._wishes[i] for i in gather(due, now_s, self._cost_s, self._limit)]
            if not batch:
                await self._wait(min(due) - now_s)
                continue
            for wish in batch:
                wish.is_begun = True
                self._wishes.remove(wish)
            try:
                results: Sequence[Made | Exception] = await self._call(partial(self._make, batch, now_s))
            except Exception as error:
                results = [error] * len(batch)
            self._cost_s = smooth_cost(self._cost_s, self._clock() - now_s)
            self.num_batches, self.num_blocks = self.num_batches + 1, self.num_blocks + len(batch)
            for wish, result in zip(batch, results, strict=True):
                if wish.made.done():  # its player has gone meanwhile
                    continue
                if isinstance(result, Exception):
                    wish.made.set_exception(result)
                else:
                    wish.made.set_result(result)
            self._served = {id(wish.world) for wish in batch}
            linger_until_s = self._clock() + min(LINGER_S, LINGER_SHARE * self._cost_s)

    async def _wait(self, seconds: float) -> None:
        """Until another block is asked for, at most so long."""
        self._changed.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.0, seconds))

    def _make(self, batch: list[_Wish], began_s: float) -> list[Made | Exception]:
        """On the generation thread: samples every input now, at the last moment, and makes the blocks."""
        sampled_s = self._clock()
        taken = [wish.take() for wish in batch]
        made = self._source.step_together([wish.world for wish in batch], [action for action, _ in taken])
        done_s = self._clock()
        return [
            frames
            if isinstance(frames, Exception)
            else Made(frames, seq, sampled_s, done_s - min(began_s, wish.begin_by_s))
            for wish, frames, (_, seq) in zip(batch, made, taken, strict=True)
        ]
