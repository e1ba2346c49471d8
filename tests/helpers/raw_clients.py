"""Clients of a server in another thread that speak less than a browser: sockets, and WebSockets without a page."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from reverie.serve.protocol import VERSION

HELLO = json.dumps({"type": "hello", "version": VERSION, "format": "rgb"})


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


def health(port: int) -> dict:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as warming_up:
        return json.load(warming_up)


def is_ready(port: int) -> bool:
    with contextlib.suppress(OSError):
        return health(port)["status"] == "ready"
    return False


_sockets: list[socket.socket] = []


def close_sockets() -> None:
    """Closes every socket that `raw` has opened."""
    while _sockets:
        _sockets.pop().close()


def raw(port: int, text: bytes = b"", receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    _sockets.append(client)
    client.settimeout(30)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    client.sendall(text)
    return client


def is_closed(client: socket.socket, seconds: float = 30.0) -> bool:
    """Whether the server ends the connection within `seconds`."""
    client.settimeout(seconds)
    try:
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def websocket(port: int) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}/ws", ping_interval=None, compression=None, max_size=None)


def expect(ws: ClientConnection, kind: str) -> dict:
    while True:
        message = ws.recv(timeout=30)
        if isinstance(message, str) and json.loads(message)["type"] == kind:
            return json.loads(message)


def close_code(ws: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            ws.recv(timeout=30)
    return None if ws.protocol.close_rcvd is None else ws.protocol.close_rcvd.code
