from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reverie.engine.media.images import BACKDROP, load_image
from reverie.errors import ImageError

SIZE = (128, 224)


def picture(height: int = 128, width: int = 224, mode: str = "RGB") -> Image.Image:
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


def to_bytes(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("size", [(128, 224), (16, 16), (600, 40), (40, 600), (1000, 1750)])
def test_any_size_becomes_the_models(size: tuple[int, int]) -> None:
    frame = load_image(picture(*size), SIZE)
    assert frame.shape == (128, 224, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.owndata


def test_the_right_size_is_left_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 224, 3), dtype=np.uint8)
    assert np.array_equal(load_image(pixels, SIZE), pixels)
    assert np.array_equal(load_image(pixels[None], SIZE), pixels)
    assert np.array_equal(load_image(to_bytes(Image.fromarray(pixels)), SIZE), pixels)


def test_the_centre_is_kept() -> None:
    wide = np.zeros((128, 448, 3), np.uint8)
    wide[:, 112:336] = 200
    assert (load_image(wide, SIZE) == 200).all()


def test_path_bytes_pil_and_array_agree(tmp_path) -> None:
    image = picture(300, 500)
    path = tmp_path / "a.png"
    image.save(path)
    expected = load_image(np.asarray(image), SIZE)
    for source in (path, str(path), path.read_bytes(), image):
        assert np.array_equal(load_image(source, SIZE), expected)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBA", "LA", "PA", "I", "F", "I;16"])
def test_every_mode_shows_the_same_ramp(mode: str) -> None:
    grey = picture(mode="L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode in {"LAB", "PA"}:
        image = Image.new(mode, grey.size)
        assert load_image(image, SIZE).shape == (128, 224, 3)
        return
    else:
        image = (grey if mode in {"L", "1", "I", "F", "LA"} else grey.convert("RGB")).convert(mode)
    frame = load_image(image, SIZE).astype(int)
    assert frame[:, :40].mean() < 60
    assert frame[:, -40:].mean() > 195


def test_cmyk_jpeg() -> None:
    frame = load_image(to_bytes(picture(mode="CMYK"), "JPEG"), SIZE)
    assert frame[:, -40:].mean() > 200


def test_transparency_shows_the_backdrop() -> None:
    clear = Image.new("RGBA", (224, 128), (255, 0, 0, 0))
    assert tuple(load_image(clear, SIZE)[0, 0]) == BACKDROP
    palette = Image.new("P", (224, 128), 0)
    assert tuple(load_image(to_bytes(palette, transparency=0), SIZE)[0, 0]) == BACKDROP


def test_phone_pictures_are_turned_upright() -> None:
    image = picture(448, 256)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees to the right
    turned = load_image(to_bytes(image, "JPEG", exif=exif), SIZE).astype(int)
    assert turned[:30].mean() < turned[-30:].mean() - 50
    assert abs(turned[:, :30].mean() - turned[:, -30:].mean()) < 5


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.bool_])
def test_array_types(dtype) -> None:
    pixels = np.zeros((128, 224), dtype)
    pixels[:, 112:] = 65535 if dtype == np.uint16 else 1
    frame = load_image(pixels, SIZE)
    assert frame[:, :112].max() == 0
    assert frame[:, 112:].min() == 255


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Image.new("RGB", (1, 1)), "1x1 pixels; expected at least 16x16"),
        (to_bytes(Image.new("RGB", (1, 1))), "1x1 pixels; expected at least 16x16"),
        (to_bytes(Image.new("1", (12_500, 8_000))), "100 megapixels"),
        (to_bytes(Image.new("1", (20_000, 10_000))), "too large"),
        (b"", "not a picture"),
        (b"not a picture at all", "not a picture"),
        (to_bytes(picture())[:200], "damaged"),
        (to_bytes(picture(400, 400), "JPEG")[:600], "damaged"),
        ("no/such/file.png", "there is no picture 'no/such/file.png'"),
        (".", "cannot read '.'"),
        (np.zeros((128, 224, 5), np.uint8), r"got \(128, 224, 5\)"),
        (np.zeros((0, 224, 3), np.uint8), "empty"),
        (np.zeros((128, 224, 3), np.int64), "int64"),
        (np.full((128, 224, 3), 2.0), r"\[0, 1\]"),
        (np.full((128, 224, 3), np.nan), r"\[0, 1\]"),
        (Image.fromarray(np.full((32, 32), np.nan, np.float32)), "finite"),
        (None, "got NoneType"),
        (42, "got int"),
    ],
)
def test_bad_pictures_say_what_is_wrong(source, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source, SIZE)
    assert "\n" not in str(caught.value)
