"""Start pictures: anything that holds a picture -> uint8 RGB of the model's size.  Torch-free."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from reverie.errors import ImageError

MIN_SIDE_PX = 16
"""The smallest picture that can start a world."""
MAX_PIXELS = 50_000_000
"""The largest picture that is decoded; larger ones are refused before any memory is taken."""

BACKDROP = (96, 96, 96)
"""What shines through the transparent parts of a picture."""

ImageSource = str | Path | bytes | Image.Image | npt.NDArray[Any]
"""A path, the bytes of an image file, a PIL image, or an array `(H, W)`, `(H, W, 1 | 3 | 4)`, `(1, H, W, 3)`:
uint8, uint16 (full range), bool, or floats in [0, 1]."""

_warnings_lock = threading.Lock()


def load_image(source: ImageSource, resolution: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read `source`, crop its centre to the aspect of `resolution` (H, W) and resize it: `(H, W, 3)` uint8.

    A picture that has this size already is returned pixel for pixel.
    Raises ImageError for what is missing, unreadable, smaller than MIN_SIDE_PX or larger than MAX_PIXELS.
    """
    image = to_rgb(_from_array(source) if isinstance(source, np.ndarray) else _decode(source))
    _check_size(image)
    height, width = resolution
    scale = min(image.width / width, image.height / height)
    crop_w, crop_h = width * scale, height * scale
    left, top = (image.width - crop_w) / 2, (image.height - crop_h) / 2
    if image.size != (width, height):
        box = (left, top, left + crop_w, top + crop_h)
        image = image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    return np.array(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode -> RGB: deep greys scaled to 8 bits, transparency laid over a grey backdrop."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _deep_grey(image)
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        backdrop = Image.new("RGBA", layer.size, (*BACKDROP, 255))
        return Image.alpha_composite(backdrop, layer).convert("RGB")
    return image.convert("RGB")


def _decode(source: str | Path | bytes | Image.Image) -> Image.Image:
    name = source if isinstance(source, str | Path) else "the picture"
    if isinstance(source, Image.Image):
        image = source
        _check_size(image)
    else:
        if not isinstance(source, str | Path | bytes):
            raise ImageError(f"a picture is a path, bytes, a PIL image or an array, got {type(source).__name__}")
        image = _open(source, name)
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise ImageError(f"cannot read {_quote(name)}: the file is damaged ({_first_line(error)})") from None


def _open(source: str | Path | bytes, name: str | Path) -> Image.Image:
    """Open and fully decode; the size is checked from the header, before the pixels are decoded."""
    try:
        file = io.BytesIO(source if isinstance(source, bytes) else Path(source).read_bytes())
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's size warning: we have a limit of our own
            image = Image.open(file)
        _check_size(image)
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
        reason = error.strerror or f"the file is damaged ({_first_line(error)})"
        raise ImageError(f"cannot read {_quote(name)}: {reason}") from None
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise ImageError(f"cannot read {_quote(name)}: the file is damaged ({_first_line(error)})") from None
    return image


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
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ImageError("the picture has values that are not finite numbers")
    top = values.max(initial=0.0)
    full = 1.0 if image.mode == "F" and top <= 1 else 255.0 if image.mode != "I;16" and top <= 255 else 65535.0
    return Image.fromarray((values / full * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
