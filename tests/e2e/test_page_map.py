"""The map in a real browser: M shows it over the world and hides it again."""

from __future__ import annotations

import numpy as np
from tests.helpers.browser import needs_browser, playwright
from tests.helpers.fake_source import FakeSource, FakeWorld, running

from reverie.serve.sources import Picture

pytestmark = needs_browser


class RememberingWorld(FakeWorld):
    def memory_map(self, size: int = 192) -> np.ndarray:
        return np.full((size, size, 3), (10, 200, 30), np.uint8)


class RememberingSource(FakeSource):
    def open(self, picture: Picture | None, seed: int) -> FakeWorld:
        assert picture is not None
        return RememberingWorld(self, picture)


def test_a_key_shows_the_map_and_hides_it_again(page: playwright.Page) -> None:
    with running(RememberingSource()) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        assert not page.is_visible("#map")
        page.keyboard.press("m")
        page.wait_for_selector("#map", state="visible")
        page.wait_for_function("() => document.querySelector('#map').naturalWidth === 192")
        page.keyboard.press("m")
        page.wait_for_selector("#map", state="hidden")
        page.close()


def test_a_world_without_a_memory_says_so(page: playwright.Page) -> None:
    with running(FakeSource()) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        page.keyboard.press("m")
        page.wait_for_function("() => document.querySelector('#message').textContent.includes('no memory')")
        assert not page.is_visible("#map")
        page.close()
