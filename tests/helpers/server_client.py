"""Clients of a server in this process: they speak the WebSocket of a test application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect
from tests.helpers.fake_source import FakeSource

from reverie.serve.access import Access
from reverie.serve.app import create_app
from reverie.serve.host import Limits
from reverie.serve.protocol import VERSION, FrameMessage

OPEN = Access(hosts=frozenset({"testserver"}))  # what starlette's client calls the server


class Client:
    """A client that shows each frame the moment it comes."""

    def __init__(self, socket: WebSocketTestSession) -> None:
        self.socket = socket
        self.seq = 0

    def say(self, type_: str, **fields: Any) -> None:
        self.socket.send_text(json.dumps({"type": type_, **fields}))

    def input(self, codes: list[str] | None = None, mouse: tuple[float, float] = (0, 0)) -> int:
        self.seq += 1
        self.say("input", seq=self.seq, codes=codes or [], mouse=list(mouse))
        return self.seq

    def next(self) -> dict[str, Any] | FrameMessage:
        event = self.socket.receive()
        if event["type"] == "websocket.close":
            raise WebSocketDisconnect(event["code"], event.get("reason"))
        if event.get("text") is not None:
            return json.loads(event["text"])
        frame = FrameMessage.decode(event["bytes"])
        self.say("played", epoch=frame.epoch, index=frame.index, round_trip_ms=0)
        return frame

    def expect(self, type_: str) -> dict[str, Any]:
        """The next text message of this type; others and frames are passed over."""
        for _ in range(500):
            message = self.next()
            if isinstance(message, dict) and message["type"] == type_:
                return message
        raise AssertionError(f"no {type_} came")

    def frame(self) -> FrameMessage:
        for _ in range(500):
            message = self.next()
            if isinstance(message, FrameMessage):
                return message
        raise AssertionError("no frame came")

    def hello(self) -> dict[str, Any]:
        self.say("hello", version=VERSION, format="rgb")
        return self.expect("welcome")

    def play(self, start: str | None = None, seed: int = 0) -> FrameMessage:
        self.say("start", start=start, seed=seed)
        self.expect("started")
        return self.frame()

    def closed(self) -> tuple[dict[str, Any], int]:
        """The error that was sent, and the close code that followed."""
        error = self.expect("error")
        while (event := self.socket.receive())["type"] != "websocket.close":
            pass
        return error, event["code"]


@contextmanager
def served(source: FakeSource, limits: Limits | None = None) -> Iterator[TestClient]:
    with TestClient(create_app(source, limits, access=OPEN)) as http:
        yield http


@contextmanager
def connected(http: TestClient) -> Iterator[Client]:
    with http.websocket_connect("/ws") as socket:
        yield Client(socket)


def still_plays(http: TestClient) -> None:
    """The server serves: another player gets a welcome and frames."""
    with connected(http) as other:
        other.hello()
        other.play()
        assert other.frame().index == 1
