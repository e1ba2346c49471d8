"""The page in a real browser, against a real server: a quick fake dream, and the bundled model where it is there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.browser import MEAN_COLOUR, a_picture, moves, needs_browser, playwright, until, upload
from tests.helpers.fake_source import FakeSource, running

import reverie
from reverie.serve.sources import ModelSource

pytestmark = needs_browser

NANO = Path(reverie.__file__).parent / "weights" / "nano" / "config.json"
GOLDEN = Path(__file__).parents[1] / "serve" / "golden.json"


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def playing(page: playwright.Page, source: FakeSource) -> Iterator[playwright.Page]:
    """The page with the fake dream running."""
    with running(source) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        yield page
        page.close()


def brightness(page: playwright.Page) -> float:
    return sum(page.evaluate(MEAN_COLOUR))


def message(page: playwright.Page) -> str:
    page.wait_for_selector("#message.shown")
    return page.inner_text("#message")


def test_walking_and_turning(playing: playwright.Page, source: FakeSource):
    still = brightness(playing)
    playing.keyboard.down("KeyW")
    playing.wait_for_selector("kbd[data-code=KeyW].held")
    until(lambda: brightness(playing) > still + 6, "the picture to brighten while W is held")
    playing.keyboard.up("KeyW")
    playing.wait_for_selector("kbd[data-code=KeyW]:not(.held)")

    playing.keyboard.down("ArrowRight")
    until(lambda: any(action.mouse[1] > 0 for action in source.actions), "the arrow to turn the camera")
    assert moves(playing, 20), "turning changes the picture"
    playing.keyboard.up("ArrowRight")
    assert {key for action in source.actions for key in action.keys} == {"forward"}

    until(lambda: playing.inner_text("#fps") != "–", "the FPS counter to move")
    assert 1 < float(playing.inner_text("#fps")) < 40
    until(lambda: playing.inner_text("#latency").isdigit(), "the latency")
    assert int(playing.inner_text("#latency")) > 0


def test_the_mouse_looks_around(playing: playwright.Page, source: FakeSource):
    playing.mouse.click(500, 300)
    playing.wait_for_selector("body.locked")
    for x in range(500, 700, 20):
        playing.mouse.move(x, 300)
    until(lambda: any(action.mouse[1] > 0 for action in source.actions), "the mouse to turn the camera")
    playing.keyboard.press("KeyP")
    playing.wait_for_selector("body[data-state=paused]:not(.locked)")


def test_a_thumb_walks_and_another_looks(playing: playwright.Page, source: FakeSource):
    playing.evaluate("""() => {
      const pads = document.getElementById("pads");
      const box = pads.getBoundingClientRect();
      const touch = (type, pointerId, x, y) => pads.dispatchEvent(new PointerEvent(type, {
        pointerId, pointerType: "touch", bubbles: true,
        clientX: box.left + x * box.width, clientY: box.top + y * box.height,
      }));
      touch("pointerdown", 1, 0.2, 0.6); touch("pointermove", 1, 0.2, 0.4);
      touch("pointerdown", 2, 0.8, 0.5); touch("pointermove", 2, 0.7, 0.5);
    }""")
    until(lambda: any(action.keys == {"forward"} for action in source.actions), "the left thumb to walk")
    until(lambda: any(action.mouse[1] < 0 for action in source.actions), "the right thumb to look")


def test_own_pictures(playing: playwright.Page, source: FakeSource):
    upload(playing, "attic.png", a_picture((30, 120, 60)))
    playing.wait_for_selector("button.tile[data-id^=own-][aria-pressed=true][title=attic]")
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: abs(playing.evaluate(MEAN_COLOUR)[1] - 120) < 9, "the world to begin in the picture")
    red, _, blue = playing.evaluate(MEAN_COLOUR)
    assert red < 60 < 90
    assert blue < 90
    assert source.worlds[0].is_closed


def test_a_broken_picture_gets_a_clear_message(playing: playwright.Page, source: FakeSource):
    upload(playing, "broken.png", b"this is no picture")
    assert "not a picture that can be read" in message(playing)
    assert playing.get_attribute("body", "data-state") == "playing"
    upload(playing, "dot.png", a_picture((1, 2, 3), size=(1, 1)))
    until(lambda: "1x1 pixels" in message(playing), "the next message")
    assert len(source.worlds) == 1


def test_choosing_restarting_and_pausing(playing: playwright.Page, source: FakeSource):
    playing.click("button.tile[data-id=start-1]")
    playing.wait_for_selector("button.tile[data-id=start-1][aria-pressed=true]")
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: len(source.worlds) == 2, "the second world")
    playing.keyboard.down("KeyW")
    until(lambda: source.worlds[1].light > 8, "some light")
    playing.keyboard.up("KeyW")
    playing.click("#restart")
    until(lambda: source.worlds[1].light < 8, "the world to begin again")

    playing.click("#pause")
    playing.wait_for_selector("body[data-state=paused]")
    until(lambda: not moves(playing, 0.5), "the picture to stand still")
    steps = len(source.actions)
    time.sleep(0.4)
    assert len(source.actions) <= steps + 1
    playing.keyboard.press("KeyP")
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: len(source.actions) > steps + 2, "the world to go on")


def test_the_warm_up_is_shown(page: playwright.Page):
    gate = threading.Event()
    with running(FakeSource(gate=gate)) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=warming]")
        until(lambda: page.inner_text("#veil-text") == "half awake", "the progress text")
        assert page.get_attribute("#progress", "aria-valuenow") == "50"
        gate.set()
        page.wait_for_selector("body[data-state=playing]")
        page.close()


def test_a_lost_server_is_told(page: playwright.Page):
    with running(FakeSource()) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
    page.wait_for_selector("body[data-state=lost]")
    page.close()


def test_a_world_that_breaks_off_can_be_restarted(page: playwright.Page):
    source = FakeSource(fail_at_step=3)
    with running(source) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=failed]")
        assert page.inner_text("#veil-text") == "the fake world broke off; restart it"
        source.fail_at_step = None
        page.keyboard.press("KeyR")
        page.wait_for_selector("body[data-state=playing]")
        page.close()


def test_the_page_reads_the_golden_frames(playing: playwright.Page):
    golden = json.loads(GOLDEN.read_text())
    frames = playing.evaluate(
        """async (all) => {
          const { decodeFrame } = await import("./static/protocol.js");
          const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
          return all.map(({ hex }) => decodeFrame(bytes(hex).buffer)).map((f) => [f.epoch, f.index, f.action, f.width,
            f.height, [...f.payload]]);
        }""",
        golden["frames"],
    )
    names = ("epoch", "index", "action", "width", "height", "payload")
    assert frames == [[case["fields"][name] for name in names] for case in golden["frames"]]


@pytest.mark.skipif(not NANO.exists(), reason="the bundled model is not there (src/reverie/weights/nano/config.json)")
def test_the_bundled_model_plays(page: playwright.Page):
    page.set_default_timeout(120_000)
    with running(ModelSource("nano", device="cpu")) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        assert page.inner_text("#model") == "nano"
        page.keyboard.down("KeyW")
        assert moves(page, 60), "walking changes the picture"
        page.keyboard.up("KeyW")
        page.keyboard.down("ArrowRight")
        assert moves(page, 60), "turning changes the picture"
        page.keyboard.up("ArrowRight")
        until(lambda: page.inner_text("#fps") != "–", "the FPS counter to move", 60)
        upload(page, "wall.png", a_picture((150, 110, 80)))
        page.wait_for_selector("button.tile[data-id^=own-][aria-pressed=true]")
        page.wait_for_selector("body[data-state=playing]")
        assert moves(page, 60), "the world goes on in the picture"
        upload(page, "broken.png", b"this is no picture")
        assert "not a picture that can be read" in message(page)
        page.close()
