"""Seats and queue: a fixed number of players, and a queue for clients that come when all seats are taken."""

from __future__ import annotations

import asyncio

from reverie.serve.protocol import ErrorCode, Refusal


class Ticket:
    """One client's place: `changed` is set whenever its `place` may be another one."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.is_seated = False


class Seats:
    """`num_seats` places and a queue of at most `max_waiting`, served in the order of arrival."""

    def __init__(self, num_seats: int, max_waiting: int) -> None:
        self._num_seats = num_seats
        self._max_waiting = max_waiting
        self._seated: set[Ticket] = set()
        self._queue: list[Ticket] = []

    @property
    def num_seated(self) -> int:
        return len(self._seated)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    def enter(self) -> Ticket:
        """Take a place, or one in the queue.  Raises Refusal if that is full as well."""
        if self.num_seated >= self._num_seats and self.num_waiting >= self._max_waiting:
            waiting = f" and {self.num_waiting} wait" if self.num_waiting else ""
            raise Refusal(ErrorCode.FULL, f"{self.num_seated} players are here already{waiting}; try again later")
        ticket = Ticket()
        self._queue.append(ticket)
        self._advance()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place up, or leave the queue."""
        self._seated.discard(ticket)
        if ticket in self._queue:
            self._queue.remove(ticket)
        self._advance()

    def place(self, ticket: Ticket) -> int:
        """Position in the queue: 1 is the next one, 0 has a seat."""
        return 0 if ticket.is_seated else self._queue.index(ticket) + 1

    def _advance(self) -> None:
        while self._queue and self.num_seated < self._num_seats:
            ticket = self._queue.pop(0)
            ticket.is_seated = True
            ticket.changed.set()
            self._seated.add(ticket)
        for ticket in self._queue:
            ticket.changed.set()
