"""G and V as a person presses them: the game and its dream, swapped and side by side; several own images at once."""

from __future__ import annotations

import pytest
from tests.helpers.browser import MEAN_COLOUR, a_picture, moves, needs_browser, playwright, until
from tests.helpers.fake_source import RESOLUTION, FakeSource, running
from tests.helpers.swap_worlds import SwapToys, ToyGame

pytestmark = needs_browser

HALVES = """(id) => {
  const canvas = document.getElementById(id);
  const mean = (from, to) => {
    const { data } = canvas.getContext("2d").getImageData(from, 0, to - from, canvas.height);
    const sum = [0, 0, 0];
    for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sum[c] += data[i + c];
    return sum.map((value) => value / (data.length / 4));
  };
  return [canvas.width, mean(0, canvas.width / 2), mean(canvas.width / 2, canvas.width)];
}"""


def shows(page: playwright.Page, colour: str) -> bool:
    red, green, _ = page.evaluate(MEAN_COLOUR)
    return (green if colour == "green" else red) > 2 * (red if colour == "green" else green)


def test_g_swaps_the_game_and_its_dream_and_v_shows_both(page: playwright.Page) -> None:
    toys = SwapToys()
    with running(toys) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        until(lambda: shows(page, "green"), "the game")
        assert page.inner_text("#kind") == "the real game"
        page.keyboard.down("ArrowRight")
        until(lambda: toys.games[0].pose[3] > 8, "a turn")
        page.keyboard.up("ArrowRight")
        until(lambda: not moves(page, 1.0), "the game to rest")
        page.keyboard.press("g")
        until(lambda: shows(page, "red"), "the dream")
        assert page.inner_text("#kind") == "dreamt live"
        began = toys.dreams[0].began.pose
        assert began is not None
        assert began[3] == pytest.approx(toys.games[0].pose[3]), "where the game rests"
        left_at = float(toys.games[0].pose[3])
        page.keyboard.down("ArrowRight")
        until(lambda: toys.dreams[0].pose[3] > left_at + 8, "a turn in the dream")
        page.keyboard.up("ArrowRight")
        assert toys.games[0].pose[3] == left_at
        until(lambda: not moves(page, 1.0), "the dream to rest")
        page.click("#swap")
        until(lambda: shows(page, "green"), "the game again")
        assert toys.games[0].pose[3] == pytest.approx(toys.dreams[0].pose[3]), "it stands where the dream was"

        page.keyboard.press("v")
        page.wait_for_selector("#compare", state="visible")
        until(lambda: page.evaluate(HALVES, "screen")[0] == 2 * RESOLUTION[1], "a frame of both")
        _, game, dream = page.evaluate(HALVES, "screen")
        assert game[1] > 2 * game[0]
        assert dream[0] > 2 * dream[1]
        width, left, right = page.evaluate(HALVES, "difference")
        assert width == RESOLUTION[1]
        assert min(left[:2] + right[:2]) > 20, "red less green, everywhere"
        until(lambda: page.inner_text("#psnr") != "–", "figures")
        assert 3 < float(page.inner_text("#psnr")) < 30
        page.wait_for_function("() => document.querySelectorAll('#drift [role=meter]').length === 5")
        acted = len(toys.games[0].actions)
        page.keyboard.down("KeyW")
        until(lambda: any("forward" in a.keys for a in toys.games[0].actions[acted:]), "the game to hear it")
        until(lambda: "forward" in toys.dreams[-1].actions[-1].keys, "the dream to hear it")
        page.keyboard.up("KeyW")
        page.keyboard.press("v")
        until(lambda: page.evaluate(HALVES, "screen")[0] == RESOLUTION[1], "one again")
        assert page.is_hidden("#compare")
        page.keyboard.press("?")
        told = page.inner_text("#help")
        assert "both side by side" in told
        page.close()


def test_a_dream_beside_its_game_is_rewound_saved_and_loaded(page: playwright.Page) -> None:
    toys = SwapToys()
    with running(toys) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        until(lambda: shows(page, "green"), "the game")
        assert not page.is_visible("#timeline"), "a game cannot go back"
        page.keyboard.press("g")
        until(lambda: shows(page, "red"), "the dream")
        page.wait_for_selector("#timeline", state="visible")
        stage, timeline = (page.locator(name).bounding_box() for name in ("#stage", "#timeline"))
        assert stage is not None
        assert timeline is not None
        assert stage["y"] + stage["height"] <= timeline["y"], "the slider lies below the picture"
        page.keyboard.down("ArrowRight")
        until(lambda: toys.dreams[0].frame > 20, "a turn")
        page.keyboard.up("ArrowRight")
        page.keyboard.press("BracketLeft")
        page.wait_for_selector("body.sought[data-state=paused]")
        until(lambda: toys.dreams[0].frame == 1, "the dream's start")
        page.keyboard.press("BracketRight")
        until(lambda: toys.dreams[0].frame > 20, "the dream's end")
        at = float(toys.dreams[0].pose[3])
        page.keyboard.press("v")
        page.wait_for_selector("#compare", state="visible")
        assert not page.is_visible("#timeline")
        page.keyboard.press("o")
        page.keyboard.press("Tab")
        page.keyboard.type("both at the wall")
        page.keyboard.press("Enter")
        page.wait_for_selector("#saves-list li:has-text('both at the wall')")
        for _ in range(3):  # save, open a file, play on
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-state=playing]")
        page.wait_for_selector("#compare", state="visible")
        until(lambda: page.evaluate(HALVES, "screen")[0] == 2 * RESOLUTION[1], "both again")
        assert (len(toys.games), len(toys.dreams)) == (1, 2), "the game goes on, another dream begins"
        assert float(toys.games[0].pose[3]) == pytest.approx(at), "the game stands where it was saved"
        page.reload()
        page.wait_for_selector("body[data-state=playing]")
        page.wait_for_selector("#compare", state="visible")
        assert len(toys.dreams) == 2, "a reload goes on"
        page.close()


def test_a_game_that_cannot_be_placed_says_so(page: playwright.Page) -> None:
    with running(SwapToys(ToyGame)) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        until(lambda: shows(page, "green"), "the game")
        page.keyboard.press("g")
        until(lambda: shows(page, "red"), "the dream")
        page.keyboard.press("g")
        until(lambda: shows(page, "green"), "the game again")
        until(lambda: "goes on where it was left" in page.inner_text("#message"), "a line")
        page.close()


def test_a_dream_alone_offers_no_swap_and_several_images_come_at_once(page: playwright.Page) -> None:
    with running(FakeSource()) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        assert page.is_hidden("#swap")
        assert page.is_hidden("#split")
        files = [
            {"name": f"{name}.png", "mimeType": "image/png", "buffer": a_picture(colour)}
            for name, colour in (("attic", (200, 30, 30)), ("cellar", (30, 30, 200)))
        ]
        page.set_input_files("#file", files)
        page.wait_for_selector(".tile[title=cellar]", timeout=120_000)  # each is decoded in a process of its own
        page.wait_for_selector(".tile[title=attic][aria-pressed=true]")
        page.click("#tune")
        page.check("#smooth")
        page.click("#settings-close")
        page.wait_for_selector("body[data-state=playing]")
        page.keyboard.down("ArrowRight")
        page.keyboard.down("KeyW")
        before = page.evaluate(MEAN_COLOUR)
        until(lambda: sum(page.evaluate(MEAN_COLOUR)) != sum(before), "blended frames")
        page.close()
