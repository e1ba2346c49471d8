"""The play server: the page, its images, and a WebSocket that plays.

GET  /                the page
GET  /health          {"status": "warming" | "ready" | "failed", "progress", "message", "model", "kind", ...};
                      200 when ready, else 503
GET  /starts          the start images: [{"id", "name", "thumbnail"}]
GET  /starts/ID.jpg   one of them
POST /upload          the body is an image file; answers `uploaded` or `error` of `serve.protocol`
/saves                see `serve.save_routes`
WS   /ws              see `serve.protocol`

Who may ask is decided in `serve.access`; how long one connection may take, in `serve.transport`.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

from reverie import __version__
from reverie.errors import ImageError, ServeError
from reverie.serve.access import Access, Gate, access_for, with_token
from reverie.serve.answers import FRESH, STATUS, error_answer, read_body
from reverie.serve.host import Host, Limits, describe
from reverie.serve.player import Player
from reverie.serve.protocol import MAX_MESSAGE_BYTES, ErrorCode, Refusal, Uploaded, to_json
from reverie.serve.save_routes import add_saves
from reverie.serve.saves import SaveFolder
from reverie.serve.shelf import Shelf
from reverie.serve.sources import Source
from reverie.serve.transport import BoundedWebSocket, TimedHttp

STATIC = Path(__file__).parent / "static"

MAX_NAME = 60
MAX_HEAD_BYTES = 32 * 1024
"""The largest head of a request."""
WS_PING_S, WS_PONG_S = 4.0, 12.0
"""Seconds between pings of a client, and seconds until its answer is overdue; browsers answer by themselves."""
_READ = ["GET", "HEAD"]


def create_app(
    source: Source | Mapping[str, Source],
    limits: Limits | None = None,
    *,
    access: Access | None = None,
    saves: SaveFolder | None = None,
    on_failure: Callable[[Exception], None] | None = None,
    on_ready: Callable[[], None] | None = None,
) -> FastAPI:
    """The server of `source`.  The warm-up begins with the app; at its end `on_ready` or `on_failure` is called.

    source: several by their ids, of which the first is loaded, and the others when they are chosen.  access: who is let
    in; by default clients of this machine that ask for it by a loopback name.  saves: where sessions are saved; by
    default a folder that ends with the app.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        shelf = Shelf(source if isinstance(source, Mapping) else {"": source}, limits, saves)
        app.state.shelf, app.state.host = shelf, shelf.first
        shelf.first.is_loading = True
        warm_up = asyncio.create_task(_warm_up(shelf.first, on_failure, on_ready))
        try:
            yield
        finally:
            warm_up.cancel()
            with suppress(asyncio.CancelledError):
                await warm_up
            await shelf.close()

    app = FastAPI(
        title="Reverie", version=__version__, lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.add_middleware(Gate, access=access or Access())
    _add_page(app)
    _add_pictures(app)
    add_saves(app)

    @app.websocket("/ws")
    async def play(websocket: WebSocket) -> None:
        await Player(websocket, app.state.host, shelf=app.state.shelf).run()

    return app


async def _warm_up(
    host: Host, on_failure: Callable[[Exception], None] | None, on_ready: Callable[[], None] | None
) -> None:
    await host.warm_up()
    if host.failure is not None and on_failure is not None:
        on_failure(host.failure)
    if host.failure is None and on_ready is not None:
        on_ready()


def freeze_memory() -> None:
    """Leave everything that is loaded by now to itself: the garbage collector need not look through it again.

    A full collection otherwise goes through all modules and the model while the event loop waits, 50 ms and more.
    For a process that serves and does nothing else.
    """
    gc.collect()
    gc.freeze()


def _add_page(app: FastAPI) -> None:
    @app.api_route("/", methods=_READ)
    async def index() -> Response:
        return FileResponse(STATIC / "index.html", headers=FRESH)

    @app.api_route("/health", methods=_READ)
    async def health() -> Response:
        host: Host = app.state.host
        body = {
            **asdict(host.status),
            "model": host.name,
            "kind": host.spec.kind if host.spec else None,
            "players": host.num_players,
            "waiting": host.seats.num_waiting,
            "version": __version__,
        }
        return JSONResponse(body, 200 if host.status.status == "ready" else 503, headers=FRESH)

    app.mount("/static", _FreshFiles(directory=STATIC), name="static")


class _FreshFiles(StaticFiles):
    """The page's files; browsers ask each time whether they have changed, so an update is never half an update."""

    async def get_response(self, path: str, scope) -> Response:  # type: ignore[override]
        response = await super().get_response(path, scope)
        response.headers.update(FRESH)
        return response


def _add_pictures(app: FastAPI) -> None:
    @app.api_route("/starts", methods=_READ)
    async def starts(model: str | None = None) -> Response:
        host: Host = app.state.shelf.pick(model)
        if host.spec is None:
            return error_answer(503, ErrorCode.UNAVAILABLE, host.status.message)
        return JSONResponse([asdict(describe(start, host.key)) for start in host.spec.starts])

    @app.api_route("/starts/{start_id}.jpg", methods=_READ)
    async def thumbnail(start_id: str, model: str | None = None) -> Response:
        host: Host = app.state.shelf.pick(model)
        start = host.start(start_id)
        if start is None:
            return error_answer(404, ErrorCode.UNKNOWN_START, "there is no such start picture")
        encoded = await host.thumbnail(start)
        return Response(encoded, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.post("/upload")
    async def upload(request: Request, name: str = "your picture", model: str | None = None) -> Response:
        host: Host = app.state.shelf.pick(model)
        try:
            host.spec_for_uploads()
            async with host.upload_slot():
                data = await read_body(request, host.limits, "picture")
                start = await host.upload(data, name[:MAX_NAME])
        except ImageError as error:
            return error_answer(400, ErrorCode.BAD_PICTURE, str(error))
        except Refusal as refusal:
            return error_answer(STATUS.get(refusal.code, 409), refusal.code, str(refusal))
        except ClientDisconnect:
            return Response(status_code=400)
        return Response(to_json(Uploaded(start)), media_type="application/json")


# ------------------------------------------------------------------------------------------------------- running


def bind(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: any free one).  Raises ServeError, in one line, if that cannot be."""
    if not 0 <= port <= 65535:
        raise ServeError(f"a port is a number from 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise ServeError(
            f"there is no host {host!r}; use 127.0.0.1 for this machine, 0.0.0.0 for all networks"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServeError(_bind_problem(error, host, port)) from None
    return listener


def _bind_problem(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program; stop it, or choose another with --port {port + 1}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} is reserved for the system; choose one above 1023, such as --port 8000"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; use --host 127.0.0.1 or 0.0.0.0"
    return f"cannot listen on {host} port {port}: {error.strerror or error}; choose another --host or --port"


def serve(
    source: Source | Mapping[str, Source],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    announce: Callable[[str, str | None], None] | None = None,
    token: str = "auto",
    allow_hosts: Sequence[str] = (),
    saves: SaveFolder | None = None,
) -> None:
    """Serve `source` until Ctrl-C.  token and allow_hosts: see `serve.access.access_for`; saves: see `create_app`.

    `announce` gets the page's address once it can be opened, and the one for other machines where they are let in.
    Raises ServeError if it cannot listen, and the source's own error if the warm-up fails.
    """
    access = access_for(host, token, allow_hosts)

    def app(stop: Callable[[Exception], None]) -> FastAPI:
        return create_app(source, limits, access=access, saves=saves, on_failure=stop, on_ready=freeze_memory)

    run_app(app, access, host=host, port=port, announce=announce)


def run_app(
    make_app: Callable[[Callable[[Exception], None]], FastAPI],
    access: Access,
    *,
    host: str,
    port: int,
    announce: Callable[[str, str | None], None] | None = None,
) -> None:
    """Runs an app as `serve` does.  make_app: gets what ends the server with an error."""
    listener = bind(host, port)
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    server = _Server(server_config(make_app(stop)))
    with listener:
        if announce is not None:
            port = listener.getsockname()[1]
            outside = network_address(host, port)
            announce(
                with_token(page_address(host, port), access), None if outside is None else with_token(outside, access)
            )
        server.run(sockets=[listener])
    if failures:
        raise failures[0]
    if server.is_interrupted:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """Ends quietly: uvicorn's own sends itself the signal again inside its loop, which at times prints a traceback."""

    is_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT  # asked twice
        self.should_exit = self.is_interrupted = True


def server_config(app: FastAPI) -> uvicorn.Config:
    """Builds uvicorn's config: quiet, with small messages only (larger ones end the connection), quick to stop.

    No compression: frames are JPEGs, and each compressed connection holds memory of its own.
    """
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        http=TimedHttp,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws=BoundedWebSocket,
        ws_max_size=4 * MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=WS_PING_S,
        ws_ping_timeout=WS_PONG_S,
        timeout_graceful_shutdown=2,
    )


def page_address(host: str, port: int) -> str:
    """Builds the page's URL for a browser on this machine."""
    if host in ("0.0.0.0", "::", ""):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def network_address(host: str, port: int) -> str | None:
    """Builds the page's URL for a browser on another machine; None if only this machine can reach it, or it is
    unknown."""
    if host not in ("0.0.0.0", "::", ""):
        return None
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the address that would be used
        return page_address(probe.getsockname()[0], port)
    return None
