"""Recorded depth and body masks: a parquet file beside each episode's rows, one row a frame that has them.

    depth/chunk-000/file-000.parquet    episode_index, frame_index, depth (PNG), body (PNG)

It lies outside `data/`, so that LeRobot's readers pass it over.  Depth is the logarithm of metres as 16-bit grey PNG,
ENCODING states the formula; 0 is the sky.  Body masks are 1-bit PNG.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from reverie.errors import DataError
from reverie.types import GEOMETRY_SHAPE, ClipDepth, Geometry

DEPTH_PATH = "depth/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
COLUMNS = ("episode_index", "frame_index", "depth", "body")

MIN_DEPTH_M = 0.05
"""Depth of code 1; nearer surfaces get this value."""
STEPS_PER_E = 256
"""Codes by which the depth grows to 2.718 times: one code is 0.4 %."""
ENCODING = f"png-uint16: 0 sky, else metres = {MIN_DEPTH_M} * exp((code - 1) / {STEPS_PER_E})"
"""Encoding of depth, as the files and `meta/reverie.json` state it."""


@dataclass(frozen=True, slots=True)
class DepthRecord:
    """The geometry of frame `frame_index` of an episode, as it is stored: two PNG files."""

    frame_index: int
    depth: bytes
    body: bytes

    @classmethod
    def of(cls, frame_index: int, geometry: Geometry) -> DepthRecord:
        """Encodes a geometry."""
        return cls(frame_index, _png(encode_depth(geometry.depth)), _png(geometry.body))


def encode_depth(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Codes of depths in metres.  Raises DataError for what is not a number, or negative."""
    if not (depth >= 0).all():
        raise DataError(f"depth must be metres of 0 or more, or infinite; got {depth.min()} as the least")
    is_sky = np.isinf(depth)
    steps = np.log(np.where(is_sky, 1.0, depth).clip(MIN_DEPTH_M) / MIN_DEPTH_M) * STEPS_PER_E
    return np.where(is_sky, 0, 1 + steps.round().clip(0, 65534)).astype(np.uint16)


def decode_depth(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Depths in metres of codes; the sky is infinite."""
    metres = MIN_DEPTH_M * np.exp((codes.astype(np.float32) - 1.0) / STEPS_PER_E)
    return np.where(codes == 0, np.inf, metres).astype(np.float32)


def depth_notes(every_frames: int) -> dict[str, Any]:
    """Entry for `meta/reverie.json` that describes the depth of a dataset."""
    return {"path": DEPTH_PATH, "encoding": ENCODING, "shape": list(GEOMETRY_SHAPE), "every_frames": every_frames}


def depth_table(episode: int, records: Sequence[DepthRecord]) -> pa.Table:
    """The rows of one episode's file."""
    table = pa.table(
        {
            "episode_index": pa.array([episode] * len(records), pa.int64()),
            "frame_index": pa.array([record.frame_index for record in records], pa.int64()),
            "depth": pa.array([record.depth for record in records], pa.binary()),
            "body": pa.array([record.body for record in records], pa.binary()),
        }
    )
    return table.replace_schema_metadata({"encoding": ENCODING})


def check_table(table: pa.Table, path: Path) -> pa.Table:
    """Raises DataError unless `table`, read from `path`, is one that this version can read."""
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise DataError(f"{path}: the column {missing[0]} is missing, has {table.column_names}; record it again")
    encoding = (table.schema.metadata or {}).get(b"encoding", b"").decode("utf-8", "replace")
    if encoding != ENCODING:
        raise DataError(f"{path}: depth is encoded as {encoding!r}, expected {ENCODING!r}; record it again")
    return table


def read_clip_depth(table: pa.Table, path: Path, episode: int, start: int, length: int) -> ClipDepth:
    """The depth of frames `start` to `start + length` of an episode.  Raises DataError for damaged images."""
    frame = table.column("frame_index")
    inside = pc.and_(pc.greater_equal(frame, start), pc.less(frame, start + length))  # type: ignore[attr-defined]
    rows = table.filter(pc.and_(inside, pc.equal(table.column("episode_index"), episode)))  # type: ignore[attr-defined]
    frames = np.asarray(rows.column("frame_index"), np.int64) - start
    depth = np.empty((len(frames), *GEOMETRY_SHAPE), np.float32)
    body = np.empty((len(frames), *GEOMETRY_SHAPE), np.bool_)
    for i, row in enumerate(rows.select(["frame_index", "depth", "body"]).to_pylist()):
        where = f"{path}: frame {row['frame_index']} of episode {episode}"
        depth[i] = decode_depth(_pixels(row["depth"], where).astype(np.uint16))
        body[i] = _pixels(row["body"], where).astype(np.bool_)
    return ClipDepth(frames, depth, body)


def _png(pixels: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _pixels(content: bytes, where: str) -> npt.NDArray[np.generic]:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            found = (*image.size[::-1], image.mode)
            pixels = np.asarray(image) if found[:2] == GEOMETRY_SHAPE else None  # a larger one is not unpacked
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} has a damaged image of depth ({error}); record it again") from error
    if pixels is None or pixels.shape != GEOMETRY_SHAPE:
        raise DataError(f"{where} has depth of {found}, expected {GEOMETRY_SHAPE} in grey; record it again")
    return pixels
