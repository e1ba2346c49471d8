"""Settings of the page, as a person clicks: the mouse, keys that are given other places, the seed, and links."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.helpers.browser import needs_browser, playwright, until
from tests.helpers.fake_source import FakeSource, running

from reverie.engine.engine import Engine
from reverie.engine.sessions.session import Session
from reverie.serve.sources import ModelSource

pytestmark = needs_browser


@pytest.fixture
def viewport() -> dict[str, int]:
    return {"width": 1200, "height": 760}


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def playing(page: playwright.Page, source: FakeSource) -> Iterator[playwright.Page]:
    with running(source) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        yield page
        page.goto("about:blank")


def turn(page: playwright.Page, source: FakeSource, down: int) -> float:
    """Pitch that a movement of the mouse gives, in degrees, summed over its blocks."""
    page.mouse.click(600, 300)
    page.wait_for_selector("body.locked")
    before = len(source.actions)
    page.mouse.move(600, 300 + down)
    until(lambda: any(action.mouse[0] for action in source.actions[before:]), "the mouse to be heard")
    page.keyboard.press("KeyP")
    page.wait_for_selector("body[data-state=paused]")
    page.keyboard.press("KeyP")
    page.wait_for_selector("body[data-state=playing]")
    return sum(action.mouse[0] * 4 for action in source.actions[before:])


def close(page: playwright.Page) -> None:
    page.click("#settings-close")
    page.wait_for_selector("body[data-state=playing]")


def test_mouse_sensitivity_and_inversion(playing: playwright.Page, source: FakeSource):
    plain = turn(playing, source, 20)
    assert plain == pytest.approx(-2.4, abs=0.01)
    playing.keyboard.press("Comma")
    playing.wait_for_selector("body[data-state=paused]")
    playing.focus("#sensitivity")
    for _ in range(10):
        playing.keyboard.press("ArrowRight")
    playing.check("#invert")
    close(playing)
    assert turn(playing, source, 20) == pytest.approx(4.8, abs=0.01)
    playing.reload()
    playing.wait_for_selector("body[data-state=playing]")
    assert playing.input_value("#sensitivity") == "2"
    assert playing.is_checked("#invert")


def test_keys_are_given_other_places_and_swap(playing: playwright.Page, source: FakeSource):
    playing.click("#tune")
    playing.click("#key-rows [data-code=KeyW]")
    assert playing.inner_text("#key-rows [data-code=KeyW]") == "press a key"
    playing.keyboard.press("KeyI")
    assert playing.inner_text("#key-rows [data-code=KeyW]") == "I"
    playing.click("#key-rows [data-code=KeyA]")
    playing.keyboard.press("KeyD")
    assert [playing.inner_text(f"#key-rows [data-code={code}]") for code in ("KeyA", "KeyD")] == ["D", "A"]
    playing.click("#key-rows [data-code=KeyS]")
    playing.keyboard.press("Escape")
    assert playing.inner_text("#key-rows [data-code=KeyS]") == "S"
    close(playing)
    for pressed, held in (("KeyI", "forward"), ("KeyD", "left"), ("KeyA", "right")):
        playing.keyboard.down(pressed)
        until(lambda held=held: held in source.actions[-1].keys, held)
        playing.keyboard.up(pressed)
        until(lambda: not source.actions[-1].keys, "the key to be let go")
    before = len(source.actions)
    playing.keyboard.down("KeyW")
    until(lambda: len(source.actions) > before + 5, "some blocks")
    playing.keyboard.up("KeyW")
    assert not any(action.keys for action in source.actions[before:]), "W has been given away"
    assert playing.inner_text("kbd[data-code=KeyW]") == "I"
    playing.click("#tune")
    playing.click("#settings-reset")
    assert playing.inner_text("#key-rows [data-code=KeyW]") == "W"


def test_the_seed_is_what_was_set(playing: playwright.Page, source: FakeSource):
    playing.click("#tune")
    playing.fill("#seed", "1234")
    close(playing)
    playing.click("#restart")
    until(lambda: source.worlds[-1].seed == 1234, "the seed")
    playing.click("#tune")
    playing.fill("#seed", "")
    close(playing)
    playing.click("#restart")
    until(lambda: source.worlds[-1].seed != 1234, "another seed")


def test_the_frame_rate_is_bounded_and_the_choice_stays(playing: playwright.Page, source: FakeSource):
    def fps() -> float:
        text = playing.inner_text("#fps")
        return 0.0 if text == "–" else float(text)

    until(lambda: fps() > 14, "more than it will be asked for")
    playing.keyboard.press("Comma")
    playing.focus("#rate")
    playing.keyboard.press("End")
    assert playing.input_value("#rate") == "12"
    assert playing.get_by_label("frames a second, at most").input_value() == "12"
    close(playing)
    until(lambda: "12 of its 25 frames" in playing.inner_text("#message"), "the line")
    until(lambda: 0 < fps() < 13, "12 frames a second")
    playing.reload()
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: fps() > 8, "a world at its pace")
    assert fps() < 13
    playing.click("#tune")
    playing.select_option("#rate", "")
    close(playing)
    until(lambda: fps() > 14, "the world's own rate")


def test_a_world_that_makes_no_passes_says_so(playing: playwright.Page):
    playing.click("#tune")
    assert playing.is_disabled("#passes")
    assert playing.inner_text("#passes option") == "1: no other is known here"


def test_passes_of_new_worlds(page: playwright.Page, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    opened: list[Session] = []
    plain = engine.open
    monkeypatch.setattr(engine, "open", lambda *where, **how: opened.append(plain(*where, **how)) or opened[-1])
    with running(ModelSource(engine)) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        assert opened[-1].passes == 2
        page.keyboard.press("Comma")
        page.focus("#passes")
        page.keyboard.press("ArrowDown")
        assert page.get_by_label("denoising passes of new worlds").input_value() == "1"
        assert page.inner_text("#passes option") == "the model's own: 2"
        close(page)
        assert opened[-1].passes == 2, "the world that is played goes on as it is"
        page.click("#restart")
        until(lambda: opened[-1].passes == 1, "one pass")
        page.reload()
        page.wait_for_selector("body[data-state=playing]")
        page.click("button.tile[data-id]")
        until(lambda: len(opened) == 2, "another world")
        until(lambda: opened[-1].passes == 1, "one pass")
        page.click("#tune")
        page.click("#settings-reset")
        close(page)
        page.click("#restart")
        until(lambda: opened[-1].passes == 2, "the model's own")
        page.goto("about:blank")


def test_a_link_opens_a_start_with_a_seed(playing: playwright.Page, source: FakeSource):
    playing.context.grant_permissions(["clipboard-read", "clipboard-write"])
    playing.click("button.tile[data-id=start-1]")
    playing.wait_for_selector("button.tile[data-id=start-1][aria-pressed=true]")
    until(lambda: len(source.worlds) == 2, "the second world")
    playing.wait_for_selector("body[data-state=playing]")
    seed = source.worlds[-1].seed
    playing.click("#tune")
    playing.click("#copy-link")
    until(lambda: "#start=start-1" in playing.evaluate("navigator.clipboard.readText()"), "the link")
    link = playing.evaluate("navigator.clipboard.readText()")
    assert link.endswith(f"#start=start-1&seed={seed}")
    other = playing.context.new_page()
    other.goto(link)
    other.wait_for_selector("body[data-state=playing]")
    other.wait_for_selector("button.tile[data-id=start-1][aria-pressed=true]")
    assert source.worlds[-1].seed == seed
    assert "#" not in other.url
    other.goto("about:blank")


def test_a_link_to_nowhere_says_so(page: playwright.Page, source: FakeSource):
    with running(source) as port:
        page.goto(f"http://127.0.0.1:{port}/#start=gone&seed=x")
        page.wait_for_selector("body[data-state=playing]")
        until(lambda: "not here" in page.inner_text("#message"), "a message")
        page.goto("about:blank")


def test_the_latency_says_what_it_is_made_of(playing: playwright.Page):
    playing.keyboard.press("KeyW")
    until(lambda: playing.inner_text("#latency-p95").isdigit(), "the 95th percentile")
    parts = playing.text_content("#latency-parts") or ""
    assert all(word in parts for word in ("until the block began", "generating", "network", "until shown"))
