"""Start pictures over HTTP: thumbnails, and uploads of every kind of file that a person may try."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.helpers.fake_source import RESOLUTION, FakeSource
from tests.helpers.image_files import file_of

from reverie.serve.access import Access
from reverie.serve.app import create_app
from reverie.serve.host import Limits

HEIGHT, WIDTH = RESOLUTION
OPEN = Access(hosts=frozenset({"testserver"}))


@pytest.fixture
def http() -> Iterator[TestClient]:
    limits = Limits(max_uploads=2, max_upload_bytes=2 * 2**20)
    with TestClient(create_app(FakeSource(), limits, access=OPEN)) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


def test_the_page_and_its_parts_are_served(http: TestClient):
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert '<canvas id="screen"' in page.text
    for name in ("style.css", "main.js", "protocol.js"):
        assert http.get(f"/static/{name}").headers["cache-control"] == "no-cache"
    assert http.get("/static/../app.py").status_code == 404


def test_bundled_pictures(http: TestClient):
    starts = http.get("/starts").json()
    assert [start["name"] for start in starts] == ["room 0", "room 1"]
    for start in starts:
        picture = Image.open(io.BytesIO(http.get(f"/{start['thumbnail']}").content))
        assert picture.size == (WIDTH, HEIGHT)
    assert http.get("/starts/nobody.jpg").status_code == 404


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG"), ("RGB", "WEBP")],
)
def test_usable_pictures(http: TestClient, mode: str, kind: str):
    answer = http.post("/upload?name=attic", content=file_of(mode, kind=kind))
    assert answer.status_code == 200, answer.text
    start = answer.json()["start"]
    assert (answer.json()["type"], start["name"]) == ("uploaded", "attic")
    picture = Image.open(io.BytesIO(http.get(f"/{start['thumbnail']}").content))
    assert picture.size == (WIDTH, HEIGHT)


def test_an_upload_keeps_its_colours(http: TestClient):
    start = http.post("/upload", content=file_of(colour=(200, 40, 90))).json()["start"]
    picture = np.asarray(Image.open(io.BytesIO(http.get(f"/{start['thumbnail']}").content)))
    assert abs(picture.reshape(-1, 3).mean(0) - (200, 40, 90)).max() < 3


def huge_png() -> bytes:
    """A hundred megapixels in a file of a few kilobytes."""
    return file_of("1", (10_000, 10_000))


BAD = {
    "empty": (b"", 400, "no picture"),
    "text": (b"hello, I am no picture", 400, "not a picture"),
    "cut off": (file_of(size=(300, 301), colour=(1, 2, 3))[:90], 400, "damaged"),
    "one pixel": (file_of(size=(1, 1)), 400, "1x1"),
    "a hundred megapixels": (huge_png(), 400, "megapixels"),
    "too many bytes": (b"x" * (2 * 2**20 + 1), 413, "at most 2 MiB"),
}


@pytest.mark.parametrize(("data", "status", "words"), BAD.values(), ids=BAD.keys())
def test_unusable_pictures_get_one_clear_line(http: TestClient, data: bytes, status: int, words: str):
    answer = http.post("/upload", content=data)
    body = answer.json()
    assert (answer.status_code, body["type"], body["fatal"]) == (status, "error", False)
    assert words in body["message"]
    assert "\n" not in body["message"]
    assert http.post("/upload", content=file_of()).status_code == 200


def test_the_oldest_uploads_go(http: TestClient):
    ids = [http.post("/upload", content=file_of()).json()["start"]["id"] for _ in range(3)]
    assert [http.get(f"/starts/{name}.jpg").status_code for name in ids] == [404, 200, 200]


def test_a_game_takes_no_pictures():
    with TestClient(create_app(FakeSource(uploads=False), access=OPEN)) as client:
        while client.get("/health").status_code != 200:
            pass
        answer = client.post("/upload", content=file_of())
        assert answer.status_code == 409
        assert "real game" in answer.json()["message"]
