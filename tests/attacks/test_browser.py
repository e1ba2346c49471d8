"""Attacks and accidents in a real browser: other web sites, names pointed at us, lost connections, full servers."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.helpers.browser import chromium, needs_browser, playwright
from tests.helpers.fake_source import FakeSource, running

from reverie.serve.access import Access
from reverie.serve.host import Limits
from reverie.serve.protocol import VERSION

pytestmark = needs_browser
FLAGS = ["--no-sandbox", "--disable-gpu", "--mute-audio", "--host-resolver-rules=MAP evil.example 127.0.0.1"]

CONNECT = """async ([url, version]) => {
  const ws = new WebSocket(url);
  ws.binaryType = "arraybuffer";
  let frames = 0;
  ws.onmessage = (event) => {
    if (typeof event.data !== "string") return frames++;
    const { type } = JSON.parse(event.data);
    if (type === "welcome") ws.send(JSON.stringify({ type: "start", start: null, seed: 1 }));
  };
  ws.onopen = () => ws.send(JSON.stringify({ type: "hello", version, format: "jpeg" }));
  await new Promise((resolve) => { ws.onclose = resolve; setTimeout(resolve, 3000); });
  return frames;
}"""
FETCHES = """async (base) => {
  const tried = {};
  const attempt = async (name, what) => { try { tried[name] = await what(); } catch { tried[name] = "refused"; } };
  await attempt("read", async () => (await fetch(base + "starts")).status);
  await attempt("upload", async () => (await fetch(base + "upload", { method: "POST", body: "x" })).status);
  await attempt("blind upload", async () =>
    (await fetch(base + "upload", { method: "POST", body: new Blob(["x"]), mode: "no-cors" })).type);
  await attempt("image", () => new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve("loaded");
    image.onerror = () => resolve("refused");
    image.src = base + "starts/start-0.jpg";
  }));
  await attempt("script", () => new Promise((resolve) => {
    const script = document.createElement("script");
    script.onload = () => resolve("loaded");
    script.onerror = () => resolve("refused");
    script.src = base + "static/main.js";
    document.head.append(script);
  }));
  return tried;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with chromium(FLAGS) as browser:
        yield browser


@pytest.fixture
def open_page(browser: playwright.Browser) -> Iterator[Callable[[], playwright.Page]]:
    """Pages of browsers that share nothing."""
    contexts = []

    def open_one() -> playwright.Page:
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 640}))
        return contexts[-1].new_page()

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def other_site() -> Iterator[int]:
    """Another web server on this machine; its port."""

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>another site")

        def log_message(self, format: str, *args: object) -> None:
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    yield site.server_address[1]
    site.shutdown()
    site.server_close()
    thread.join(10)


def wait(page: playwright.Page, state: str) -> None:
    page.wait_for_selector(f"body[data-state={state}]", timeout=60_000)


def test_another_site_gets_nothing(open_page: Callable[[], playwright.Page], other_site: int):
    source = FakeSource()
    with running(source, Limits(max_players=1)) as port:
        for name in ("localhost", "127.0.0.1"):
            page = open_page()
            page.goto(f"http://{name}:{other_site}/")
            assert page.evaluate(CONNECT, [f"ws://127.0.0.1:{port}/ws", VERSION]) == 0
            tried = page.evaluate(FETCHES, f"http://127.0.0.1:{port}/")
            assert {tried[name] for name in ("read", "upload", "image", "script")} == {"refused"}
            page.set_content(f'<iframe src="http://127.0.0.1:{port}/"></iframe>')
            page.wait_for_timeout(500)
            assert all(frame.query_selector("#screen") is None for frame in page.frames)
        assert source.worlds == []
        own = open_page()
        own.goto(f"http://127.0.0.1:{port}/")
        wait(own, "playing")
        assert len(own.query_selector_all("button.tile[data-id]")) == 2  # nothing was uploaded
        own.close()


def test_a_name_that_was_pointed_at_us_gets_nothing(open_page: Callable[[], playwright.Page]):
    """DNS rebinding: for the browser the foreign page and our server are one site."""
    source = FakeSource()
    with running(source) as port:
        page = open_page()
        answer = page.goto(f"http://evil.example:{port}/")
        assert answer is not None
        assert answer.status == 403
        assert page.evaluate(CONNECT, [f"ws://evil.example:{port}/ws", VERSION]) == 0
        assert page.evaluate(FETCHES, f"http://evil.example:{port}/")["read"] in (403, "refused")
        assert source.worlds == []
        page.close()


def test_the_link_with_the_token_opens_the_page(open_page: Callable[[], playwright.Page], other_site: int):
    with running(FakeSource(), access=Access(token="a-token-of-some-length")) as port:
        stranger = open_page()
        stranger.goto(f"http://127.0.0.1:{port}/")
        assert "?token=" in stranger.inner_text("body")
        guest = open_page()
        guest.goto(f"http://127.0.0.1:{other_site}/")
        guest.evaluate("(url) => { location.href = url; }", f"http://127.0.0.1:{port}/?token=a-token-of-some-length")
        wait(guest, "playing")
        assert guest.url == f"http://127.0.0.1:{port}/"
        guest.reload()
        wait(guest, "playing")
        guest.close()
        stranger.close()


def test_the_page_obeys_its_own_policy(open_page: Callable[[], playwright.Page]):
    problems: list[str] = []
    with running(FakeSource()) as port:
        page = open_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        wait(page, "playing")
        page.keyboard.press("KeyP")
        wait(page, "paused")
        page.close()
    assert problems == []


def test_a_full_server_queues(open_page: Callable[[], playwright.Page]):
    with running(FakeSource(), Limits(max_players=1, max_waiting=1)) as port:
        address = f"http://127.0.0.1:{port}/"
        first, second, third = open_page(), open_page(), open_page()
        first.goto(address)
        wait(first, "playing")
        second.goto(address)
        wait(second, "waiting")
        assert "next" in second.inner_text("#veil-text")
        third.goto(address)
        wait(third, "lost")
        first.close()
        wait(second, "playing")
        wait(third, "waiting")  # it asked again by itself
        second.close()
        wait(third, "playing")
        third.close()


class Cable:
    """A TCP relay that can go dead: bytes no longer pass and nobody is told, as when a laptop slept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._dead: set[int] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def go_dead(self) -> None:
        """All connections of now; new ones pass."""
        self._dead |= {id(one) for one in self._sockets}

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if id(source) not in self._dead:
                    target.sendall(data)
            if id(source) not in self._dead:
                target.shutdown(socket.SHUT_WR)


def test_a_dead_connection_is_noticed_on_both_sides(open_page: Callable[[], playwright.Page]):
    """The place is free again, and the page plays on by itself."""
    source = FakeSource()
    with running(source, Limits(max_players=1)) as port, contextlib.closing(Cable(port)) as cable:
        page = open_page()
        page.goto(f"http://127.0.0.1:{cable.port}/")
        wait(page, "playing")
        cable.go_dead()
        page.wait_for_selector("#message.shown", timeout=60_000)
        assert "not answered" in page.inner_text("#message")
        wait(page, "lost")
        wait(page, "playing")
        assert len(source.worlds) == 2
        assert source.worlds[0].is_closed
        page.close()


def test_a_pause_does_not_count_as_latency(open_page: Callable[[], playwright.Page]):
    with running(FakeSource()) as port:
        page = open_page()
        page.goto(f"http://127.0.0.1:{port}/")
        wait(page, "playing")
        page.keyboard.down("KeyW")
        page.keyboard.press("KeyP")
        wait(page, "paused")
        time.sleep(4)
        page.keyboard.press("KeyP")
        wait(page, "playing")
        page.keyboard.up("KeyW")
        for _ in range(5):
            page.keyboard.press("KeyA", delay=60)
        end = time.monotonic() + 60
        while not page.inner_text("#latency").isdigit():
            assert time.monotonic() < end, "waited 60 s for the latency"
            time.sleep(0.05)
        latencies = []
        for _ in range(10):
            latencies.append(int(page.inner_text("#latency")))
            time.sleep(0.1)
        assert max(latencies) < 4000
        page.close()
