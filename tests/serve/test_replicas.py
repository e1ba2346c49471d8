"""Several server processes behind one address: visitors stay with theirs, and outlive one that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.helpers.fake_source import FakeSource, running
from tests.helpers.server_client import OPEN, connected
from tests.helpers.small_model import small_engine
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.utils import accept_key

from reverie.cli.serve import ServeConfig, serve
from reverie.errors import CheckpointError, ServeError
from reverie.models.presets import tiny
from reverie.serve import app
from reverie.serve.access import Access
from reverie.serve.host import Limits
from reverie.serve.protocol import VERSION, FrameMessage, Refusal
from reverie.serve.replicas import Front, Keeper, Replica, ReplicaConfig, create_front, serve_replicas
from reverie.serve.sources import ModelSource

PATIENT = Limits(max_players=2, start_burst=100, start_s=600, silence_s=600, idle_s=600, hello_s=120)
LIMITS = replace(PATIENT, max_players=1)


@contextlib.contextmanager
def fronted(sources: list[FakeSource], access: Access = OPEN) -> Iterator[tuple[TestClient, Front]]:
    """A front before a server for each source, all in this process."""
    with contextlib.ExitStack() as stack:
        replicas = [Replica(i, stack.enter_context(running(one, LIMITS))) for i, one in enumerate(sources)]
        front = Front(replicas, LIMITS)
        yield stack.enter_context(TestClient(create_front(front, access))), front


def num_open(front: Front) -> list[int]:
    return [replica.num_open for replica in front.replicas]


def until(condition: Any) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_a_visitor_stays_with_its_replica_and_the_next_goes_to_the_other():
    sources = [FakeSource(name="left"), FakeSource(name="right")]
    with fronted(sources) as (http, front):
        page = http.get("/")
        assert "<title>" in page.text
        assert page.headers["x-frame-options"] == "DENY"
        assert re.search(r"reverie-visitor-80=.*HttpOnly.*SameSite=lax", page.headers["set-cookie"])
        etag = http.get("/static/main.js").headers["etag"]
        assert http.get("/static/main.js", headers={"if-none-match": etag}).status_code == 304
        assert http.get("/static/no.js").status_code == 404
        names = set()
        for _ in range(3):
            with connected(http) as client:
                names.add(client.hello()["model"])
                assert client.play().payload
            until(lambda: num_open(front) == [0, 0])
        assert len(names) == 1
        first = dict(http.cookies)
        http.cookies.clear()
        with connected(http) as client:
            names.add(client.hello()["model"])
        assert names == {"left", "right"}
        http.cookies.update(first)
        assert "set-cookie" not in http.get("/").headers


def test_uploads_go_to_the_replica_that_plays_them():
    from tests.helpers.image_files import file_of

    with fronted([FakeSource(), FakeSource()]) as (http, _):
        http.get("/")
        answer = http.post("/upload?name=mine", content=file_of("RGB", (112, 64))).json()
        assert answer["type"] == "uploaded", answer
        with connected(http) as client:
            client.hello()
            client.play(answer["start"]["id"])
        assert http.get("/" + answer["start"]["thumbnail"]).headers["content-type"] == "image/jpeg"
        assert http.post("/upload", content=b"").status_code == 400


def test_who_waits_moves_to_a_seat_that_is_free_first():
    with (
        fronted([FakeSource(), FakeSource()]) as (http, front),
        connected(http) as first,
        connected(http) as second,
        connected(http) as third,
    ):
        first.hello()
        second.hello()
        third.say("hello", version=VERSION, format="rgb")
        assert third.expect("queued")["place"] == 1
        assert sorted(num_open(front)) == [1, 2]
        waits_at = front._links[2].replica
        free, busy = (second, first) if front._links[0].replica is waits_at else (first, second)
        free.socket.close()
        assert third.expect("welcome")["model"] == "fake"
        assert third.play().payload
        assert num_open(front) == [1, 1]
        assert busy.play().payload, "who plays is not disturbed"


def test_who_plays_is_not_moved():
    with fronted([FakeSource(), FakeSource()]) as (http, front), connected(http) as first, connected(http) as second:
        first.hello()
        second.hello()
        second.play()
        first.socket.close()
        until(lambda: sorted(num_open(front)) == [0, 1])
        assert second.frame().payload


def test_a_player_whose_task_is_cancelled_leaves_no_connection_open():
    async def play() -> None:
        async def never_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            key = re.search(rb"Sec-WebSocket-Key: (.+)\r", await reader.readuntil(b"\r\n\r\n"))
            assert key is not None
            upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            writer.write(f"{upgrade}Sec-WebSocket-Accept: {accept_key(key[1].decode())}\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        async with await asyncio.start_server(never_closes, "127.0.0.1", 0) as server:
            front = Front([Replica(0, server.sockets[0].getsockname()[1])], LIMITS)
            player = asyncio.create_task(front.play(SilentPlayer(), front.visit(None)[1]))  # type: ignore[arg-type]
            while not front._links or (backend := front._links[0].backend) is None:
                await asyncio.sleep(0.01)
            while not player.done():  # again and again, as servers on anyio do
                player.cancel()
                await asyncio.sleep(0.01)
            assert backend.transport.is_closing()
            await backend.wait_closed()

    asyncio.run(asyncio.wait_for(play(), 20))


class SilentPlayer:
    """A player's socket on which nothing comes."""

    async def receive(self) -> None:
        await asyncio.Event().wait()


def test_a_replica_that_is_not_there():
    with fronted([FakeSource(), FakeSource()]) as (http, front):
        http.get("/")
        with connected(http) as client:
            client.hello()
        until(lambda: num_open(front) == [0, 0])
        (gone,) = [one for one in front.replicas if one is front.any_replica(dict(http.cookies).popitem()[1])]
        gone.port = None
        with connected(http) as client:
            assert client.hello()["model"] == "fake"
            assert gone.num_open == 0
        health = http.get("/health").json()
        assert health["status"] == "ready"
        assert sorted(one["status"] for one in health["replicas"]) == ["ready", "warming"]
        for one in front.replicas:
            one.port = None
        assert http.get("/health").status_code == 503
        answer = http.get("/")
        assert (answer.status_code, "try again in a moment" in answer.text) == (503, True)
        with pytest.raises(WebSocketDisconnect) as closed, connected(http) as client:
            client.next()
        assert closed.value.code == 1012
        with pytest.raises(Refusal):
            front.visit(None)


def test_the_front_lets_in_whom_a_server_lets_in():
    with fronted([FakeSource()], Access(hosts=frozenset({"testserver"}), token="a-good-long-token")) as (http, _):
        assert http.get("/health").status_code == 403
        with pytest.raises(WebSocketDisconnect), http.websocket_connect("/ws"):
            pass
        assert "<title>" in http.get("/?token=a-good-long-token").text
        with connected(http) as client:
            client.hello()
    with fronted([FakeSource()]) as (http, _):
        assert http.get("/health", headers={"host": "elsewhere.example"}).status_code == 403


def test_visitors_who_have_gone_are_forgotten():
    now = [0.0]
    front = Front([Replica(0, 1), Replica(1, 2)], Limits(kept_s=60), lambda: now[0])
    name, visit = front.visit(None)
    other, second = front.visit(None)
    assert visit.replica is not second.replica
    now[0] = 50.0
    assert front.visit(name) == (name, visit)
    now[0] = 100.0
    assert front.visit(name) == (name, visit)
    assert front.visit(other)[0] != other


@pytest.mark.parametrize("number", [0, -1, 65])
def test_numbers_of_replicas_that_cannot_be(number: int, tmp_path: Path):
    config = ReplicaConfig(source=FakeSource, limits=LIMITS, saves=tmp_path, num_replicas=number)
    with pytest.raises(ServeError, match=f"--replicas is 1 to 64, got {number}"):
        serve_replicas(config, port=0)


def test_the_command_serves_replicas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen: list[ReplicaConfig] = []
    monkeypatch.setattr("reverie.serve.replicas.serve_replicas", lambda config, **where: seen.append(config))
    serve(ServeConfig(replicas=3, max_players=2, saves=tmp_path))
    assert (seen[0].num_replicas, seen[0].limits.max_players, seen[0].saves) == (3, 2, tmp_path)
    assert isinstance(seen[0].source(), ModelSource)


# --------------------------------------------------------------------------------------------- real processes


def broken_source() -> ModelSource:
    raise CheckpointError("this model is damaged; fetch it again")


@contextlib.contextmanager
def served(config: ReplicaConfig) -> Iterator[tuple[int, Front, Keeper, list[Exception]]]:
    """A front on a real port with real processes."""
    listener = app.bind("127.0.0.1", 0)
    failures: list[Exception] = []
    front = Front([Replica(i) for i in range(config.num_replicas)], config.limits)
    keeper = Keeper(front, config, failures.append)
    server = uvicorn.Server(app.server_config(create_front(front, Access(), keeper.running)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1], front, keeper, failures
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()
        assert not any(process.is_alive() for process in keeper.processes.values())


class Visitor:
    """A browser: keeps its cookie, shows frames as they come."""

    def __init__(self, port: int) -> None:
        self.port, self.cookie = port, ""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=600) as page:
            self.cookie = page.headers["Set-Cookie"].partition(";")[0]

    @contextlib.contextmanager
    def connected(self) -> Iterator[ClientConnection]:
        """Told that the server starts again (1012), it comes again, as the page does."""
        headers = {"Cookie": self.cookie}
        for _ in range(100):
            with connect(f"ws://127.0.0.1:{self.port}/ws", additional_headers=headers, compression=None) as socket:
                if self._is_welcome(socket):
                    yield socket
                    return
            time.sleep(0.1)
        raise AssertionError("no replica has taken the visitor")

    def _is_welcome(self, socket: ClientConnection) -> bool:
        try:
            socket.send(json.dumps({"type": "hello", "version": VERSION, "format": "rgb"}))
            self.expect(socket, "welcome")
        except ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code != 1012:
                raise
            return False
        return True

    @staticmethod
    def expect(socket: ClientConnection, kind: str) -> Any:
        """The next message of a kind; `frame`: the next frame, which is then shown."""
        while True:
            message = socket.recv(timeout=600)
            if isinstance(message, bytes):
                frame = FrameMessage.decode(message)
                socket.send(json.dumps({"type": "played", "epoch": frame.epoch, "index": frame.index}))
                if kind == "frame":
                    return frame
            elif (told := json.loads(message))["type"] == kind:
                return told

    def say(self, socket: ClientConnection, answer: str, **message: Any) -> Any:
        socket.send(json.dumps(message))
        return self.expect(socket, answer)


def test_a_killed_replica_loses_only_what_its_players_can_load_again(tmp_path: Path):
    folder = tmp_path / "tiny"
    small_engine(folder, tiny())
    source = partial(ModelSource, str(folder), device="cpu")
    config = ReplicaConfig(source=source, limits=PATIENT, saves=tmp_path / "saves", num_replicas=2)
    with served(config) as (port, front, keeper, failures):
        until_ready(port, 2)
        visitor, other = Visitor(port), Visitor(port)
        with other.connected() as elsewhere:
            with visitor.connected() as socket:
                assert num_open(front) == [1, 1]
                other.say(elsewhere, "started", type="start", seed=5)
                started = visitor.say(socket, "started", type="start", seed=5)
                for _ in range(9):
                    visitor.expect(socket, "frame")
                saved = visitor.say(socket, "saved", type="save", name="before the end")
            # Back again, as after F5: on the same replica, where the session waits.
            home = front.any_replica(visitor.cookie.partition("=")[2])
            with visitor.connected() as socket:
                resumed = visitor.say(socket, "started", type="resume", session=started["session"])
                assert resumed["frame"] >= 9
                lost = keeper.processes[home.number]
                lost.kill()
                with pytest.raises(ConnectionClosed, match="1012"):
                    visitor.expect(socket, "never")
            for _ in range(9):
                other.expect(elsewhere, "frame")
            with visitor.connected() as socket:
                told = visitor.say(socket, "error", type="resume", session=started["session"])
                assert (told["code"], told["fatal"]) == ("unknown-session", False)
                loaded = visitor.say(socket, "started", type="load", save=saved["id"])
                assert loaded["frame"] >= 9
                visitor.expect(socket, "frame")
        until_ready(port, 2)
        assert keeper.processes[home.number] is not lost
        assert not failures


def until_ready(port: int, number: int) -> None:
    end_s = time.monotonic() + 900
    while True:
        health = f"http://127.0.0.1:{port}/health"
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(health, timeout=60) as answer:
            if sum(one["status"] == "ready" for one in json.load(answer)["replicas"]) == number:
                return
        assert time.monotonic() < end_s
        time.sleep(0.2)


def test_a_model_that_cannot_be_loaded_ends_the_server_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else it is set for the replicas, and stays for other tests
    config = ReplicaConfig(source=broken_source, limits=LIMITS, saves=tmp_path, num_replicas=2)
    with pytest.raises(ServeError, match="this model is damaged; fetch it again"):
        serve_replicas(config, port=0)
    assert not multiprocessing.active_children()
