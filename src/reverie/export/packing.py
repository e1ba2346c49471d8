"""Packed files of 16-bit numbers: all even bytes, then all odd ones, gzipped.

Sign, exponent and first bits of a float16 weight, one half of its bytes, repeat often; apart from the other half they
compress.  `unpackedGraph` in player/networks.js is the inverse.
"""

from __future__ import annotations

import gzip


def pack(content: bytes) -> bytes:
    """Compresses the content of a file."""
    return gzip.compress(content[::2] + content[1::2], compresslevel=6, mtime=0)


def unpack(packed: bytes) -> bytes:
    """Inverts `pack`."""
    halves = gzip.decompress(packed)
    content, middle = bytearray(len(halves)), (len(halves) + 1) // 2
    content[::2], content[1::2] = halves[:middle], halves[middle:]
    return bytes(content)
