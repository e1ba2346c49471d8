"""Small colour profiles, made from their definition: three primaries or a grey axis, and one gamma."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of the red, green and blue primaries, adapted to D50 as profiles have them."""

Primaries = tuple[tuple[float, float, float], ...]

_D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: Primaries, gamma: float) -> bytes:
    tags = {b"wtpt": _xyz(_D50)}
    for name, primary in zip(b"rgb", primaries, strict=True):
        tags[bytes([name]) + b"XYZ"] = _xyz(primary)
        tags[bytes([name]) + b"TRC"] = _gamma(gamma)
    return _profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", {b"wtpt": _xyz(_D50), b"kTRC": _gamma(gamma)})


def expected_srgb(values: npt.NDArray[np.uint8], primaries: Primaries, gamma: float) -> npt.NDArray[np.float64]:
    """(..., 3) of the profile -> sRGB in 0..255, colours outside of it cut off."""
    linear = (values / 255.0) ** gamma
    xyz = linear @ np.array(primaries)
    return 255 * srgb_curve((xyz @ np.linalg.inv(np.array(SRGB))).clip(0, 1))


def srgb_curve(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text(b"desc"), b"cprt": _text(b"text"), **tags}
    table, data, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s4x4s4s4s8xI3i4s44x",
        offset + len(data), b"none", 0x02100000, b"mntr", space, b"XYZ ", b"acsp", b"none", b"none", b"none",
        0, *(round(value * 65536) for value in _D50), b"none",
    )  # fmt: skip
    assert len(header) == 128
    return header + table + data


def _xyz(value: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in value))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def _text(kind: bytes) -> bytes:
    if kind == b"desc":
        return b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(4 + 4 + 2 + 1 + 67)
    return b"text\0\0\0\0test\0"
