"""Several server processes behind one address: `reverie serve --replicas N`.

Each replica is a whole server (`serve.app`) in a process of its own, on a port that only this machine reaches.  The
front sends a visitor to one of them and keeps to it: a cookie names the visitor, so that a reload or a new connection
finds the session where it waits.  Saved sessions are in one folder, which every replica reads.  When a replica ends,
another one takes its place; its players are sent to the others, where they load what they have saved.

Who finds all seats of a replica taken waits in its queue, and moves on where another replica has a seat first.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import multiprocessing
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from reverie import __version__
from reverie.errors import ImageError, ReverieError, ServeError
from reverie.serve.access import Access, Gate, access_for
from reverie.serve.answers import FRESH, STATUS, error_answer, read_body
from reverie.serve.host import Limits
from reverie.serve.protocol import ErrorCode, Refusal, close_reason
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import Source

log = logging.getLogger("reverie.serve")

MAX_REPLICAS = 64
MAX_VISITS = 10_000
POLL_S = 0.1
FETCH_S = 150.0
MAX_EARLY_ENDS = 3
"""Number of times in succession that a replica may end before it listens, until the server gives up."""
RESTARTED = 1012
"""The WebSocket's close code for a service that is started again: pages then connect again by themselves."""
_NOT_SENT = (1005, 1006, 1015)
"""Close codes for a connection that ended without one; none may be sent."""

_TO_REPLICA = ("content-type", "if-none-match", "if-modified-since", "range")
_NOT_FROM_REPLICA = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


@dataclass(slots=True, eq=False)
class Replica:
    """One server.  port: None while it does not listen; num_open: connections that the front has sent there."""

    number: int
    port: int | None = None
    num_open: int = 0


@dataclass(slots=True, eq=False)
class _Visit:
    """Replica that a visitor is routed to.  has_played: there, so that a session may wait there."""

    replica: Replica
    seen_s: float
    num_open: int = 0
    has_played: bool = False


@dataclass(slots=True, eq=False)
class _Link:
    """A player's connection.  hello: the first message, sent again where the player moves to another replica."""

    socket: WebSocket
    visit: _Visit
    replica: Replica
    hello: str | None = None
    is_seated: bool = False
    backend: ClientConnection | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Front:
    """Sends each visitor to one of the replicas.  All methods run on the event loop."""

    def __init__(
        self, replicas: Sequence[Replica], limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """limits: those of each replica."""
        self.replicas = list(replicas)
        self.limits = limits
        self._clock = clock
        self._visits: dict[str, _Visit] = {}
        self._links: list[_Link] = []

    def visit(self, visitor: str | None) -> tuple[str, _Visit]:
        """The visitor's name, a new one for who has none, and where to send it: as before, if that replica listens.

        Raises Refusal while none does.
        """
        now_s = self._clock()
        for name, one in list(self._visits.items()):
            if not one.num_open and (now_s - one.seen_s > self.limits.kept_s or len(self._visits) > MAX_VISITS):
                del self._visits[name]
        found = self._visits.get(visitor or "")
        if visitor is None or found is None or found.replica.port is None:
            visitor = secrets.token_urlsafe(12)
            found = self._visits[visitor] = _Visit(self._emptiest(), now_s)
        found.seen_s = now_s
        return visitor, found

    def any_replica(self, visitor: str | None) -> Replica:
        """The visitor's replica, else any.  Raises Refusal while none listens."""
        found = self._visits.get(visitor or "")
        return self._emptiest() if found is None or found.replica.port is None else found.replica

    def _emptiest(self) -> Replica:
        listening = [replica for replica in self.replicas if replica.port is not None]
        if not listening:
            raise Refusal(ErrorCode.UNAVAILABLE, "the world is being started; try again in a moment")
        expected = {id(visit): visit.replica for visit in self._visits.values() if not visit.num_open}
        return min(listening, key=lambda one: one.num_open + sum(one is other for other in expected.values()))

    async def play(self, socket: WebSocket, visit: _Visit) -> None:
        """Passes messages on, both ways, until one side ends."""
        link = _Link(socket, visit, visit.replica)
        self._links.append(link)
        link.replica.num_open += 1
        visit.num_open += 1
        reading = asyncio.create_task(self._read(link))
        try:
            code, reason = await self._pass_on(link, reading)
            with suppress(WebSocketDisconnect, RuntimeError, OSError):
                await socket.close(code, reason)
        finally:
            reading.cancel()
            self._links.remove(link)
            link.replica.num_open -= 1
            visit.num_open -= 1
            visit.seen_s = self._clock()
            self.fill(link.replica)

    def fill(self, replica: Replica) -> None:
        """Gives the free seats of a replica to those who have waited longest in another's queue."""
        for link in [link for link in self._links if not link.is_seated and not link.visit.has_played]:
            if replica.port is None or replica.num_open >= self.limits.max_players:
                return
            if link.replica is not replica and link.replica.num_open > self.limits.max_players:
                link.replica.num_open -= 1
                replica.num_open += 1
                link.replica = link.visit.replica = replica
                link.moved.set()

    async def _pass_on(self, link: _Link, reading: asyncio.Task[None]) -> tuple[int, str]:
        """Serves one replica after another, until the connection ends; returns how to close it."""
        while True:
            link.moved.clear()
            try:
                async with self._connected(link.replica) as backend:
                    if link.hello is not None:
                        await backend.send(link.hello)
                    link.backend = backend
                    end = await self._relay(link, backend, reading)
            except (OSError, WebSocketException):
                end = RESTARTED, "this part of the server is being started again"
            finally:
                link.backend = None
            if end is not None:
                return end

    @asynccontextmanager
    async def _connected(self, replica: Replica) -> AsyncIterator[ClientConnection]:
        """A connection to a replica, which is gone at the end also for a task that is cancelled while it closes."""
        backend = await connect(
            f"ws://127.0.0.1:{replica.port}/ws", compression=None, max_size=None, ping_interval=None, proxy=None,
            open_timeout=self.limits.hello_s,
        )  # fmt: skip
        try:
            yield backend
            await backend.close()
        finally:
            backend.transport.abort()

    async def _relay(
        self, link: _Link, backend: ClientConnection, reading: asyncio.Task[None]
    ) -> tuple[int, str] | None:
        """One replica's messages to the player; None when the player has to move to another one."""
        relaying = asyncio.create_task(self._write(link, backend))
        moving = asyncio.create_task(link.moved.wait())
        try:
            await asyncio.wait((relaying, moving, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return 1000, ""
            return relaying.result() if relaying.done() else None
        finally:
            for task in (relaying, moving):
                task.cancel()
            await asyncio.wait((relaying, moving))

    async def _read(self, link: _Link) -> None:
        """The player's messages to the replica, until the player has gone."""
        while True:
            event = await link.socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            text = event.get("text")
            message = event.get("bytes") if text is None else text
            if link.hello is None and text is not None:
                link.hello = text
                if link.backend is None:  # it is sent when the replica answers
                    continue
            while link.backend is None:
                await asyncio.sleep(POLL_S / 10)
            with suppress(ConnectionClosed):  # the other direction ends with it
                await link.backend.send(message or "")

    async def _write(self, link: _Link, backend: ClientConnection) -> tuple[int, str]:
        try:
            async for message in backend:
                if isinstance(message, bytes):
                    await link.socket.send_bytes(message)
                    continue
                if not link.is_seated and json.loads(message).get("type") == "welcome":
                    link.is_seated = link.visit.has_played = True
                await link.socket.send_text(message)
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                return RESTARTED, "this part of the server was lost"
        except (WebSocketDisconnect, RuntimeError, OSError):
            return 1000, ""
        code = backend.close_code
        return (RESTARTED if code in (None, *_NOT_SENT) else code), backend.close_reason or ""


def create_front(front: Front, access: Access, keep: Callable[[], Any] | None = None) -> FastAPI:
    """The app that visitors reach.  keep: an async context manager that runs as long as the app."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.nullcontext() if keep is None else keep():
            yield

    app = FastAPI(
        title="Reverie", version=__version__, lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.add_middleware(Gate, access=access)

    @app.websocket("/ws")
    async def play(websocket: WebSocket) -> None:
        try:
            name, visit = front.visit(websocket.cookies.get(_cookie(websocket)))
        except Refusal as refusal:
            await websocket.accept()
            await websocket.close(RESTARTED, close_reason(str(refusal)))
            return
        cookie = f"{_cookie(websocket)}={name}; Path=/; HttpOnly; SameSite=Lax"
        await websocket.accept(headers=[(b"set-cookie", cookie.encode())])
        await front.play(websocket, visit)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> Response:
        states = await asyncio.gather(*(_health(replica) for replica in front.replicas))
        best = min(states, key=lambda state: ["ready", "warming", "failed"].index(state["status"]))
        body = {**best, **{name: sum(state.get(name, 0) for state in states) for name in ("players", "waiting")}}
        body |= {"version": __version__, "replicas": states}
        return JSONResponse(body, 200 if best["status"] == "ready" else 503, headers=FRESH)

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "DELETE"])
    async def other(request: Request, path: str) -> Response:
        visitor = request.cookies.get(_cookie(request))
        name = None
        try:
            if path:
                replica = front.any_replica(visitor)
            else:
                name, visit = front.visit(visitor)
                replica = visit.replica
            kind = "session" if path == "saves" else "picture"
            body = await read_body(request, front.limits, kind) if request.method == "POST" else None
            response = await asyncio.to_thread(_fetch, replica, request, body)
        except ImageError as error:
            return error_answer(400, ErrorCode.BAD_PICTURE, str(error))
        except Refusal as refusal:
            return error_answer(STATUS.get(refusal.code, 503), refusal.code, str(refusal))
        except ClientDisconnect:
            return Response(status_code=400)
        except (OSError, http.client.HTTPException):
            return error_answer(503, ErrorCode.UNAVAILABLE, "this part of the server is being started again")
        if name is not None and name != visitor:
            response.set_cookie(_cookie(request), name, httponly=True, samesite="lax")
        return response

    return app


def _cookie(connection: HTTPConnection) -> str:
    """The cookie's name, one for each port: browsers share cookies among the ports of a host."""
    return f"reverie-visitor-{connection.url.port or 80}"


def _fetch(replica: Replica, request: Request, body: bytes | None) -> Response:
    """A replica's answer to a request."""
    headers = {name: request.headers[name] for name in _TO_REPLICA if name in request.headers}
    query = request.scope.get("query_string", b"").decode("latin-1")
    path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
    status, given, content = _ask(replica, request.method, path + ("?" + query if query else ""), headers, body)
    response = Response(content, status)
    for name, value in given:
        if name.lower() not in _NOT_FROM_REPLICA:
            response.headers[name] = value
    return response


def _ask(
    replica: Replica, method: str, target: str, headers: dict[str, str], body: bytes | None, wait_s: float = FETCH_S
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=wait_s)
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


async def _health(replica: Replica) -> dict[str, Any]:
    starting = {"number": replica.number, "status": "warming", "progress": 0.0, "message": "being started"}
    if replica.port is None:
        return starting
    try:
        _, _, content = await asyncio.to_thread(_ask, replica, "GET", "/health", {}, None, 10.0)
        return {"number": replica.number, **json.loads(content)}
    except (OSError, http.client.HTTPException, ValueError):
        return starting


# ---------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """Settings of each replica."""

    source: Callable[[], Source]
    """Makes the source, in the replica's process."""
    limits: Limits
    """Limits of one replica."""
    saves: Path
    """The folder that all share."""
    num_replicas: int
    """Number of processes."""


class Keeper:
    """Runs a process for each replica, and another one in place of one that has ended.

    on_failure: called when a replica's model cannot be loaded, or it ends again and again before it listens.
    """

    def __init__(self, front: Front, config: ReplicaConfig, on_failure: Callable[[Exception], None]) -> None:
        self._front, self._config, self._on_failure = front, config, on_failure
        self._context = multiprocessing.get_context("spawn")
        self.processes: dict[int, BaseProcess] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Replicas, started at the beginning and ended at the end."""
        tasks = [asyncio.create_task(self._keep(replica)) for replica in self._front.replicas]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for process in self.processes.values():
                process.terminate()
            await asyncio.to_thread(self._join)

    def _join(self) -> None:
        end_s = time.monotonic() + 5.0
        for process in self.processes.values():
            process.join(max(0.0, end_s - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    async def _keep(self, replica: Replica) -> None:
        early_ends = 0
        while True:
            pipe, theirs = self._context.Pipe()
            process = self._context.Process(
                target=run_replica, args=(self._config, theirs), name=f"reverie-replica-{replica.number}", daemon=True
            )
            process.start()
            theirs.close()
            self.processes[replica.number] = process
            failure = await self._watch(replica, process, pipe)
            listened, replica.port = replica.port is not None, None
            pipe.close()
            early_ends = 0 if listened else early_ends + 1
            if failure is not None or early_ends == MAX_EARLY_ENDS:
                self._on_failure(ServeError(failure or f"replica {replica.number} ends before it listens; see its log"))
                return
            log.warning("replica %d has ended; another one takes its place", replica.number)

    async def _watch(self, replica: Replica, process: BaseProcess, pipe: Connection) -> str | None:
        """Notes the replica's port, and waits until it ends; returns the reason, where it gives one."""
        while True:
            is_alive = process.is_alive()
            while pipe.poll():
                try:
                    told = pipe.recv()
                except (EOFError, OSError):
                    break
                if isinstance(told, str):
                    return told
                replica.port = told
                self._front.fill(replica)
            if not is_alive:
                return None
            await asyncio.sleep(POLL_S)


def run_replica(config: ReplicaConfig, pipe: Connection) -> None:
    """Serves in this process, until it is ended or the front has gone.

    The front is sent the port, or in one line why nothing can be served.
    """
    from reverie.serve.app import serve

    Thread(target=_end_with, args=(pipe,), daemon=True).start()
    try:
        serve(
            config.source(),
            port=0,
            limits=config.limits,
            token="none",
            saves=SaveFolder(config.saves),
            announce=lambda address, _: pipe.send(int(address.rpartition(":")[2])),
        )
    except KeyboardInterrupt:
        return
    except ReverieError as error:
        pipe.send(" ".join(str(error).split()))


def _end_with(pipe: Connection) -> None:
    """Ends this process when the other end of the pipe has gone: a front that was killed leaves no replicas behind."""
    with suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)


def serve_replicas(
    config: ReplicaConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    announce: Callable[[str, str | None], None] | None = None,
    token: str = "auto",
    allow_hosts: Sequence[str] = (),
) -> None:
    """Runs a server with `config.num_replicas` processes, see `serve.app.serve`.  Raises ServeError for a number below
    1 or too large, and the error that a replica's model ends with."""
    from reverie.serve.app import run_app

    if not 1 <= config.num_replicas <= MAX_REPLICAS:
        raise ServeError(f"--replicas is 1 to {MAX_REPLICAS}, got {config.num_replicas}")
    access = access_for(host, token, allow_hosts)
    # For the replicas, which share the cores; this process computes nothing.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // config.num_replicas)))

    def app(stop: Callable[[Exception], None]) -> FastAPI:
        front = Front([Replica(number) for number in range(config.num_replicas)], config.limits)
        return create_front(front, access, partial(Keeper(front, config, stop).running))

    run_app(app, access, host=host, port=port, announce=announce)
