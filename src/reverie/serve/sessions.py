"""Sessions whose players may come back: a reload of the page or a lost connection goes on where it was.

A session has a token that its page keeps.  While nobody plays it, it waits here for some minutes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from reverie.serve.protocol import ErrorCode, Refusal
from reverie.types import Action, Frames, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reverie.engine.sessions.session import Snapshot
    from reverie.engine.sessions.session_file import SessionFile

HAND_OVER_S = 5.0
"""Seconds that a connection may take to hand its session over to another one."""


@runtime_checkable
class Rewindable(World, Protocol):
    """A World that can go back and be saved, such as `engine.sessions.timeline.Timeline`.

    snapshot: of its state; None for one that its file alone opens as quickly.
    """

    @property
    def frame(self) -> int: ...
    @property
    def earliest(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def shown(self) -> Frames: ...
    @property
    def seed(self) -> int: ...
    def step(self, action: Action | Sequence[Action]) -> Frames: ...
    def seek(self, frame: int) -> Frames: ...
    def snapshot(self) -> Snapshot | None: ...
    def describe(self, title: str = "") -> SessionFile: ...


def new_token() -> str:
    """A session's name, which cannot be guessed."""
    return secrets.token_urlsafe(16)


@dataclass(slots=True, eq=False)
class Held:
    """A session and its start's id.  token: None for a world that cannot be left and taken up again."""

    world: World
    start: str | None
    seed: int
    token: str | None = field(default=None)


class Sessions:
    """The sessions of one server: those that are played, and those that wait for their players.

    max_waiting: sessions that wait at once, beyond which the oldest is closed; wait_s: for how long.
    close: closes a world on the generation thread.
    """

    def __init__(self, close: Callable[[World], None], *, max_waiting: int = 2, wait_s: float = 600.0) -> None:
        self._close = close
        self._max_waiting, self._wait_s = max_waiting, wait_s
        self._played: dict[str, tuple[Held, Callable[[], None]]] = {}
        self._waiting: OrderedDict[str, tuple[Held, asyncio.TimerHandle]] = OrderedDict()
        self._changed = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def played(self) -> list[Held]:
        return [held for held, _ in self._played.values()]

    def play(self, held: Held, leave: Callable[[], None]) -> None:
        """Notes that a session is played.  leave: asks its player to leave it to another connection."""
        if held.token is not None:
            self._played[held.token] = held, leave

    def end(self, held: Held) -> None:
        """Closes a session that its player has left for another."""
        self._played.pop(held.token or "", None)
        self._close(held.world)

    def leave(self, held: Held) -> None:
        """Keeps the session of a player who has gone."""
        if held.token is None or self._max_waiting == 0:
            self.end(held)
            return
        self._played.pop(held.token, None)
        timer = asyncio.get_running_loop().call_later(self._wait_s, self._drop, held.token)
        self._waiting[held.token] = (held, timer)
        while len(self._waiting) > self._max_waiting:
            self._drop(next(iter(self._waiting)))
        self._changed.set()

    async def take(self, token: str) -> Held:
        """The session of `token`; a connection that still plays it is asked to leave.  Raises Refusal."""
        if token in self._played:
            self._played[token][1]()
            try:
                async with asyncio.timeout(HAND_OVER_S):
                    while token not in self._waiting:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                pass
        held, timer = self._waiting.pop(token, (None, None))
        if held is None or timer is None:
            raise Refusal(ErrorCode.UNKNOWN_SESSION, "this session is no longer on the server; another one begins")
        timer.cancel()
        return held

    def close(self) -> None:
        """Closes every session that waits; from now on none does."""
        self._max_waiting = 0
        self.drop_waiting()

    def drop_waiting(self) -> None:
        """Closes the sessions that wait for their players."""
        for token in list(self._waiting):
            self._drop(token)

    def _drop(self, token: str) -> None:
        held, timer = self._waiting.pop(token)
        timer.cancel()
        self._close(held.world)
