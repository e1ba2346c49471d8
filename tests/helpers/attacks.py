"""Attacks on the server.  Each takes the port, a random generator and how much to do, and returns the messages sent."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from PIL import Image
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from reverie.serve.protocol import VERSION, FrameMessage

logging.getLogger("websockets").setLevel(logging.CRITICAL)  # what the attackers meet is not news

Attack = Callable[[int, random.Random, int], int]

JUNK: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**64, 1e308, -1e308, 0.5, "", "x", "ä日🌍" * 30, "\ud800", "\x00", [],
    {}, [[]], {"a": {}}, "KeyW", ["KeyW"] * 33, ["KeyW", 3], [1e9, 1e9], ["x" * 40], "x" * 5000, list(range(500)),
    [[[[[[]]]]]], "../../etc/passwd", "start-0'; --", "%s%n", "Infinity", "1e999",
]  # fmt: skip

VALID: dict[str, dict[str, Any]] = {
    "hello": {"version": VERSION, "format": "jpeg"},
    "start": {"start": None, "seed": 3},
    "restart": {"seed": 4},
    "pause": {"paused": True},
    "input": {"seq": 1, "codes": ["KeyW", "ArrowLeft"], "mouse": [3.5, -2]},
    "played": {"epoch": 1, "index": 0, "round_trip_ms": 2.5},
    "ping": {"time_ms": 12.5},
    "resume": {"session": "a-token-of-nobody"},
    "load": {"save": "0" * 32},
    "seek": {"frame": 5},
    "save": {"name": "a walk", "whole": True},
    "map": {},
}


def random_message(rng: random.Random) -> str | bytes:
    """A message that is right, nearly right, or nothing of the kind."""
    kind = rng.choice(list(VALID))
    body: dict[str, Any] = {"type": kind, **VALID[kind]}
    how = rng.random()
    if how < 0.35:
        for name in list(body):
            if name != "type" and rng.random() < 0.5:
                body[name] = rng.choice([rng.randrange(2**32), rng.random() * 1e4, body[name]])
    elif how < 0.75:
        body[rng.choice([*body, "type", "other"])] = rng.choice(JUNK)
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5)
    if how >= 0.75:
        cut = rng.randrange(len(text) + 1)
        if how < 0.82:
            text = text[:cut]
        elif how < 0.88:
            text = text[:cut] + chr(rng.randrange(1, 0xD7FF)) + text[cut + 1 :]
        elif how < 0.93:
            return rng.randbytes(rng.randrange(200))
        elif how < 0.96:
            text = "[" * rng.choice([10, 5000, 16_000])
        elif how < 0.98:
            text = '{"type":"input","seq":' + "9" * rng.choice([10, 400, 6000]) + "}"
        else:
            text = "x" * rng.choice([16_384, 16_385, 70_000])
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _client(port: int) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{port}/ws",
        compression=None,
        max_size=None,
        ping_interval=None,
        open_timeout=30,
        close_timeout=1,
    )


def _say(ws: ClientConnection, kind: str, **fields: Any) -> None:
    ws.send(json.dumps({"type": kind, **fields}))


def _raw(port: int, text: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(text)
    return client


def _drain(ws: ClientConnection) -> None:
    """Read what has come, without waiting for more."""
    with contextlib.suppress(TimeoutError):
        while True:
            ws.recv(timeout=0)


def fuzz(port: int, rng: random.Random, count: int) -> int:
    """Random messages, in every order, over as many connections as it takes: most end with a refusal.

    Only messages that the server has come to are counted: a ping behind each is answered, or the connection closed.
    """
    sent = 0
    while sent < count:
        with contextlib.suppress(WebSocketException, OSError), _client(port) as ws:
            if rng.random() < 0.9:
                _say(ws, "hello", version=VERSION)
            while sent < count:
                sent += 1
                ws.send(random_message(rng))
                ws.send(json.dumps({"type": "ping", "time_ms": sent}))
                while ws.recv(timeout=30) != f'{{"type":"pong","time_ms":{sent:.1f}}}':
                    pass
    return sent


def strange_keys(port: int, rng: random.Random, count: int) -> int:
    """Three clients inside all limits: each message holds 32 keys that were never seen before."""

    def one(number: int) -> None:
        with contextlib.suppress(WebSocketException, OSError), _client(port) as ws:
            _say(ws, "hello", version=VERSION)
            _say(ws, "start", seed=number)
            for seq in range(1, count // 3 + 1):
                codes = [f"K{number}s{seq}n{i}" for i in range(32)]
                _say(ws, "input", seq=seq, codes=codes, mouse=[1, 1])
                _drain(ws)
                time.sleep(1 / 280)

    _all_at_once([lambda number=number: one(number) for number in range(3)])
    return count


def floods(port: int, rng: random.Random, count: int) -> int:
    """As many frames as the line carries: pings, empty fragments, tiny messages, garbage."""
    sent = 0
    frames = [b"\x89\x80\0\0\0\0", b"\x00\x80\0\0\0\0", b"\x81\x82\0\0\0\0{}", b"\x83\x80\0\0\0\0", b"\x81\xfe\xff\xff"]
    while sent < count:
        with contextlib.suppress(OSError), _handshake(port) as client:
            frame = rng.choice(frames)
            if frame[0] == 0:
                client.sendall(b"\x01\x80\0\0\0\0")
            client.sendall(frame * 20_000)
            client.settimeout(1)
            while client.recv(65_536):
                pass
        sent += 20_000
    return sent


def half_open(port: int, rng: random.Random, count: int) -> int:
    """Connections that begin something and never end it, held while others come."""
    beginnings = [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-",
        b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    ]
    held: list[socket.socket] = []
    for number in range(count):
        with contextlib.suppress(OSError):
            held.append(_handshake(port) if number % 3 == 0 else _raw(port, rng.choice(beginnings)))
    time.sleep(3)
    for client in held:
        client.close()
    return count


def slow_readers(port: int, rng: random.Random, count: int) -> int:
    """Players who say that they show frames and read none."""
    sent = 0
    held = []
    for _ in range(3):
        with contextlib.suppress(OSError):
            client = _handshake(port)
            held.append(client)
            client.sendall(_text({"type": "hello", "version": VERSION, "format": "rgb"}) + _text({"type": "start"}))
    for index in range(count // 3):
        for client in held:
            with contextlib.suppress(OSError):
                client.sendall(_text({"type": "played", "epoch": 1, "index": index}))
                sent += 1
        time.sleep(0.01)
    for client in held:
        client.close()
    return sent


def hasty_starts(port: int, rng: random.Random, count: int) -> int:
    """A client that opens and restarts worlds as fast as it may talk."""
    with contextlib.suppress(WebSocketException, OSError), _client(port) as ws:
        _say(ws, "hello", version=VERSION)
        for number in range(count):
            _say(ws, rng.choice(["start", "restart"]), seed=number)
            _drain(ws)
            time.sleep(1 / 250)
    return count


def instant_confirmations(port: int, rng: random.Random, count: int) -> int:
    """A client that says of each frame at once that it is on the screen, to be served more than its share."""
    sent = 0
    with contextlib.suppress(WebSocketException, OSError, TimeoutError), _client(port) as ws:
        _say(ws, "hello", version=VERSION)
        _say(ws, "start", seed=1)
        while sent < count:
            message = ws.recv(timeout=10)
            if isinstance(message, bytes):
                frame = FrameMessage.decode(message)
                _say(ws, "played", epoch=frame.epoch, index=frame.index, round_trip_ms=500)
                sent += 1
    return sent


def seeks_and_saves(port: int, rng: random.Random, count: int) -> int:
    """A client that goes to and fro in its session, and saves it, as fast as it may talk."""
    with contextlib.suppress(WebSocketException, OSError), _client(port) as ws:
        _say(ws, "hello", version=VERSION)
        _say(ws, "start", seed=1)
        for number in range(count):
            if number % 3:
                _say(ws, "seek", frame=rng.randrange(100))
            else:
                _say(ws, "save", name=rng.choice(["a walk", "\ud83d", "x" * 80]), whole=True)
            _drain(ws)
            time.sleep(1 / 250)
    return count


def requests(port: int, rng: random.Random, count: int) -> int:
    """The page and its images, over and over, on many connections at once."""
    paths = [b"/", b"/starts", b"/starts/start-0.jpg", b"/static/main.js", b"/health", b"/nothing", b"/saves"]
    each = max(1, count // 24)

    def one(number: int) -> None:
        with contextlib.suppress(OSError), _raw(port) as client:
            for index in range(each):
                path = paths[(number + index) % len(paths)]
                client.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path)
                if index % 8 == 7:
                    client.recv(2**20)

    _all_at_once([lambda number=number: one(number) for number in range(24)])
    return 24 * each


def uploads(port: int, rng: random.Random, count: int) -> int:
    """Programs, bombs, damaged images and huge ones, while others are held open."""
    held = []
    for _ in range(20):
        with contextlib.suppress(OSError):
            held.append(
                _raw(
                    port,
                    b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 33000000\r\n\r\n" + bytes(50_000),
                )
            )
    for client in held[2:]:
        client.close()
    files = [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\n",
        _png(Image.new("I;16", (4000, 4000), 9)),
        _png(Image.new("1", (20_000, 10_000))),
        _png(Image.new("RGB", (300, 200), (1, 2, 3)))[:-30],
        b"",
        rng.randbytes(100_000),
    ]
    for number in range(count):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/upload", files[number % len(files)], method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
    for client in held:
        client.close()
    return count + len(held)


ATTACKS: dict[str, tuple[Attack, int]] = {
    "random messages": (fuzz, 5000),
    "three clients with keys never seen": (strange_keys, 1500),
    "floods of frames": (floods, 200_000),
    "half-open connections": (half_open, 60),
    "players who read nothing": (slow_readers, 900),
    "starts without end": (hasty_starts, 600),
    "frames confirmed at once": (instant_confirmations, 150),
    "seeks and saves without end": (seeks_and_saves, 600),
    "requests without end": (requests, 1200),
    "uploads": (uploads, 6),
}
"""Each attack and how much of it a test does."""


def _all_at_once(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _handshake(port: int) -> socket.socket:
    client = _raw(
        port,
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    client.recv(1000)
    return client


def _text(body: dict[str, Any]) -> bytes:
    payload = json.dumps(body).encode()
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return b"\x81" + length + bytes(4) + payload


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
