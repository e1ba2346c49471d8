"""The server's sockets: uvicorn's own protocols, with limits on what one connection may hold, and for how long.

uvicorn waits without end for a request that never comes, for an answer that nobody reads, and for a closed connection
to take its last bytes; and it handles all WebSocket frames of a read, up to 256 KiB, in one go.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

REQUEST_HEAD_S = 10.0
"""The time within which the head of a request has come; the clock starts with the connection, or the first byte."""
REQUEST_S = 150.0
"""The time within which a request is read and its answer taken."""
CLOSE_S = 5.0
"""The time within which the other side takes its last bytes after a close."""
MAX_CONNECTIONS = 256
"""Sockets at once; beyond it the oldest without a request goes."""

CHUNK_BYTES = 1024
"""WebSocket bytes that are handled before others have their turn."""
MAX_FRAGMENTS = 64
"""Frames of one message."""
PINGS_PER_S = 10.0
"""WebSocket pings of one client; browsers send none."""


class TimedHttp(H11Protocol):
    """HTTP/1.1 of which each request ends in time, be it answered or not.  The h11 parser bounds a request's head."""

    _opened_s = 0.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._opened_s = time.monotonic()
        self._expect(REQUEST_HEAD_S)
        still_open = [one for one in self.connections if not one.transport.is_closing()]
        if len(still_open) > MAX_CONNECTIONS:
            waiting = [one for one in still_open if isinstance(one, TimedHttp) and one.cycle is None]
            min(waiting, key=lambda one: one._opened_s, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            self._expect(REQUEST_HEAD_S)
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._expect(REQUEST_S)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._expect(None)
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        if self.conn.their_state in (h11.DONE, h11.IDLE):
            self._expect(None)
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect(CLOSE_S)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect(CLOSE_S)

    def _expect(self, seconds: float | None) -> None:
        """Drop the connection in so many seconds, unless this is called again; None: do not."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that is read in small portions, and only as fast as the app takes its messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unread = bytearray()
        self._is_scheduled = False
        self._pings_left, self._pinged_s = PINGS_PER_S, time.monotonic()

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().data_received(data)
            return
        self._unread += data
        if not self._is_scheduled:
            self._read_some()

    def _read_some(self) -> None:
        self._is_scheduled = False
        if self.transport.is_closing() and not self.close_sent:
            self._unread.clear()
            return
        if self._unread and self._may_read:
            portion = bytes(self._unread[:CHUNK_BYTES])
            del self._unread[:CHUNK_BYTES]
            super().data_received(portion)
        if self.transport.is_closing():
            self._unread.clear()
        elif self._unread:
            self.transport.pause_reading()
            self._schedule()
        elif not self.read_paused:
            self.transport.resume_reading()

    @property
    def _may_read(self) -> bool:
        """Returns whether the handshake is over and the app has taken the messages before."""
        return self.handshake_complete and (self.close_sent or not self.read_paused)

    def _schedule(self) -> None:
        if self._unread and not self._is_scheduled and self._may_read:
            self._is_scheduled = True
            self.loop.call_soon(self._read_some)

    async def receive(self) -> Any:
        message = await super().receive()
        self._schedule()
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        self._schedule()  # the handshake, or a close, may have set it free

    def handle_ping(self) -> None:
        now_s = time.monotonic()
        self._pings_left = min(PINGS_PER_S, self._pings_left + (now_s - self._pinged_s) * PINGS_PER_S) - 1
        self._pinged_s = now_s
        if self._pings_left < 0:
            self._drop(1008, "too many pings")
        else:
            super().handle_ping()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        if len(self.frames) > MAX_FRAGMENTS:
            self._drop(1008, "a message of too many frames")

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self._drop(1007, "a text message is UTF-8")
        else:
            super().send_receive_event_to_app()

    def _drop(self, code: int, reason: str) -> None:
        """End a connection that breaks the rules: no client of good will does."""
        self.frames = []
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if self.writable.is_set():
            self.loop.call_later(CLOSE_S, self.transport.abort)
        else:  # much is unread: it will not be read now
            self.transport.abort()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
