"""Starting the server: addresses that cannot be had give one line; a real server on a real port plays and ends."""

import contextlib
import errno
import json
import socket
import urllib.request

import pytest
from tests.helpers.fake_source import FakeSource, running
from websockets.sync.client import connect

from reverie.cli.play import PlayConfig, play
from reverie.cli.serve import ServeConfig
from reverie.cli.serve import serve as serve_many
from reverie.errors import CheckpointError, ServeError
from reverie.serve import choose
from reverie.serve.app import bind, page_address, serve
from reverie.serve.choose import source_of
from reverie.serve.protocol import VERSION, FrameMessage
from reverie.serve.sources import GameSource, ModelSource
from reverie.serve.swap_source import SwapSource


def test_a_port_in_use():
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=rf"port {port} on 127.0.0.1 is in use.*--port {port + 1}"):
            bind("127.0.0.1", port)
        with pytest.raises(ServeError, match="in use"):
            serve(FakeSource(), port=port)


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 70000, "from 0 to 65535"),
        ("127.0.0.1", -1, "from 0 to 65535"),
        ("no.such.host.invalid", 0, "no host"),
        ("x" * 300, 0, "no host"),
        ("203.0.113.7", 0, "not an address of this machine"),
    ],
)
def test_addresses_that_cannot_be(host: str, port: int, words: str):
    with pytest.raises(ServeError, match=words) as error:
        bind(host, port)
    assert "\n" not in str(error.value)


def test_a_port_for_the_system_only(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ServeError, match="above 1023"):
        bind("127.0.0.1", 80)


def test_where_the_page_is():
    assert page_address("0.0.0.0", 8000) == "http://localhost:8000"
    assert page_address("127.0.0.1", 81) == "http://127.0.0.1:81"
    assert page_address("::1", 81) == "http://[::1]:81"


def test_a_world_wins_over_the_model():
    assert isinstance(source_of("nano", None, "auto"), ModelSource)
    assert isinstance(source_of(None, None, "auto"), ModelSource)
    assert isinstance(source_of(None, "yard", "auto"), GameSource)


def test_a_game_with_a_model_has_both():
    source = source_of("nano", "yard", "auto")
    assert isinstance(source, SwapSource)
    assert source.name == "yard and nano"


def test_a_failed_warm_up_ends_the_server_with_its_error():
    with pytest.raises(CheckpointError, match="no such model"):
        serve(FakeSource(load_failure=CheckpointError("no such model")), port=0)


@pytest.mark.parametrize(
    ("verb", "config"),
    [(play, PlayConfig(port=0, browser=False)), (serve_many, ServeConfig(port=0, host="127.0.0.1"))],
)
def test_commands_say_where_they_are(verb, config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    source = FakeSource(load_failure=CheckpointError("enough"))
    monkeypatch.setattr(choose, "sources_of", lambda *_, **__: source)
    with pytest.raises(CheckpointError):
        verb(config)
    assert "http://127.0.0.1:" in capsys.readouterr().out


def play_a_little(port: int) -> int:
    """Play over a real socket; returns the index of the last frame."""
    with connect(f"ws://127.0.0.1:{port}/ws") as ws:
        ws.send(json.dumps({"type": "hello", "version": VERSION}))
        ws.send(json.dumps({"type": "start"}))
        frame = None
        while frame is None or frame.index < 9:
            message = ws.recv(timeout=20)
            if isinstance(message, bytes):
                frame = FrameMessage.decode(message)
                ws.send(json.dumps({"type": "played", "epoch": frame.epoch, "index": frame.index}))
        return frame.index


def test_a_real_server_survives_its_clients():
    source = FakeSource()
    with running(source) as port:
        assert play_a_little(port) == 9
        rude = socket.create_connection(("127.0.0.1", port))  # begins a WebSocket, starts a world, drops the line
        rude.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert rude.recv(100).startswith(b"HTTP/1.1 101")
        rude.sendall(b"\xff\x00\x13 no websocket frame at all")
        rude.close()
        with connect(f"ws://127.0.0.1:{port}/ws") as ws, contextlib.suppress(Exception):
            ws.send("x" * 10**6)
            while True:
                ws.recv(timeout=20)
        assert play_a_little(port) == 9
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as health:
            assert json.load(health)["status"] == "ready"
    assert all(world.is_closed for world in source.worlds)
