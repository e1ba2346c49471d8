"""The map in a real browser: M shows it over the world and hides it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from tests.helpers.fake_source import FakeSource, FakeWorld, running

from reverie.serve.sources import Picture

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt install chromium")


class RememberingWorld(FakeWorld):
    def memory_map(self, size: int = 192) -> np.ndarray:
        return np.full((size, size, 3), (10, 200, 30), np.uint8)


class RememberingSource(FakeSource):
    def open(self, picture: Picture | None, seed: int) -> FakeWorld:
        assert picture is not None
        return RememberingWorld(self, picture)


@pytest.fixture
def page() -> Iterator[playwright.Page]:
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1000, "height": 640})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


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
