"""The exported page in headless Chromium: WebAssembly, from a plain file server under a sub-path."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.browser import PIXELS, chromium, needs_browser, playwright

from reverie.engine.engine import Engine
from reverie.types import Action

pytestmark = needs_browser

FLAGS = ["--no-sandbox", "--disable-background-networking", "--mute-audio"]
WEBGPU = ["--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"]
NUM_BLOCKS = 20
GPU_BLOCKS = 4
MAX_ERROR = 0.1
"""Mean difference of a block's frames, in levels of 255; 0.000 to 0.001 was seen."""
MAX_SCENE_ERROR = 1.0
"""In a scene, 0.4 was seen: a pixel on the border of two surfaces shows the detail of one here, of the other there."""
SEED = 7
RECORD_PROGRESS = """addEventListener("DOMContentLoaded", () => {
  window.progress = [];
  const [bar, text] = ["progress", "veil-text"].map((id) => document.getElementById(id));
  const note = () => window.progress.push([bar.hidden ? null : Number(bar.ariaValueNow), text.textContent]);
  new MutationObserver(note).observe(bar, { attributes: true });
});"""

PLAY = """async ({ start, place, noise, rows, backend }) => {
  const at = (path) => String(new URL(path, location.href));
  const numbers = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const worker = new Worker(at("player/worker.js"), { type: "module" });
  const frames = [];
  let settle = null;
  const ask = (message) => new Promise((resolve, reject) => {
    settle = { resolve, reject };
    worker.postMessage(message);
  });
  worker.onerror = (event) => settle.reject(new Error(event.message));
  worker.onmessage = ({ data }) => {
    if (data.frames) frames.push(...data.frames);
    if (data.type === "failed") settle.reject(new Error(data.text));
    if (["ready", "opened", "stepped"].includes(data.type)) settle.resolve(data);
  };
  const { problem } = await ask({ type: "load", base: at("model/"), runtime: at("runtime/"), backend, threads: 1 });
  if (problem) throw new Error(problem);
  const scene = place && { folder: at(`${place.scene}/`), pose: place.pose };
  await ask({ type: "start", id: 1, image: at(`starts/${start}.png`), scene, seed: 0, noise: numbers(noise) });
  for (const row of rows) await ask({ type: "step", id: 1, rows: Float32Array.from(row), action: 0 });
  worker.terminate();
  return frames.map((frame) => btoa(String.fromCharCode(...frame)));
}"""


@dataclass(slots=True)
class Site:
    """Offers folders, as `python -m http.server` does."""

    server: http.server.ThreadingHTTPServer

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/games/dreams"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(page: Path, tmp_path: Path) -> Iterator[Site]:
    """The page two folders down."""
    (tmp_path / "games").mkdir()
    (tmp_path / "games" / "dreams").symlink_to(page, target_is_directory=True)
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(server)
    server.shutdown()
    server.server_close()


@contextmanager
def opened(*flags: str) -> Iterator[playwright.Page]:
    """A fresh browser's page; whatever goes wrong inside it, or leaves this machine, fails the test."""
    problems: list[str] = []
    with chromium([*FLAGS, *flags]) as browser:
        tab = browser.new_page(viewport={"width": 1000, "height": 640})
        tab.set_default_timeout(120_000)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: problems.append(request.url) if "//127.0.0.1:" not in request.url else None)
        yield tab
    assert [problem for problem in problems if not problem.startswith(("data:", "blob:"))] == []


@pytest.fixture
def tab() -> Iterator[playwright.Page]:
    """A browser without a GPU."""
    with opened("--disable-gpu") as tab:
        yield tab


@pytest.fixture
def webgpu_tab(site: Site) -> Iterator[playwright.Page]:
    """A browser with an emulated GPU; skips where it has none."""
    with opened(*WEBGPU) as tab:
        tab.goto(f"{site.address}/model/model.json")
        if not tab.evaluate("navigator.gpu?.requestAdapter().then((found) => found !== null, () => false) ?? false"):
            pytest.skip("this Chromium emulates no GPU for WebGPU")
        yield tab


def actions(engine: Engine) -> list[Action]:
    keys = [frozenset({"forward"}), frozenset({"forward", "left"}), frozenset[str]()]
    turns = [(0.0, 3.0), (0.5, -2.0), (0.0, 0.0), (-0.5, 2.0)]
    return [Action(keys[i % 3], turns[i % 4]) for i in range(NUM_BLOCKS)]


def noise(engine: Engine) -> str:
    """All noise that a session with `SEED` draws, as the page takes it."""
    generator = torch.Generator().manual_seed(SEED)
    draws = 1 + NUM_BLOCKS * engine.bundle.config.schedule.num_draws
    latent = engine.bundle.config.world.latent
    drawn = [torch.randn(1, 1, *latent, generator=generator).numpy() for _ in range(draws)]
    return base64.b64encode(np.concatenate(drawn).astype("<f4").tobytes()).decode()


def played(
    tab: playwright.Page, site: Site, engine: Engine, number: int, blocks: int = NUM_BLOCKS, backend: str = "wasm"
) -> np.ndarray:
    """Frames (1 + 4 blocks, H, W, 3) of the start with this number, played by the page's worker."""
    tab.goto(f"{site.address}/model/model.json")
    model = tab.evaluate("async (address) => (await fetch(address)).json()", f"{site.address}/model/model.json")
    tab.route("**/blank", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    tab.goto(f"{site.address}/blank")
    start = model["welcome"]["starts"][number]["id"]
    rows = [engine.action_space.encode([action] * 4).flatten().tolist() for action in actions(engine)[:blocks]]
    place = model["places"].get(start)
    given = {"start": start, "place": place, "noise": noise(engine), "rows": rows, "backend": backend}
    frames = [np.frombuffer(base64.b64decode(text), np.uint8) for text in tab.evaluate(PLAY, given)]
    return np.stack(frames).reshape(-1, *engine.resolution, 3)


def block_errors(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Mean differences of the start and of each block, in levels of 255."""
    error = np.abs(got.astype(float) - wanted.astype(float)).mean((1, 2, 3))
    return np.concatenate([error[:1], error[1:].reshape(-1, 4).mean(1)])


def test_twenty_blocks_equal_the_engines(tab: playwright.Page, site: Site, engine: Engine) -> None:
    image = engine.start_frames()[0].file
    session = engine.open(image, seed=SEED)
    wanted = np.concatenate([session.first_frame, *(session.step(action) for action in actions(engine))])
    got = played(tab, site, engine, number=1)
    errors = block_errors(got, wanted)
    assert np.abs(np.diff(wanted.astype(float), axis=0)).mean() > 1, "the world moves"
    assert errors.max() < MAX_ERROR


def test_a_scene_is_shown_as_the_engine_shows_it(tab: playwright.Page, site: Site, engine: Engine, yard: Path) -> None:
    session = engine.open(scene=yard, start=0, seed=SEED)
    wanted = np.concatenate([session.first_frame, *(session.step(action) for action in actions(engine))])
    errors = block_errors(played(tab, site, engine, number=0), wanted)
    assert errors.max() < MAX_SCENE_ERROR


@pytest.mark.slow  # an emulated GPU takes minutes
def test_on_webgpu_it_shows_what_the_engine_shows(webgpu_tab: playwright.Page, site: Site, engine: Engine) -> None:
    session = engine.open(engine.start_frames()[0].file, seed=SEED)
    blocks = actions(engine)[:GPU_BLOCKS]
    wanted = np.concatenate([session.first_frame, *(session.step(action) for action in blocks)])
    errors = block_errors(played(webgpu_tab, site, engine, 1, GPU_BLOCKS, "webgpu"), wanted)
    assert errors.max() < MAX_ERROR


def test_where_webgpu_fails_it_says_so_and_plays_in_webassembly(tab: playwright.Page, site: Site) -> None:
    tab.goto(f"{site.address}/?backend=webgpu")
    tab.wait_for_selector("body[data-state=playing]")
    assert tab.get_attribute("body", "data-backend") == "wasm"
    told = tab.text_content("#message")
    assert told == "WebGPU failed, so it plays in WebAssembly: this browser offers no GPU"


def test_the_page_plays_under_a_sub_path_with_threads_and_offline(tab: playwright.Page, site: Site) -> None:
    tab.add_init_script(RECORD_PROGRESS)
    tab.goto(f"{site.address}/?backend=wasm&threads=2")
    tab.wait_for_selector("body[data-state=playing]")
    assert tab.evaluate("crossOriginIsolated"), "the service worker isolates the page"
    assert tab.get_attribute("body", "data-threads") == "2"
    told = [(share, text) for share, text in tab.evaluate("window.progress") if "MiB" in text]
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert any(0 < share < 100 for share in shares)
    assert tab.inner_text("#model") == "tiny"
    assert not tab.is_visible("#keep"), "there is nobody to save a session"
    tab.keyboard.down("KeyW")
    tab.wait_for_selector("kbd[data-code=KeyW].held")
    before = tab.evaluate(PIXELS)
    tab.wait_for_function(f"(before) => {PIXELS} !== before", arg=before)
    tab.keyboard.up("KeyW")
    tab.keyboard.press("KeyP")
    tab.wait_for_selector("body[data-state=paused]")
    site.server.shutdown()
    site.server.server_close()
    tab.reload()
    tab.wait_for_selector("body[data-state=playing]")
    before = tab.evaluate(PIXELS)
    tab.wait_for_function(f"(before) => {PIXELS} !== before", arg=before)


def test_without_a_service_worker_an_own_image_opens_a_world_and_nonsense_is_told(
    tab: playwright.Page, site: Site, page: Path
) -> None:
    tab.context.route("**/sw.js", lambda route: route.fulfill(status=404, body=""))
    tab.goto(f"{site.address}/?backend=wasm&threads=2")
    tab.wait_for_selector("body[data-state=playing]")
    assert not tab.evaluate("crossOriginIsolated"), "there is no service worker"
    assert tab.get_attribute("body", "data-threads") == "1"
    image = next((page / "starts").glob("start-*.png")).read_bytes()
    tab.set_input_files("#file", {"name": "garden.png", "mimeType": "image/png", "buffer": image})
    tab.wait_for_selector(".tile[aria-pressed=true][title='garden']")
    tab.wait_for_selector("body[data-state=playing]")
    tab.set_input_files("#file", {"name": "notes.png", "mimeType": "image/png", "buffer": b"no image"})
    tab.wait_for_selector("#message.shown")
    assert "cannot be read" in tab.inner_text("#message")
    assert tab.get_attribute("body", "data-state") == "playing", "what is played goes on"
    assert tab.query_selector(".tile[title='notes']") is None


def test_too_little_memory_is_one_line(tab: playwright.Page, site: Site) -> None:
    told = "WebAssembly.Memory(): could not allocate memory"
    raising = f"export const env = {{ get wasm() {{ throw new RangeError('{told}'); }} }};"
    tab.route("**/ort.wasm.bundle.min.mjs", lambda route: route.fulfill(body=raising, content_type="text/javascript"))
    tab.context.route("**/sw.js", lambda route: route.fulfill(status=404, body=""))
    tab.goto(f"{site.address}/?backend=wasm")
    tab.wait_for_selector("body[data-state=failed]")
    assert f"this browser has too little memory for the model ({told})" in tab.inner_text("#veil-text")


def test_a_missing_graph_is_one_line(tab: playwright.Page, site: Site) -> None:
    tab.route("**/pass.onnx.gz", lambda route: route.fulfill(status=404, body=""))
    tab.context.route("**/sw.js", lambda route: route.fulfill(status=404, body=""))
    tab.goto(f"{site.address}/?backend=wasm")
    tab.wait_for_selector("body[data-state=failed]")
    assert "pass.onnx.gz cannot be fetched (404)" in tab.inner_text("#veil-text")
    assert tab.inner_text("#veil-title") == "It did not start"
