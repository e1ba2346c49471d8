"""A browser, and pages of it that fail the test where anything goes wrong inside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.helpers.browser import chromium, playwright
from tests.helpers.small_model import small_engine

from reverie.engine.engine import Engine
from reverie.models.presets import tiny


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A tiny model with one start image."""
    return small_engine(tmp_path_factory.mktemp("models") / "tiny", tiny())


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def viewport() -> dict[str, int]:
    return {"width": 1000, "height": 640}


@pytest.fixture
def page(browser: playwright.Browser, viewport: dict[str, int]) -> Iterator[playwright.Page]:
    """A fresh page; whatever goes wrong inside it, or leaves this machine, fails the test."""
    context = browser.new_context(viewport=viewport)
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if "//127.0.0.1:" not in request.url else None)
    yield page
    context.close()
    assert [problem for problem in problems if not problem.startswith(("data:", "blob:"))] == []
