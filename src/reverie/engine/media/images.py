"""Start images: anything that holds an image -> uint8 RGB of the model's size.  Torch-free.

Images of strangers are read by `engine.image_worker`, in a process with limits on time and memory.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from reverie.errors import ImageError, first_line

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""The file formats that are opened.  Pillow opens many more, and hands some (EPS) to other programs."""

MIN_SIDE_PX = 16
"""The smallest side of an image that can start a world."""
MAX_PIXELS = 50_000_000
"""The largest image that is decoded; larger ones are refused before any memory is taken."""

BACKDROP = (96, 96, 96)
"""The colour behind the transparent parts of an image."""

ImageSource = str | Path | bytes | Image.Image | npt.NDArray[Any]
"""A path, the bytes of an image file, a PIL image, or an array `(H, W)`, `(H, W, 1 | 3 | 4)`, `(1, H, W, 3)`:
uint8, uint16 (full range), bool, or floats in [0, 1]."""

_TRANSPARENT = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
_DRAFT_SCALE = 4
_BAND_ROWS = 256
_TURNED = frozenset({5, 6, 7, 8})
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that puts the image upright; 5 to 8 exchange width and height."""

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_PROFILE_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}
"""Colour space of a profile (bytes 16 to 20 of its header) -> the image mode that it describes."""

_warnings_lock = threading.Lock()


def load_image(source: ImageSource, resolution: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read `source`, crop its centre to the aspect of `resolution` (H, W) and resize it: `(H, W, 3)` uint8 sRGB.

    The image is put upright as its EXIF orientation says, and a colour profile is converted to sRGB.
    An image that has this size already is returned pixel for pixel.
    Raises ImageError for what is missing, unreadable, smaller than MIN_SIDE_PX or larger than MAX_PIXELS.
    """
    image = _from_array(source) if isinstance(source, np.ndarray) else _decode(source, resolution)
    _check_size(image)
    profile = image.info.get("icc_profile")
    orientation = _orientation(image)
    height, width = resolution
    if orientation in _TURNED:
        height, width = width, height
    image = _resized(_eight_bit(image), (width, height))  # first: all that follows is then small, and its memory too
    image = _on_backdrop(image, profile)
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    return np.array(image)


def centre_crop(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest box (left, top, right, bottom) of `target`'s aspect in the middle of `size`, both (width, height).

    The box lies inside the image exactly, whatever the division rounds to.
    """
    width, height = size
    target_w, target_h = target
    if width * target_h <= height * target_w:
        top = max((height - width * target_h / target_w) / 2, 0.0)
        return 0.0, top, float(width), height - top
    left = max((width - height * target_w / target_h) / 2, 0.0)
    return left, 0.0, width - left, float(height)


def _resized(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    if image.size == target:
        return image
    box = centre_crop(image.size, target)
    return image.resize(target, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _eight_bit(image: Image.Image) -> Image.Image:
    """A mode of 8 bits a channel that can be resized: deep greys scaled, bitmaps and palettes resolved."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _deep_grey(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in _TRANSPARENT and "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode == "PA":
        return image.convert("RGBA")
    if image.mode in {"P", "HSV"}:  # hues cannot be averaged
        return image.convert("RGB")
    return image


def _on_backdrop(image: Image.Image, profile: bytes | None) -> Image.Image:
    """sRGB without transparency: what shows through is the backdrop."""
    if image.mode not in _TRANSPARENT:
        return _to_srgb(image, profile)
    is_grey = image.mode in {"LA", "La"}
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    colours = _to_srgb(layer.convert("L" if is_grey else "RGB"), profile)
    colours.putalpha(layer.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*BACKDROP, 255)), colours).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Any mode of 8 bits -> RGB, through the colour profile where it is one for such images.

    A profile that is damaged, or that belongs to another kind of image, is ignored, as browsers do.
    """
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _PROFILE_MODES.get(profile[16:20])
        if mode == "RGB" and image.mode in {"L", "YCbCr"}:
            image = image.convert("RGB")
        if image.mode != mode:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image,
            source,
            _SRGB,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB")
    return image.convert("RGB") if converted is None else converted


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the image itself was decoded; parsers of metadata raise nearly anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode(source: str | Path | bytes | Image.Image, resolution: tuple[int, int]) -> Image.Image:
    """A decoded image.  JPEGs much larger than `resolution` are decoded at a fraction of their size."""
    name = source if isinstance(source, str | Path) else "the picture"
    if isinstance(source, Image.Image):
        _check_size(source)
        try:
            source.load()
        except Exception as error:
            raise _damaged(name, error) from None
        return source
    if not isinstance(source, str | Path | bytes):
        raise ImageError(f"a picture is a path, bytes, a PIL image or an array, got {type(source).__name__}")
    return _open(source, name, resolution)


def _open(source: str | Path | bytes, name: str | Path, resolution: tuple[int, int]) -> Image.Image:
    """Open and fully decode; the size is checked from the header, before the pixels are decoded."""
    try:
        file = io.BytesIO(source if isinstance(source, bytes) else Path(source).read_bytes())
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's size warning: we have a limit of our own
            image = Image.open(file, formats=FORMATS)
        _check_size(image)
        if image.format == "JPEG":
            side = _DRAFT_SCALE * max(resolution)
            image.draft(None, (side, side))
        image.load()
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{_quote(name)} is too large; expected at most {MAX_PIXELS / 1e6:.0f} megapixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"{_quote(name)} is not a picture that can be read; use a PNG, JPEG or WebP file") from None
    except FileNotFoundError:
        raise ImageError(f"there is no picture {_quote(name)}") from None
    except OSError as error:
        if error.strerror is None:
            raise _damaged(name, error) from None
        raise ImageError(f"cannot read {_quote(name)}: {error.strerror}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from None
    return image


def _damaged(name: str | Path, error: Exception) -> ImageError:
    return ImageError(f"cannot read {_quote(name)}: the file is damaged ({first_line(error)})")


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"the picture has {width}x{height} pixels; expected at least {MIN_SIDE_PX}x{MIN_SIDE_PX}")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the picture has {width}x{height} pixels ({width * height / 1e6:.0f} megapixels); "
            f"expected at most {MAX_PIXELS / 1e6:.0f} megapixels, make it smaller first"
        )


def _deep_grey(image: Image.Image) -> Image.Image:
    """16 or 32 bits of grey -> 8, by the full range of 1, 255 or 65535 that the values fill; in bands of rows."""
    top = 0.0
    bands = [(0, y, image.width, min(y + _BAND_ROWS, image.height)) for y in range(0, image.height, _BAND_ROWS)]
    for band in bands:
        highest = float(np.asarray(image.crop(band)).max(initial=0))
        if not math.isfinite(highest):
            raise ImageError("the picture has values that are not finite numbers")
        top = max(top, highest)
    full = 1.0 if image.mode == "F" and top <= 1 else 255.0 if image.mode != "I;16" and top <= 255 else 65535.0
    grey = Image.new("L", image.size)
    for band in bands:
        values = np.asarray(image.crop(band)).astype(np.float32)
        if not np.isfinite(values).all():
            raise ImageError("the picture has values that are not finite numbers")
        np.multiply(values, 255 / full, out=values)
        grey.paste(Image.fromarray(values.round().clip(0, 255).astype(np.uint8)), band[:2])
    return grey


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    pixels = array[0] if array.ndim == 4 and len(array) == 1 else array
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4)):
        raise ImageError(f"a picture array must be (H, W) or (H, W, 1, 3 or 4), got {array.shape}")
    if pixels.size == 0:
        raise ImageError(f"the picture array is empty, got {array.shape}")
    return Image.fromarray(_to_uint8(pixels))


def _to_uint8(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if np.issubdtype(pixels.dtype, np.floating):
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ImageError("a picture array of floats must lie in [0, 1]")
        return (pixels * 255).round().astype(np.uint8)
    raise ImageError(f"a picture array must be uint8, uint16, bool or float, got {pixels.dtype}")


def _quote(name: str | Path) -> str:
    return str(name) if name == "the picture" else repr(str(name))
