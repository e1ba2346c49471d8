"""Rows with images in a scene's parquet files: encoded, and read within limits, for a scene may be a stranger's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.paths import local_path

MAX_ROWS = 4096
MAX_IMAGE_BYTES = 8 * 2**20
MAX_PIXELS = 4_000_000
"""Limits on what a scene of a stranger holds; an image is decoded only within the last two."""
ROWS_AT_ONCE = 16


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a file.  Raises KeyError for a missing column, ValueError for too many rows or a too large image, and
    what pyarrow raises for a file that it cannot read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(local_path(path)) as file:
        if lacking := sorted(set(columns) - set(file.schema_arrow.names)):
            raise KeyError(f"no column {lacking[0]}")
        count = file.metadata.num_rows
        if not 1 <= count <= MAX_ROWS:
            raise ValueError(f"expected 1 to {MAX_ROWS} rows, got {count}")
        batches = (batch.to_pylist() for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)))
        return [row for batch in batches for row in _small(batch)]


def _small(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as they are.  Raises ValueError for an image that is too large: a file can hold one image for all rows."""
    if any(isinstance(value, bytes) and len(value) > MAX_IMAGE_BYTES for row in rows for value in row.values()):
        raise ValueError(f"an image of more than {MAX_IMAGE_BYTES >> 20} MiB")
    return rows


def encode_image(image: Image.Image, kind: str = "WEBP", **options: Any) -> bytes:
    """An image as the bytes of a file; options are Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_exactly(levels: npt.NDArray[np.uint8]) -> bytes:
    """Levels (h, w) without loss: as WebP an eighth smaller than as PNG."""
    return encode_image(Image.fromarray(levels).convert("RGB"), lossless=True, quality=100, method=6)


def decode_image(content: bytes, mode: str) -> npt.NDArray[np.uint8]:
    """Pixels of a WebP or PNG file in a mode of Pillow.  Raises ValueError for a large one; decoders raise nearly
    anything on a damaged one."""
    if len(content) > MAX_IMAGE_BYTES:
        raise ValueError(f"an image of more than {MAX_IMAGE_BYTES >> 20} MiB")
    with Image.open(io.BytesIO(content), formats=("WEBP", "PNG")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"an image of {image.width}x{image.height} pixels")
        return np.asarray(image.convert(mode))
