"""Start images over all sizes, modes, formats, orientations and colour profiles; damaged ones; hostile ones."""

from __future__ import annotations

import ast
import asyncio
import io
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from tests.helpers.colour_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    expected_srgb,
    grey_profile,
    rgb_profile,
    srgb_curve,
)

import reverie
from reverie.engine.media.image_worker import load_untrusted
from reverie.engine.media.images import BACKDROP, FORMATS, centre_crop, load_image
from reverie.errors import ImageError

SIZE = (128, 224)
TARGETS = [(128, 224), (352, 640), (64, 112)]
LOSSLESS = ["PNG", "TIFF", "BMP"]
PROPERTY = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

memory_limits = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
sides = st.integers(16, 4096)
colours = st.tuples(*[st.integers(0, 255)] * 3)


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey_image(size: tuple[int, int], level: int, mode: str) -> Image.Image:
    """An image of one grey, in `mode`; in a palette it is exact."""
    image = Image.new("RGB", size, (level,) * 3)
    if mode in ("P", "PA"):
        return image.quantize().convert(mode)
    return image.convert("L" if mode in ("1", "LA") else "RGB").convert(mode)


# --------------------------------------------------------------------------------------------------------- sizes


def test_the_crop_lies_inside_every_image() -> None:
    for width in range(16, 4097):
        for height in (16, 17, 900, 1600, 1601, 4096, random.Random(width).randint(16, 4096)):
            for target_h, target_w in TARGETS:
                left, top, right, bottom = centre_crop((width, height), (target_w, target_h))
                assert 0 <= left < right <= width, (width, height)
                assert 0 <= top < bottom <= height, (width, height)


@PROPERTY
@given(sides, sides, st.sampled_from(TARGETS))
def test_the_crop_has_the_targets_shape_and_is_in_the_middle(width: int, height: int, target: tuple[int, int]) -> None:
    left, top, right, bottom = centre_crop((width, height), target[::-1])
    assert (right - left) * target[0] == pytest.approx((bottom - top) * target[1])
    assert left + right == pytest.approx(width)
    assert top + bottom == pytest.approx(height)
    assert left < 1e-9 or top < 1e-9


@PROPERTY
@given(sides, sides, colours, st.sampled_from(TARGETS))
@example(900, 1600, (10, 20, 30), SIZE)
@example(4096, 4096, (10, 20, 30), SIZE)
@example(16, 4096, (10, 20, 30), SIZE)
@example(4096, 16, (10, 20, 30), SIZE)
def test_every_size_is_read(width: int, height: int, colour: tuple[int, ...], target: tuple[int, int]) -> None:
    frame = load_image(Image.new("RGB", (width, height), colour), target)
    assert frame.shape == (*target, 3)
    assert (frame == np.array(colour, np.uint8)).all()


@PROPERTY
@given(
    sides,
    sides,
    st.integers(0, 255),
    st.sampled_from(["1", "L", "P", "CMYK", "YCbCr", "RGBA", "LA", "PA", "I", "F", "I;16"]),
)
def test_every_mode_of_every_size_is_read(width: int, height: int, level: int, mode: str) -> None:
    if mode == "I;16":
        image = Image.new(mode, (width, height), level * 257)
        level = round(level * 257 / 65535 * 255)
    elif mode in ("I", "F"):
        image = Image.new(mode, (width, height), level)
        level = 255 if mode == "F" and level == 1 else level  # a float image that ends at 1 is taken to be in [0, 1]
    else:
        level = 255 * (level > 127) if mode == "1" else level
        image = grey_image((width, height), level, mode)
    frame = load_image(image, SIZE).astype(int)
    assert frame.shape == (*SIZE, 3)
    assert abs(frame - level).max() <= 1


@PROPERTY
@given(sides, sides, st.integers(0, 255))
def test_transparency_of_every_size_lets_the_backdrop_through(width: int, height: int, alpha: int) -> None:
    frame = load_image(Image.new("RGBA", (width, height), (200, 40, 10, alpha)), SIZE).astype(int)
    expected = np.array((200, 40, 10)) * alpha / 255 + np.array(BACKDROP) * (1 - alpha / 255)
    assert abs(frame - expected).max() <= 3  # colours are averaged by their alpha, in whole numbers


@memory_limits
def test_the_memory_of_a_deep_image_is_that_of_its_pixels() -> None:
    """90 KB of PNG once took 1.1 GB: with a limit of 250 MB, 25 megapixels of 16 bits are read."""
    data = file_of(Image.new("I;16", (5000, 5000), 40_000), "PNG")
    frame = asyncio.run(load_untrusted(data, SIZE, max_memory_bytes=250_000_000))
    assert abs(frame.astype(int) - round(40_000 / 257)).max() <= 1


# --------------------------------------------------------------------------------------- orientations and formats


def quadrants(width: int, height: int) -> Image.Image:
    """Another colour in each quarter, so that each orientation looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 230, 20, 20
    pixels[: height // 2, width // 2 :] = 20, 230, 20
    pixels[height // 2 :, : width // 2] = 20, 20, 230
    pixels[height // 2 :, width // 2 :] = 230, 230, 20
    return Image.fromarray(pixels)


@PROPERTY
@given(st.integers(16, 700), st.integers(16, 700), st.integers(1, 8), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
@example(900, 1600, 6, "JPEG")
@example(1600, 900, 5, "TIFF")
def test_every_orientation_is_put_upright(width: int, height: int, orientation: int, kind: str) -> None:
    image = quadrants(width, height)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    frame = load_image(file_of(image, kind, exif=exif, **lossless), SIZE).astype(int)
    tagged = image.copy()
    tagged.getexif()[0x0112] = orientation
    upright = load_image(np.asarray(ImageOps.exif_transpose(tagged)), SIZE).astype(int)
    corners = np.ix_([4, -5], [4, -5])
    assert abs(frame[corners] - upright[corners]).max() < 40  # a JPEG's colours bleed
    if kind != "JPEG":
        assert abs(frame - upright).mean() < 1  # the two axes are resized in another order, which rounds otherwise


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(900, 1600), (2300, 1500), (224, 128)])
def test_every_named_format_is_read(kind: str, size: tuple[int, int]) -> None:
    frame = load_image(file_of(Image.new("RGB", size, (200, 120, 40)), kind), SIZE).astype(int)
    assert abs(frame - (200, 120, 40)).max() <= (4 if kind in ("GIF", "JPEG", "WEBP") else 0)


def test_no_other_format_is_read() -> None:
    """Pillow hands some formats to other programs (EPS to Ghostscript), and has decoders that few look after."""
    Image.init()
    tried = []
    for kind in sorted(set(Image.SAVE) - {*FORMATS, "MPO", "DIB", "PDF"}):
        for mode in ("RGB", "L", "1"):
            try:
                data = file_of(Image.new(mode, (64, 64)), kind)
            except Exception:
                continue
            with pytest.raises(ImageError, match="not a picture"):
                load_image(data, SIZE)
            tried.append(kind)
            break
    assert {"EPS", "PPM", "ICO", "TGA"} <= set(tried)


def test_a_program_in_an_image_does_not_run(tmp_path: Path) -> None:
    for program in (f"({tmp_path}/x) (w) file closefile", "{} loop"):
        eps = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{program}\nshowpage\n".encode()
        with pytest.raises(ImageError, match="not a picture"):
            asyncio.run(load_untrusted(eps, SIZE))
        with pytest.raises(ImageError, match="not a picture"):
            load_image(eps, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_every_place_that_opens_an_image_names_the_formats() -> None:
    places = 0
    for path in Path(reverie.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                places += 1
                assert any(keyword.arg == "formats" for keyword in node.keywords), f"{path}:{node.lineno}"
    assert places > 0


# ------------------------------------------------------------------------------------------------ colour profiles


@PROPERTY
@given(
    colours,
    st.sampled_from([(DISPLAY_P3, 2.2), (ADOBE_RGB, 2.19921875), (SRGB, 1.8)]),
    st.sampled_from(["PNG", "TIFF", "WEBP"]),
    st.sampled_from([(224, 128), (500, 900), (1600, 900)]),
)
@example((255, 0, 0), (DISPLAY_P3, 2.2), "PNG", (224, 128))
@example((0, 255, 0), (ADOBE_RGB, 2.19921875), "PNG", (224, 128))
@example((120, 180, 90), (ADOBE_RGB, 2.19921875), "PNG", (224, 128))
def test_colour_profiles_are_converted(
    colour: tuple[int, ...], profile: tuple, kind: str, size: tuple[int, int]
) -> None:
    primaries, gamma = profile
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(Image.new("RGB", size, colour), kind, icc_profile=rgb_profile(primaries, gamma), **options)
    expected = expected_srgb(np.array(colour, np.uint8), primaries, round(gamma * 256) / 256)
    frame = load_image(data, SIZE).astype(float)
    assert (frame == frame[0, 0]).all()
    assert abs(frame[0, 0] - expected).max() <= 4, expected


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "I;16"])
def test_a_profile_holds_for_every_mode(mode: str) -> None:
    grey = srgb_curve(np.array((120 / 255) ** 1.2))[()] * 255
    profile = rgb_profile(SRGB, 1.2)
    if mode == "I;16":
        image, profile = Image.new(mode, (300, 200), 120 * 257), grey_profile(1.2)
    else:
        image = grey_image((300, 200), 120, mode)
    frame = load_image(file_of(image, "PNG", icc_profile=profile), SIZE)
    assert abs(frame.astype(float) - grey).max() <= 4


def test_a_grey_profile() -> None:
    frame = load_image(file_of(Image.new("L", (300, 200), 120), "PNG", icc_profile=grey_profile(1.2)), SIZE)
    assert abs(frame.astype(float) - srgb_curve(np.array((120 / 255) ** 1.2))[()] * 255).max() <= 2


@pytest.mark.parametrize(
    "profile", [b"no profile", rgb_profile(SRGB, 2.2)[:200], grey_profile(1.2), bytes(3000)], ids=range(4)
)
def test_a_profile_that_does_not_fit_is_ignored(profile: bytes) -> None:
    frame = load_image(file_of(Image.new("RGB", (224, 128), (9, 120, 77)), "PNG", icc_profile=profile), SIZE)
    assert (frame == (9, 120, 77)).all()


# ---------------------------------------------------------------------------------------------- damaged and hostile


@settings(PROPERTY, max_examples=250)
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_files_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = (
        {"exif": exif, "icc_profile": rgb_profile(DISPLAY_P3, 2.2)} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    )
    file = bytearray(file_of(quadrants(60, 40), kind, **options))
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(file) - 1))
        file[place] = data.draw(st.integers(0, 255))
    file = file[: data.draw(st.integers(0, len(file)))] if data.draw(st.booleans()) else file
    try:
        frame = load_image(bytes(file), SIZE)
    except ImageError as refusal:
        message = str(refusal)
        assert "\n" not in message
    else:
        assert frame.shape == (*SIZE, 3)
        assert frame.dtype == np.uint8


def test_the_worker_reads_what_the_process_reads() -> None:
    data = file_of(quadrants(900, 1600), "PNG", icc_profile=rgb_profile(DISPLAY_P3, 2.2))
    assert np.array_equal(asyncio.run(load_untrusted(data, SIZE)), load_image(data, SIZE))
    with pytest.raises(ImageError, match="1x1 pixels"):
        asyncio.run(load_untrusted(file_of(Image.new("RGB", (1, 1)), "PNG"), SIZE))


@memory_limits
def test_an_image_that_takes_too_much_memory_is_refused() -> None:
    data = file_of(Image.new("RGB", (6000, 6000)), "PNG")
    with pytest.raises(ImageError, match="within the limits"):
        asyncio.run(load_untrusted(data, SIZE, max_memory_bytes=20_000_000))


def test_an_image_that_takes_too_long_is_refused() -> None:
    with pytest.raises(ImageError, match="within the limits"):
        asyncio.run(load_untrusted(file_of(quadrants(900, 1600), "PNG"), SIZE, max_seconds=0.01))
