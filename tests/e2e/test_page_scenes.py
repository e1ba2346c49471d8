"""The page's gallery with scenes in a real browser: captions, order, and the keys of the scene's game."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.helpers.browser import needs_browser, playwright
from tests.helpers.fake_source import FakeSource, FakeWorld, running

from reverie.serve.sources import Progress, ScenePlace, StartPicture, WorldSpec

pytestmark = needs_browser

GREEN = np.full((64, 112, 3), (20, 140, 60), np.uint8)


class SceneSource(FakeSource):
    """The fake dream with two starts in a scene before its images."""

    opened: list[ScenePlace]

    def load(self, progress: Progress) -> WorldSpec:
        self.opened = []
        spec = super().load(progress)
        scene = tuple(
            StartPicture(f"scene-yard-{n}", f"The yard, looking {way}", GREEN, ("forward",), False, "The yard",
                         ScenePlace(Path("yard"), n))
            for n, way in enumerate(("north", "south"))
        )  # fmt: skip
        return WorldSpec(
            **{name: getattr(spec, name) for name in WorldSpec.__slots__ if name != "starts"},
            starts=(*scene, *spec.starts),
        )

    def open_scene(self, place: ScenePlace, seed: int) -> FakeWorld:
        self.opened.append(place)
        return self.open(GREEN, seed)


def test_scenes_come_first_and_show_the_keys_of_their_game(page: playwright.Page) -> None:
    source = SceneSource()
    with running(source) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-state=playing]")
        assert source.opened == [ScenePlace(Path("yard"), 0)]
        tiles = page.eval_on_selector_all("#gallery .tile[data-id]", "all => all.map((one) => one.dataset.id)")
        assert tiles == ["scene-yard-0", "scene-yard-1", "start-0", "start-1"]
        assert page.eval_on_selector_all(".tile .caption", "all => all.map((one) => one.textContent)") == 2 * [
            "The yard"
        ]
        caps = "[...document.querySelectorAll('kbd[data-code]')].filter((one) => one.checkVisibility())"
        shown = f"{caps}.map((one) => one.dataset.code)"
        assert "KeyW" in page.evaluate(shown)
        assert "KeyS" not in page.evaluate(shown)
        page.click("[data-id=start-1]")
        page.wait_for_selector("[data-id=start-1][aria-pressed=true]")
        page.wait_for_selector("body[data-state=playing]")
        assert "KeyS" in page.evaluate(shown), "of the model's image, whose game is not known, all keys are shown"
        page.click("[data-id=scene-yard-1]")
        page.wait_for_selector("[data-id=scene-yard-1][aria-pressed=true]")
        page.wait_for_selector("body[data-state=playing]")
        assert source.opened[-1] == ScenePlace(Path("yard"), 1)
        page.set_input_files("#file", {"name": "attic.png", "mimeType": "image/png", "buffer": _png((200, 40, 40))})
        page.wait_for_selector("button.tile[data-id^=own-][aria-pressed=true][title=attic]")
        last = page.eval_on_selector_all("#gallery .tile[data-id]", "all => all.at(-1).title")
        assert last == "attic", "own images come last"
        page.close()


def _png(colour: tuple[int, int, int]) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (112, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()
