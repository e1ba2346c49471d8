"""The page in another language: chosen in the settings, or the browser's own; and every word of it is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.helpers.browser import needs_browser, playwright
from tests.helpers.fake_source import FakeSource, running

from reverie.serve import protocol

STATIC = Path(protocol.__file__).parent / "static"
NAMED = {"title", "aria-label", "placeholder", "alt"}
UNTRANSLATED = {"Reverie", "fps", "p95", "–", "Reverie needs JavaScript to show its world."}


class Words(HTMLParser):
    """Everything that index.html says to people."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._is_head = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_head = self._is_head and tag != "body"
        self.found |= {value for name, value in attrs if name in NAMED and value and not self._is_head}

    def handle_endtag(self, tag: str) -> None:
        self._is_head = self._is_head or tag == "body"

    def handle_data(self, data: str) -> None:
        if not self._is_head and re.search("[A-Za-z]", data):
            self.found.add(data.strip())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("code", [path.stem for path in sorted((STATIC / "languages").glob("*.js"))])
def test_a_language_has_every_word(code: str) -> None:
    script = f"""
        const base = {json.dumps(STATIC.as_uri())};
        const {{ TEXT }} = await import(`${{base}}/strings.js`);
        const {{ PAGE_ROWS, SWAP_ROWS }} = await import(`${{base}}/controls.js`);
        const other = await import(`${{base}}/languages/{code}.js`);
        const kinds = (table) => Object.fromEntries(Object.entries(table).map(([name, it]) => [name, typeof it]));
        const inner = (table) => ["kinds", "views", "collapses"].map((name) => Object.keys(table[name]));
        console.log(JSON.stringify({{
          texts: [kinds(TEXT), kinds(other.TEXT)], inner: [inner(TEXT), inner(other.TEXT)],
          words: Object.keys(other.WORDS), rows: [...PAGE_ROWS, ...SWAP_ROWS],
        }}));
    """
    done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["texts"][0] == found["texts"][1]
    assert found["inner"][0] == found["inner"][1]
    reader = Words()
    reader.feed((STATIC / "index.html").read_text(encoding="utf-8"))
    said = reader.found | {row["does"] for row in found["rows"]}
    assert sorted(said - set(found["words"]) - UNTRANSLATED) == []


@needs_browser
def test_the_language_is_chosen_in_the_settings_and_stays(page: playwright.Page) -> None:
    with running(FakeSource()) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        page.click("#tune")
        assert page.inner_text("#settings-title") == "Settings"
        page.select_option("#language", "de")
        page.wait_for_selector("html[lang=de] body[data-state=playing]")
        assert page.get_attribute("#tune", "aria-label") == "Einstellungen"
        assert page.get_attribute("kbd[data-code=KeyW]", "title") == "vorwärts"
        page.keyboard.press("p")
        page.wait_for_selector("body[data-state=paused]")
        assert page.inner_text("#veil-text").startswith("klicken")
        page.keyboard.press("h")
        told = page.inner_text("#help")
        assert "neu beginnen" in told
        assert "linker Daumen hoch" in told
        assert not re.search(r"\b(or|stick|thumb|button|mouse|look)\b", told), "nothing is left in English"
        page.close()
