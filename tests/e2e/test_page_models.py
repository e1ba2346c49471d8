"""The choice of a model in the page, as a person makes it: by keyboard, and each model goes on where it was left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.helpers.browser import needs_browser, playwright, until
from tests.helpers.fake_source import FakeSource, Sized, running

pytestmark = needs_browser


@pytest.fixture
def viewport() -> dict[str, int]:
    return {"width": 1200, "height": 760}


@pytest.fixture
def sources() -> dict[str, FakeSource]:
    loaded: dict[str, float] = {}
    return {name: Sized(name, size, loaded) for name, size in (("dawn", 40), ("dusk", 40), ("huge", 101))}


@pytest.fixture
def playing(page: playwright.Page, sources: dict[str, FakeSource]) -> Iterator[playwright.Page]:
    with running(sources) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        yield page
        page.goto("about:blank")


def test_another_model_is_chosen_and_what_does_not_fit_says_so(playing: playwright.Page, sources):
    assert playing.inner_text("#model") == "dawn"
    playing.keyboard.press("Comma")
    playing.wait_for_selector("#settings[open]")
    choice = playing.get_by_label("model", exact=True)
    assert choice.input_value() == "dawn"
    choice.focus()
    playing.keyboard.press("ArrowDown")
    playing.wait_for_function("() => document.getElementById('model').textContent === 'dusk'")
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: sources["dusk"].worlds and sources["dusk"].worlds[-1].num_steps, "the other world")
    picture = "document.querySelector('button.tile[data-id] img')"
    assert playing.evaluate(f"{picture}.src").endswith("?model=dusk")
    until(lambda: playing.evaluate(f"{picture}.naturalWidth > 0"), "its start pictures")
    playing.reload()
    playing.wait_for_selector("body[data-state=playing]")
    assert playing.inner_text("#model") == "dusk"
    playing.click("#tune")
    playing.select_option("#models", "huge")
    playing.wait_for_selector("body[data-state=failed]")
    assert "huge needs about" in playing.inner_text("#veil-text")
    playing.click("#reload")
    playing.wait_for_selector("body[data-state=playing]")
    assert playing.inner_text("#model") in ("dawn", "dusk")


def test_a_link_opens_its_model_or_says_that_it_is_not_here(playing: playwright.Page, sources):
    playing.context.grant_permissions(["clipboard-read", "clipboard-write"])
    playing.click("#tune")
    playing.select_option("#models", "dusk")
    playing.wait_for_function("() => document.getElementById('model').textContent === 'dusk'")
    playing.wait_for_selector("body[data-state=playing]")
    playing.click("#tune")
    playing.click("#copy-link")
    until(lambda: "&model=dusk" in playing.evaluate("navigator.clipboard.readText()"), "the link")
    link = playing.evaluate("navigator.clipboard.readText()")
    other = playing.context.new_page()
    other.goto(link)
    other.wait_for_selector("body[data-state=playing]")
    assert other.inner_text("#model") == "dusk", "and not the first"
    seed = sources["dusk"].worlds[-1].seed
    assert f"seed={seed}" in link
    gone = link.replace("model=dusk", "model=dawn-2")
    other.evaluate("(link) => { location.href = link; }", gone)  # as it is pasted into the tab
    until(lambda: "the link's model, dawn-2, is not on this server" in other.inner_text("#message"), "a line")
    other.wait_for_selector("body[data-state=playing]")
    assert sources[other.inner_text("#model")].worlds[-1].seed == seed
    other.goto("about:blank")


def test_one_model_is_no_choice(page: playwright.Page):
    with running(FakeSource()) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        page.click("#tune")
        assert not page.is_visible("#models")
        page.goto("about:blank")
