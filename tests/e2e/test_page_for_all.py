"""The page for people with a keyboard alone, a screen reader, a gamepad, a touch screen, a low window or a large zoom;
its help; and own pictures after a reload."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.helpers.browser import MEAN_COLOUR, a_picture, contrasts, needs_browser, playwright, until, upload
from tests.helpers.fake_source import RESOLUTION, FakeSource, running

from reverie.serve.host import Limits
from reverie.types import ActionSpace

pytestmark = needs_browser

MOVES = ("forward", "back", "left", "right")
SPACE = ActionSpace((*MOVES, "attack", "use", "jump", "crouch"))
LOW = {"width": 640, "height": 360}
"""A window of 1280x720 at 200 %."""
SHOW_PAD = """(pad) => {
  const buttons = Array.from({ length: 17 }, (_, i) => ({ pressed: pad.buttons.includes(i), value: 0 }));
  const shown = { connected: true, mapping: "standard", axes: pad.axes ?? [0, 0, 0, 0], buttons };
  navigator.getGamepads = () => [shown];
}"""
UNNAMED = """() => {
  const all = document.querySelectorAll("button, canvas:not([aria-hidden]), [role]");
  const given = (one) => one.getAttribute("aria-label") || one.getAttribute("aria-labelledby");
  const isNamed = (one) => given(one) || one.innerText?.trim();
  const needsNone = (one) => one.closest("[aria-hidden=true], button > *") || ["status", "alert"].includes(one.role);
  return [...all].filter((one) => !needsNone(one) && !isNamed(one)).map((one) => one.outerHTML);
}"""
OVERLAPPING = """(selectors) => {
  const isShown = (one) => one.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const all = [...document.querySelectorAll(selectors.join())].filter(isShown);
  const name = (one) => one.id || one.getAttribute("aria-label") || one.innerText;
  const isTile = (one) => one.closest("#gallery"); // which scrolls sideways
  const found = [];
  for (const one of all) {
    const box = one.getBoundingClientRect();
    const fits = isTile(one) || (box.left >= 0 && box.right <= innerWidth);
    if (!fits || box.top < 0 || box.bottom > innerHeight) found.push(`${name(one)} is outside`);
    for (const other of all) {
      if (one.contains(other) || other.contains(one) || (isTile(one) && isTile(other))) continue;
      const its = other.getBoundingClientRect();
      const width = Math.min(box.right, its.right) - Math.max(box.left, its.left);
      const height = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
      if (width > 1 && height > 1) found.push(`${name(one)} on ${name(other)}`);
    }
  }
  return found;
}"""


@pytest.fixture
def source() -> FakeSource:
    """Two rooms: the game of the first can attack and use, that of the second can jump."""
    white = np.full((*RESOLUTION, 3), 255, np.uint8)
    keys = {0: (*MOVES, "attack", "use"), 1: (*MOVES, "jump")}
    return FakeSource(space=SPACE, start_keys=keys, pictures=(white, white // 3))


def opened(page: playwright.Page, port: int) -> playwright.Page:
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("body[data-state=playing]")
    return page


@pytest.fixture
def playing(page: playwright.Page, source: FakeSource) -> Iterator[playwright.Page]:
    with running(source) as port:
        yield opened(page, port)
        page.close()


def held(source: FakeSource) -> set[str]:
    """The keys of the latest block."""
    return set(source.actions[-1].keys) if source.actions else set()


def caps(page: playwright.Page) -> set[str]:
    return set(page.eval_on_selector_all("#keys kbd", "all => all.map((one) => one.title)"))


# ------------------------------------------------------------------------------------------------- keys and help


def test_only_the_keys_of_the_world_at_hand_are_shown(playing: playwright.Page) -> None:
    turns = {"look left", "look right"}
    assert caps(playing) == {*MOVES, "attack", "use"} | turns
    playing.click("[data-id=start-1]")
    until(lambda: caps(playing) == {*MOVES, "jump"} | turns, "the keys of the other game")
    upload(playing, "attic.png", a_picture((30, 120, 60)))
    until(lambda: caps(playing) == {*SPACE.keys} | turns, "all keys: an own picture may be of any game")


def test_a_cap_is_lit_by_every_key_that_does_the_same(playing: playwright.Page) -> None:
    playing.keyboard.down("ArrowUp")
    playing.wait_for_selector("kbd[data-code=KeyW].held")
    playing.keyboard.up("ArrowUp")
    playing.wait_for_selector("kbd[data-code=KeyW]:not(.held)")


def test_the_help_says_what_keys_do_and_holds_the_world(playing: playwright.Page, source: FakeSource) -> None:
    playing.keyboard.press("h")
    playing.wait_for_selector("#help[open]")
    playing.wait_for_selector("body[data-state=paused]")
    told = playing.inner_text("#help")
    for words in ("forward", "W or ↑", "attack", "F or click", "look around", "begin again", "gamepad"):
        assert words in told
    assert "jump" not in told  # this game has none
    playing.keyboard.press("Escape")
    playing.wait_for_selector("body[data-state=playing]")
    playing.click("#ask")
    playing.wait_for_selector("#help[open]")
    playing.click("#help-close")
    playing.wait_for_selector("body[data-state=playing]")
    playing.keyboard.down("Space")  # the help's button had the focus: the space bar is the world's again
    playing.keyboard.up("Space")
    assert not playing.is_visible("#help")


def test_a_pause_of_one_s_own_outlasts_the_help(playing: playwright.Page) -> None:
    playing.keyboard.press("p")
    playing.wait_for_selector("body[data-state=paused]")
    playing.keyboard.press("?")
    playing.wait_for_selector("#help[open]")
    playing.keyboard.press("?")
    playing.wait_for_selector("#help:not([open])", state="attached")
    assert playing.get_attribute("body", "data-state") == "paused"


def test_arrows_steer_in_a_world_without_a_camera(page: playwright.Page) -> None:
    white = np.full((*RESOLUTION, 3), 255, np.uint8)
    source = FakeSource(space=SPACE, start_keys={0: MOVES}, start_mouse={0: False}, pictures=(white,))
    with running(source) as port:
        opened(page, port)
        assert caps(page) == {*MOVES}
        assert not page.is_visible("#hint")
        page.keyboard.down("ArrowLeft")
        until(lambda: held(source) == {"left"}, "the arrow to steer")
        page.wait_for_selector("kbd[data-code=KeyA].held")
        page.keyboard.up("ArrowLeft")
        until(lambda: held(source) == set(), "the wheel to be let go")
        assert all(action.mouse == (0.0, 0.0) for action in source.actions)
        page.close()


# ------------------------------------------------------------------------------------- keyboard and screen reader


def test_space_presses_the_button_that_has_the_focus(playing: playwright.Page, source: FakeSource) -> None:
    playing.click("[data-id=start-1]")  # where space jumps
    until(lambda: len(source.worlds) == 2, "the second world")
    playing.focus("#sharp")
    playing.keyboard.press("Space")
    playing.wait_for_selector("body.sharp")
    assert not any("jump" in action.keys for action in source.actions)
    playing.focus("[data-id=start-0]")
    playing.keyboard.press("Space")
    until(lambda: len(source.worlds) == 3, "the tile to be pressed")
    playing.wait_for_selector("body[data-state=playing]")
    assert playing.evaluate("document.activeElement.id") == "stage"  # from the button to the world


def test_space_is_the_world_s_after_a_click_on_any_button(playing: playwright.Page, source: FakeSource) -> None:
    for selector in ("[data-id=start-1]", "#sharp", "#restart"):
        playing.click(selector)
        playing.wait_for_selector("body[data-state=playing]")
        source.actions.clear()
        playing.keyboard.down("Space")
        until(lambda: "jump" in held(source), f"a jump after {selector}")
        playing.keyboard.up("Space")
        until(lambda: "jump" not in held(source), "the end of the jump")


def test_screen_readers_are_told_what_there_is(playing: playwright.Page) -> None:
    assert playing.evaluate(UNNAMED) == []
    assert playing.get_attribute("#screen", "aria-label") == "room 0: fake, dreamt live"
    assert playing.get_by_role("listitem", name="W: forward").count() == 1
    assert playing.get_by_role("application", name="the world").count() == 1
    for name in ("Pause", "Restart", "Pixels, sharp", "Help", "Full screen", "start in room 1"):
        assert playing.get_by_role("button", name=name, exact=True).count() == 1
    playing.keyboard.press("p")
    assert playing.get_by_role("button", name="Go on", exact=True).count() == 1


# ------------------------------------------------------------------------------------------------ gamepad, touch


def test_a_gamepad_acts_pauses_and_lets_go_when_it_is_unplugged(playing: playwright.Page, source: FakeSource) -> None:
    playing.evaluate(SHOW_PAD, {"buttons": [7], "axes": [0, -1, 0, 0]})
    until(lambda: held(source) == {"forward", "attack"}, "the stick and the trigger")
    playing.evaluate("navigator.getGamepads = () => [null]; dispatchEvent(new Event('gamepaddisconnected'))")
    until(lambda: held(source) == set(), "the pad that has gone to let go")
    playing.evaluate(SHOW_PAD, {"buttons": [12, 14]})
    until(lambda: held(source) == {"forward", "left"}, "the cross")
    playing.evaluate(SHOW_PAD, {"buttons": [9]})
    playing.wait_for_selector("body[data-state=paused]")
    playing.evaluate(SHOW_PAD, {"buttons": []})
    playing.wait_for_timeout(100)
    playing.evaluate(SHOW_PAD, {"buttons": [9]})
    playing.wait_for_selector("body[data-state=playing]")


@pytest.mark.parametrize("size", [(390, 844), (844, 390)])
def test_fingers_have_buttons_for_actions(
    browser: playwright.Browser, source: FakeSource, size: tuple[int, int]
) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=True, is_mobile=True)
    with running(source) as port:
        page = opened(context.new_page(), port)
        names = page.eval_on_selector_all("#actions button", "all => all.map((one) => one.innerText)")
        assert sorted(names) == ["attack", "use"]
        assert overlapping(page, ["#actions button", "nav button", ".tile", "#meters"]) == []
        box = page.get_by_role("button", name="attack").bounding_box()
        assert box is not None
        finger = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "id": 1}
        thumb = {"x": 80, "y": size[1] * 0.7, "id": 2}
        hand = context.new_cdp_session(page)
        hand.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [finger]})
        until(lambda: held(source) == {"attack"}, "the attack")
        hand.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [finger, thumb]})
        moved = {**thumb, "y": thumb["y"] - 60}
        hand.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [finger, moved]})
        until(lambda: held(source) == {"attack", "forward"}, "the thumb to walk meanwhile")
        hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        until(lambda: held(source) == set(), "the end of both")
        assert page.get_attribute("body", "data-state") == "playing"
        page.close()
    context.close()


# ------------------------------------------------------------------------------------------- small windows, zoom


def overlapping(page: playwright.Page, selectors: list[str]) -> list[str]:
    """Visible things that lie on each other, or partly outside the window (of tiles: below or above it)."""
    return page.evaluate(OVERLAPPING, selectors)


@pytest.mark.parametrize("size", [(1440, 900), (960, 540), (640, 360), (1000, 420), (320, 256), (500, 700)])
def test_nothing_lies_on_anything_else(page: playwright.Page, source: FakeSource, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    with running(source) as port:
        opened(page, port)
        assert overlapping(page, ["kbd", "#hint", "#meters", "nav button", ".tile", "#world", "h1"]) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("h")
        page.wait_for_selector("#help[open]")
        box = page.locator("#help").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
        assert page.evaluate(
            "(d => d.scrollWidth <= d.clientWidth && d.scrollTop === 0)(document.getElementById('help'))"
        )
        page.close()


@pytest.mark.parametrize("size", [(640, 360), (1000, 420), (320, 256)])
def test_the_gallery_opens_in_low_windows(page: playwright.Page, source: FakeSource, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    with running(source) as port:
        opened(page, port)
        assert not page.is_visible("[data-id=start-1]")
        page.click("#pictures")
        assert page.get_attribute("#pictures", "aria-expanded") == "true"
        page.wait_for_selector("#add")
        page.keyboard.press("Escape")
        page.wait_for_selector("[data-id=start-1]", state="hidden")
        page.click("#pictures")
        page.click("[data-id=start-1]")
        until(lambda: len(source.worlds) == 2, "the chosen world")
        page.wait_for_selector("[data-id=start-1]", state="hidden")
        page.close()


# ---------------------------------------------------------------------------------------------------- contrast


@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (390, 844)])
def test_all_text_can_be_read_on_white_snow(page: playwright.Page, source: FakeSource, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    with running(source) as port:
        opened(page, port)
        found = contrasts(page, "kbd, #hint, #meters dd, #meters dt, #world b, #kind, #add span, nav span")
        assert len(found) > 8
        assert {text: round(value, 1) for text, value in found.items() if value < 4.5} == {}
        icons = contrasts(page, "nav button")
        assert {text: round(value, 1) for text, value in icons.items() if value < 3} == {}
        page.keyboard.press("h")
        page.wait_for_selector("#help[open]")
        told = contrasts(page, "#help th, #help td:not(:empty), #help h2, #help button")
        assert {text: round(value, 1) for text, value in told.items() if value < 4.5} == {}
        page.keyboard.press("Escape")
        page.keyboard.press("Comma")
        page.wait_for_selector("#settings[open]")
        told = contrasts(page, "#settings label, #settings .row > span, #settings h2, #settings button")
        assert len(told) > 4
        assert {text: round(value, 1) for text, value in told.items() if value < 4.5} == {}
        page.close()


# -------------------------------------------------------------------------------------------------- own pictures


@pytest.mark.parametrize("size", [(1000, 640), (640, 360)])
def test_a_model_without_start_pictures_asks_for_one(page: playwright.Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    with running(FakeSource(num_starts=0)) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=empty]")
        assert "drop one here" in page.inner_text("#veil-text")
        assert page.is_visible("#add")
        upload(page, "attic.png", a_picture((30, 120, 60)))
        page.wait_for_selector("body[data-state=playing]")
        page.close()


def test_own_pictures_survive_a_reload(playing: playwright.Page, source: FakeSource) -> None:
    upload(playing, "attic.png", a_picture((30, 120, 60)))
    playing.wait_for_selector("button.tile[data-id^=own-][aria-pressed=true][title=attic]")
    playing.reload()
    playing.wait_for_selector("body[data-state=playing]")
    playing.wait_for_selector("button.tile[data-id^=own-][aria-pressed=true][title=attic]")
    until(lambda: abs(playing.evaluate(MEAN_COLOUR)[1] - 120) < 9, "the world to begin in the own picture again")
    tile = """() => { const one = document.querySelector(".tile[data-id^=own-] canvas");
      return [...one.getContext("2d").getImageData(one.width / 2, one.height / 2, 1, 1).data]; }"""
    until(lambda: playing.evaluate(tile)[:3] == [30, 120, 60], "its thumbnail")


def test_a_server_that_has_forgotten_an_own_picture_gets_it_again(page: playwright.Page, source: FakeSource) -> None:
    with running(source, Limits(max_uploads=1)) as port:
        opened(page, port)
        for name, green in (("attic", 120), ("cellar", 60)):
            upload(page, f"{name}.png", a_picture((30, green, 60)))
            page.wait_for_selector(f"button.tile[aria-pressed=true][title={name}]")
            page.wait_for_selector("body[data-state=playing]")
        page.click("button.tile[title=attic]")  # the server keeps one, and that is the cellar
        until(lambda: abs(page.evaluate(MEAN_COLOUR)[1] - 120) < 9, "the world to begin in the attic")
        page.wait_for_selector("button.tile[aria-pressed=true][title=attic]")
        assert page.locator("#message.shown").count() == 0  # nobody needs to know
        page.reload()
        page.wait_for_selector("button.tile[aria-pressed=true][title=attic]")
        until(lambda: abs(page.evaluate(MEAN_COLOUR)[1] - 120) < 9, "the attic after a reload")
        assert page.locator("button.tile[data-id^=own-]").count() == 2
        page.close()


def test_an_own_picture_can_be_taken_away(playing: playwright.Page) -> None:
    upload(playing, "attic.png", a_picture((30, 120, 60)))
    playing.wait_for_selector("button.tile[title=attic]")
    playing.get_by_role("button", name="forget attic").click()
    playing.wait_for_selector("button.tile[title=attic]", state="detached")
    playing.reload()
    playing.wait_for_selector("body[data-state=playing]")
    assert playing.locator("button.tile[data-id^=own-]").count() == 0
