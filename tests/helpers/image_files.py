"""Image files of one colour, in any format."""

from __future__ import annotations

import io

from PIL import Image


def file_of(mode: str = "RGB", size: tuple[int, int] = (300, 200), kind: str = "PNG", colour: object = None) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)  # type: ignore[arg-type]
    return buffer.getvalue()
