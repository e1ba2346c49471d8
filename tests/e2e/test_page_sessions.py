"""Sessions in the page, as a person clicks: the slider, forks, saves, files that are dropped, a reload, two tabs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.browser import PIXELS, contrasts, needs_browser, playwright, until
from tests.helpers.fake_source import FakeSource, running

from reverie.engine.engine import Engine
from reverie.engine.sessions.script import parse_json
from reverie.engine.sessions.session_file import SessionFile
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import ModelSource

pytestmark = needs_browser


@pytest.fixture
def viewport() -> dict[str, int]:
    return {"width": 1200, "height": 760}


@pytest.fixture
def saves(tmp_path: Path) -> SaveFolder:
    return SaveFolder(tmp_path / "saves", is_listed=True)


@pytest.fixture
def address(engine: Engine, saves: SaveFolder) -> Iterator[str]:
    with running(ModelSource(engine), saves=saves) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def playing(page: playwright.Page, address: str) -> Iterator[playwright.Page]:
    page.goto(address)
    page.wait_for_selector("body[data-state=playing]")
    yield page
    page.goto("about:blank")  # gives its place up before the server ends


def moment(page: playwright.Page) -> tuple[float, float]:
    """Where the session is, and how long it is, in frames, once it is where the slider was put."""
    page.wait_for_selector("#slider[aria-busy=false]")
    value, last = page.evaluate("['value', 'max'].map((name) => Number(document.getElementById('slider')[name]))")
    return value, last


def walk(page: playwright.Page, frames: int) -> None:
    """Holds W until so many more frames have been shown."""
    end = moment(page)[0] + frames
    page.keyboard.down("KeyW")
    until(lambda: moment(page)[0] >= end, f"{frames} frames")
    page.keyboard.up("KeyW")


def drag_slider(page: playwright.Page, share: float) -> None:
    """Takes the slider's handle and lets go of it at `share` of its length."""
    box = page.locator("#slider").bounding_box()
    assert box is not None
    value, last = moment(page)
    page.mouse.move(box["x"] + 8 + (box["width"] - 16) * (value - 1) / max(last - 1, 1), box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(1, 6):
        at = (value - 1) / max(last - 1, 1) + (share - (value - 1) / max(last - 1, 1)) * step / 5
        page.mouse.move(box["x"] + 8 + (box["width"] - 16) * at, box["y"] + box["height"] / 2)
    page.mouse.up()


def drop(page: playwright.Page, name: str, data: bytes) -> None:
    """Drops a file on the page."""
    page.evaluate(
        """([name, bytes]) => {
          const files = new DataTransfer();
          files.items.add(new File([Uint8Array.from(bytes)], name));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        [name, list(data)],
    )


def message(page: playwright.Page) -> str:
    page.wait_for_selector("#message.shown")
    return page.inner_text("#message")


def save_as(page: playwright.Page, name: str) -> None:
    page.click("#keep")
    page.fill("#save-name", name)
    page.click("#save")
    page.wait_for_selector(f"#saves-list li:has-text('{name}')")
    page.wait_for_selector("#saves-list img")


def test_the_slider_goes_back_and_the_world_goes_on_from_there(playing: playwright.Page):
    walk(playing, 50)
    drag_slider(playing, 0.3)
    playing.wait_for_selector("body.sought[data-state=paused]")
    until(lambda: 5 < moment(playing)[0] < 0.6 * moment(playing)[1], "the slider to be where it was dragged to")
    at, last = moment(playing)
    assert last >= 50
    there = playing.evaluate(PIXELS)
    drag_slider(playing, 0.95)
    until(lambda: moment(playing)[0] > at + 10, "a later moment")
    assert playing.evaluate(PIXELS) != there
    playing.focus("#slider")
    playing.keyboard.press("Home")
    until(lambda: moment(playing)[0] == 1, "the start, by the keyboard")
    playing.click("#pause")
    playing.wait_for_selector("body[data-state=playing]:not(.sought)")
    went_on = playing.wait_for_function("() => slider.value > 8 && [Number(slider.value), Number(slider.max)]")
    value, end = went_on.json_value()
    assert value == end < last, "what was played later is gone"


def test_keys_go_back_and_on(playing: playwright.Page):
    walk(playing, 20)
    playing.keyboard.press("BracketLeft")
    playing.wait_for_selector("body.sought[data-state=paused]")
    until(lambda: moment(playing)[0] == 1, "the start, which is less than 5 seconds back")
    playing.keyboard.press("BracketRight")
    until(lambda: moment(playing)[0] == moment(playing)[1] > 20, "the end again")
    playing.keyboard.press("KeyP")
    playing.wait_for_selector("body[data-state=playing]")


def test_a_fork_keeps_the_other_way(playing: playwright.Page, saves: SaveFolder):
    assert playing.is_disabled("#fork")
    walk(playing, 50)
    drag_slider(playing, 0.3)
    playing.wait_for_selector("body.sought")
    until(lambda: not playing.is_disabled("#fork"), "a moment to fork at")
    length = moment(playing)[1]
    playing.click("#fork")
    assert "the other way is kept as “before the fork" in message(playing)
    playing.wait_for_selector("body[data-state=playing]")
    (card,) = saves.cards()
    assert card.seconds == (length - 1) / 25
    until(lambda: moment(playing)[1] < length, "the fork to be shorter than the other way")


def test_saving_loading_exporting_and_deleting(playing: playwright.Page, saves: SaveFolder, tmp_path: Path):
    walk(playing, 20)
    save_as(playing, "by the door")
    assert playing.get_attribute("body", "data-state") == "paused"
    (card,) = saves.cards()
    with playing.expect_download() as download:
        playing.click("#saves-list button:has-text('Export')")
    assert download.value.suggested_filename == "by the door.reverie"
    download.value.save_as(tmp_path / "x.reverie")
    file = SessionFile.load(tmp_path / "x.reverie")
    assert (file.title, (file.num_frames - 1) / 25) == ("by the door", card.seconds)
    playing.click("#saves-close")
    playing.wait_for_selector("body[data-state=playing]")
    walk(playing, 20)

    playing.keyboard.press("KeyO")
    playing.click("#saves-list button:has-text('Play on')")
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: file.num_frames <= moment(playing)[0] < file.num_frames + 19, "the saved moment")

    playing.click("#keep")
    playing.click("#saves-list button:has-text('Delete')")
    assert len(saves.cards()) == 1, "one click deletes nothing"
    playing.click("#saves-list button:has-text('Really delete?')")
    playing.wait_for_selector("#saves-list p")
    assert saves.cards() == []


def test_saved_sessions_and_the_time_can_be_read(playing: playwright.Page):
    walk(playing, 20)
    playing.keyboard.press("BracketLeft")
    playing.wait_for_selector("body.sought")
    until(lambda: not playing.is_disabled("#fork"), "a moment to fork at")
    time_of_it = contrasts(playing, "#timeline output, #fork")
    save_as(playing, "by the door")
    told = contrasts(playing, "#saves h2, #saves b, #saves span, #saves button")
    assert len(told) >= 8
    assert {text: round(value, 1) for text, value in (time_of_it | told).items() if value < 4.5} == {}


def test_typing_a_name_plays_no_keys(playing: playwright.Page):
    playing.click("#keep")
    playing.click("#save-name")
    playing.keyboard.type("prohw?[ ]")
    assert playing.input_value("#save-name") == "prohw?[ ]"
    assert not playing.is_visible("#help")


def test_a_save_outlives_the_server_in_the_browser(playing: playwright.Page, saves: SaveFolder):
    walk(playing, 20)
    save_as(playing, "kept here")
    (card,) = saves.cards()
    saves.remove(card.id)
    playing.click("#saves-list button:has-text('Play on')")
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: moment(playing)[0] >= card.seconds * 25, "the session, generated again")
    (again,) = saves.cards()
    assert (again.title, again.seconds) == (card.title, card.seconds)
    assert again.id != card.id


def test_a_browser_without_room_says_so_and_the_server_keeps_the_save(playing: playwright.Page, saves: SaveFolder):
    playing.evaluate(
        "() => { IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
    )
    walk(playing, 10)
    save_as(playing, "on the server")
    until(lambda: "no room to keep it" in message(playing), "the notice")
    assert [card.title for card in saves.cards()] == ["on the server"]


def test_a_file_is_dropped_on_the_page(playing: playwright.Page, saves: SaveFolder):
    walk(playing, 20)
    save_as(playing, "a walk")
    data = saves.read_bytes(saves.cards()[0].id)
    playing.click("#saves-close")
    playing.wait_for_selector("body[data-state=playing]")
    drop(playing, "broken.reverie", data[:-50])
    until(lambda: "cut short" in message(playing), "a message")
    assert playing.get_attribute("body", "data-state") == "playing"
    file = SessionFile.from_bytes(data)
    script = parse_json(f'[{{"keys": ["fly"], "frames": {file.num_frames - 1}}}]')
    drop(playing, "bird.reverie", replace(file, model="bird/0/float32/cpu", script=script).to_bytes())
    until(lambda: "played with bird; load that model" in message(playing), "which model it needs")
    playing.wait_for_selector("body[data-state=playing]")
    assert moment(playing)[0] > 20, "what was played goes on"
    saves.remove(next(card.id for card in saves.cards() if card.model.startswith("bird")))
    drop(playing, "a walk.reverie", data)
    until(lambda: len(saves.cards()) == 2, "the file to be kept")
    playing.wait_for_selector("body[data-state=playing]")


def test_a_reload_goes_on_where_the_session_was(playing: playwright.Page):
    walk(playing, 40)
    token = playing.evaluate("sessionStorage.getItem('reverie.session')")
    playing.reload()
    playing.wait_for_selector("body[data-state=playing]")
    until(lambda: moment(playing)[0] > 40, "the session to go on")
    assert playing.evaluate("sessionStorage.getItem('reverie.session')") == token
    playing.keyboard.press("BracketLeft")
    playing.wait_for_selector("body.sought")
    until(lambda: moment(playing)[0] < 40, "its past to be there")


def test_a_second_tab_takes_the_session_over(playing: playwright.Page, address: str):
    walk(playing, 20)
    token = playing.evaluate("sessionStorage.getItem('reverie.session')")
    other = playing.context.new_page()
    other.add_init_script(f"if (location.host) sessionStorage.setItem('reverie.session', '{token}')")
    other.goto(address)
    other.wait_for_selector("body[data-state=playing]")
    until(lambda: moment(other)[0] > 20, "the session in the other tab")
    playing.wait_for_selector("body[data-state=failed]")
    until(lambda: "another tab" in playing.inner_text("#veil-text"), "the reason")
    assert playing.evaluate("sessionStorage.getItem('reverie.session')") is None
    other.goto("about:blank")


def test_a_session_that_the_server_has_lost_begins_anew(page: playwright.Page, address: str):
    page.add_init_script("if (location.host) sessionStorage.setItem('reverie.session', 'long-gone')")
    page.goto(address)
    page.wait_for_selector("body[data-state=playing]")
    assert "no longer on the server" in message(page)
    page.goto("about:blank")


def test_a_world_that_cannot_go_back_shows_no_slider(page: playwright.Page):
    with running(FakeSource()) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        assert not page.is_visible("#timeline")
        page.goto("about:blank")
