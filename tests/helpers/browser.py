"""A real browser: the flags that it starts with, and what pages are asked in it."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

try:
    from playwright import sync_api as playwright
except ImportError:
    playwright = None

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    playwright is None or CHROMIUM is None, reason="no browser here: pip install playwright, apt install chromium"
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--mute-audio",
]

MEAN_COLOUR = """() => {
  const canvas = document.getElementById("screen");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const sum = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sum[c] += data[i + c];
  return sum.map((value) => value / (data.length / 4));
}"""

PIXELS = 'document.getElementById("screen").toDataURL()'


@contextmanager
def chromium(flags: list[str] = FLAGS) -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition that the machine's load may delay."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def moves(page: playwright.Page, seconds: float) -> bool:
    """Whether the picture changes within `seconds`."""
    before = page.evaluate(PIXELS)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if page.evaluate(PIXELS) != before:
            return True
    return False


def a_picture(colour: tuple[int, int, int], size: tuple[int, int] = (320, 200)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def upload(page: playwright.Page, name: str, data: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})


COLOURS = """(selector) => {
  const isShown = (one) => one.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const found = [];
  for (const one of [...document.querySelectorAll(selector)].filter(isShown)) {
    const box = one.getBoundingClientRect();
    const inView = Math.min(box.right, box.bottom, innerWidth - box.left, innerHeight - box.top);
    if (Math.min(box.width, box.height, inView) < 6) continue;
    found.push([one.innerText || one.title, getComputedStyle(one).color.match(/[\\d.]+/g).map(Number), box.toJSON()]);
  }
  return found;
}"""

BARE = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("* { color: transparent !important; transition: none !important } svg { visibility: hidden }");
  document.adoptedStyleSheets = [sheet];
}"""


def luminance(colour: Any) -> Any:
    """Of sRGB values 0..255 in the last axis, as WCAG 2 defines it."""
    c = np.asarray(colour, np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrasts(page: playwright.Page, selector: str) -> dict[str, float]:
    """Of each visible element, by its text: of its colour with the pixel behind it that is nearest to it in light."""
    resting = "document.getAnimations().every((one) => one.playState !== 'running')"
    until(lambda: page.evaluate(resting), "what fades in to have come")
    found = page.evaluate(COLOURS, selector)
    page.evaluate(BARE)
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    page.evaluate("document.adoptedStyleSheets = []")
    result: dict[str, float] = {}
    for text, colour, box in found:
        x, y = int(box["x"]) + 2, int(box["y"]) + 2
        behind = luminance(shot[y : int(box["bottom"]) - 2, x : int(box["right"]) - 2].reshape(-1, 3))
        alpha = colour[3] if len(colour) == 4 else 1.0
        own = luminance(colour[:3])
        assert alpha == 1.0, f"{text!r} is see-through"
        light, dark = np.maximum(own, behind) + 0.05, np.minimum(own, behind) + 0.05
        result[text] = min(result.get(text, 99.0), float(np.percentile(light / dark, 2)))  # a rounded corner is no text
    return result
