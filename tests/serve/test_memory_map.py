"""The map of the page: only on request, at most once a second, and a clear answer where there is none."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from tests.helpers.fake_source import FakeSource

from reverie.serve.memory_map import EVERY_S, SIZE_PX, MapRequests, draw_map


def test_requests_are_answered_at_most_once_a_second() -> None:
    requests = MapRequests()
    assert not requests.take(5.0)
    requests.ask()
    assert requests.take(5.0)
    assert not requests.take(5.0)
    requests.ask()
    requests.ask()
    assert not requests.take(5.0 + 0.9 * EVERY_S)
    assert requests.take(5.0 + EVERY_S)
    assert not requests.take(9.0)


class Remembering:
    """A world that remembers one colour."""

    def memory_map(self, size: int = SIZE_PX) -> np.ndarray:
        return np.full((size, size, 3), (10, 200, 30), np.uint8)


def test_a_map_is_a_small_png() -> None:
    image = draw_map(Remembering()).image  # type: ignore[arg-type]
    assert image is not None
    kind, _, content = image.partition(",")
    assert kind == "data:image/png;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert decoded.shape == (SIZE_PX, SIZE_PX, 3)
    assert (decoded == (10, 200, 30)).all()


def test_a_world_without_a_memory_has_no_map() -> None:
    source = FakeSource()
    spec = source.load(lambda *_: None)
    world = source.open(spec.starts[0].picture, 0)
    assert draw_map(world).image is None
