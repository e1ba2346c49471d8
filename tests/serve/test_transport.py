"""Sockets that are held open, idle, or say what no browser says."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path

import pytest
from tests.helpers.fake_source import FakeSource, running
from tests.helpers.raw_clients import HELLO, expect, health, is_closed, is_ready, raw, until, websocket

from reverie.serve import app, transport
from reverie.serve.host import Limits


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "REQUEST_HEAD_S", 0.5)
    monkeypatch.setattr(transport, "REQUEST_S", 1.0)
    monkeypatch.setattr(transport, "CLOSE_S", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: 127.0",
        b"GET /" + b"x" * 2000,
        b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc",
    ],
    ids=["nothing", "half a head", "half a line", "half a body"],
)
def test_a_request_that_never_comes_is_given_up(text: bytes):
    with running(FakeSource()) as port:
        until(lambda: is_ready(port), "the warm-up")
        assert is_closed(raw(port, text))
        assert health(port)["status"] == "ready"


@pytest.mark.usefixtures("impatient")
def test_a_half_request_after_a_whole_one_is_given_up():
    with running(FakeSource()) as port:
        client = raw(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 ")
        client.sendall(b"GET /health HT")
        assert is_closed(client)


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(64 * 2**20)
    monkeypatch.setattr(app, "STATIC", tmp_path)
    with running(FakeSource()) as port:
        until(lambda: is_ready(port), "the warm-up")
        client = raw(port, b"GET /static/large.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(2)
        taken = 0
        with contextlib.suppress(OSError):
            while data := client.recv(2**20):
                taken += len(data)
        assert taken < 60 * 2**20
        assert health(port)["status"] == "ready"


def test_an_endless_head_is_refused():
    with running(FakeSource()) as port:
        client = raw(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                client.sendall(b"X-A: " + b"a" * 1000 + b"\r\n")
        assert is_closed(client)


def test_many_idle_sockets_make_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 20)
    with running(FakeSource()) as port:
        until(lambda: is_ready(port), "the warm-up")
        idle = [raw(port) for _ in range(60)]
        assert health(port)["status"] == "ready"
        assert all(is_closed(client) for client in idle[:30])


def handshake(port: int, receive_buffer: int | None = None) -> socket.socket:
    client = raw(
        port,
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        receive_buffer,
    )
    assert client.recv(1000).startswith(b"HTTP/1.1 101")
    return client


def frame(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    assert len(payload) < 126
    return bytes([opcode | (0x80 if fin else 0), 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "data",
    [
        frame(0x9) * 5000,
        frame(0x1, fin=False) + frame(0x0, fin=False) * 5000,
        frame(0x1, b"\xff\xfe"),
        frame(0x1, b"{", fin=False) + frame(0x9) + frame(0x0, b"\xff"),
        frame(0x3),
        b"\xff\x00\x13 no websocket frame at all",
        frame(0x1, b"{}") * 2000,
    ],
    ids=["pings", "empty fragments", "no utf-8", "no utf-8 in parts", "no opcode", "garbage", "messages"],
)
def test_frames_that_no_browser_sends(data: bytes, caplog: pytest.LogCaptureFixture):
    with running(FakeSource()) as port:
        until(lambda: is_ready(port), "the warm-up")
        client = handshake(port)
        with contextlib.suppress(OSError):
            client.sendall(data)
        assert is_closed(client)
        with websocket(port) as good:
            good.send(HELLO)
            expect(good, "welcome")
    assert [record for record in caplog.records if record.exc_info] == []


def test_large_messages_come_whole_in_any_portions():
    """What is read in portions is put together again, also across the pauses of reading."""
    padding = "x" * 10_000
    with running(FakeSource()) as port, websocket(port) as ws:
        ws.send(HELLO)
        expect(ws, "welcome")
        for number in range(30):
            ws.send(json.dumps({"type": "ping", "time_ms": number, "padding": padding}))
        assert [expect(ws, "pong")["time_ms"] for _ in range(30)] == list(range(30))


def test_a_player_who_reads_nothing_loses_the_place():
    limits = Limits(max_players=1, send_s=0.5)
    with running(FakeSource(), limits) as port:
        until(lambda: is_ready(port), "the warm-up")
        client = handshake(port, receive_buffer=4096)
        client.sendall(frame(0x1, HELLO.encode()) + frame(0x1, b'{"type":"start"}'))
        until(lambda: health(port)["players"] == 1, "the place to be taken")
        text = json.dumps({"type": "played", "epoch": 1, "index": 10**6})

        def is_free() -> bool:
            with contextlib.suppress(OSError):
                client.sendall(frame(0x1, text.encode()))  # says that it shows what it never reads
            return health(port)["players"] == 0

        until(is_free, "the place to be free", 120.0)
