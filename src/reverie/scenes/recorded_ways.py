"""Recorded ways: where the cameras of a scene's recordings were, and how far from there others of that place were.

Where a game moves the camera behind its player along a track, nothing is to be seen beside the ways: the ground of such
a scene is as wide as walks that were held out say, and so is the heading there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie.errors import DataError, first_line
from reverie.paths import local_path
from reverie.types import FPS
from reverie.vision.projection import wrap_degrees

FILE = "ways.parquet"
COLUMNS = ("x", "y", "z", "yaw", "heading")
MAX_WAYS = 16_384
MAX_M = 1e6
"""The largest coordinate."""
HEIGHT_FACTOR = 2.0
"""A metre up or down counts as so many: what is a little too high or too low looks wrong sooner."""
STRAYED = 0.98
"""Share of the held-out poses that are within the radius and the heading."""
MIN_RADIUS_M, MIN_HEADING_DEG = 0.3, 10.0
"""Less is no room to play in."""
FINE_M, FINE_DEG = 0.25, 10.0
"""Poses nearer to each other than this are one."""
JUMP_M, JUMP_DEG = 3.0, 40.0
"""No camera moves or turns so far in a frame; it was put there."""
BEFORE_JUMP = 2 * FPS
"""Frames before a jump that belong to it."""
MAX_HELD_OUT = 4000
BEND = 2.0
"""Radii within which poses are of one bend, in which a camera may have any of their headings."""
PART = 256
"""Held-out poses that are looked at at once."""


Poses = npt.NDArray[np.float32]


class RecordedWays(NamedTuple):
    """poses: (n, 4) x, y, z in metres and yaw in degrees; heading: (n,) degrees; radius: metres.

    A camera is on them if it is within the radius of one of them, and turned from it by at most its heading.
    """

    poses: npt.NDArray[np.float32]
    heading: npt.NDArray[np.float32]
    radius: float


def measure_ways(recorded: Sequence[Poses], held_out: Sequence[Poses], most_m: float) -> RecordedWays | None:
    """Thins the poses (frames, 6) of recorded walks, and measures on walks held out how far from them one may be.

    None where that is more than `most_m`: walks go anywhere there; and where nothing is left to measure.
    """
    whole, others = (
        torch.from_numpy(np.concatenate([walk[find_walked(walk)] for walk in walks])) for walks in (recorded, held_out)
    )
    if not len(whole) or not len(others):
        return None
    others = others[:: max(1, len(others) // MAX_HELD_OUT), :4]
    fine = _thin(whole[:, :4], FINE_M)
    radius, _ = _measure_strays(fine, others)
    step = max(FINE_M, radius / 2)
    while len(poses := _thin(fine, step)) > MAX_WAYS:
        step *= 1.5
    radius, slack = _measure_strays(poses, others)
    if radius > most_m:
        return None
    heading = (_measure_bends(poses, radius) + slack).clamp(max=180)
    return RecordedWays(poses.numpy(), heading.numpy(), radius)


def find_walked(walk: Poses) -> npt.NDArray[np.bool_]:
    """Marks the sound poses of a walk (frames, 6) but for what led to a jump of the camera, a fall: it goes on
    elsewhere, so that is no way."""
    moved = np.linalg.norm(np.diff(walk[:, :3], axis=0), axis=1)
    turns = np.abs(wrap_degrees(np.diff(walk[:, 3])))
    jumps = np.flatnonzero((moved > JUMP_M) | (turns > JUMP_DEG))
    kept = np.isfinite(walk).all(axis=1)
    assert isinstance(kept, np.ndarray)
    for jump in jumps:
        kept[max(0, jump + 1 - BEFORE_JUMP) : jump + 1] = False
    return kept


def _thin(poses: Tensor, step_m: float) -> Tensor:
    """One pose (n, 4) of each cell of places and headings, in their order."""
    cells = torch.cat([poses[:, :3] / step_m, (poses[:, 3:] % 360) / FINE_DEG], 1).round().numpy()
    _, first = np.unique(cells, axis=0, return_index=True)
    return poses[torch.from_numpy(np.sort(first))]


def _measure_strays(poses: Tensor, held_out: Tensor) -> tuple[float, float]:
    """Metres and degrees from the poses within which the held-out ones are."""
    parts = [measure_offsets(part, poses) for part in held_out.split(PART)]
    nearest = torch.cat([away.amin(1) for away, _ in parts])
    radius = max(MIN_RADIUS_M, float(nearest.quantile(STRAYED)))
    turns = torch.cat([turn.abs().masked_fill(away > radius, torch.inf).amin(1) for away, turn in parts])
    return radius, max(MIN_HEADING_DEG, float(turns[turns.isfinite()].quantile(STRAYED)))


def measure_offsets(at: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Metres, and signed degrees of yaw, of cameras (..., k, 4) from poses (n, 4): twice (..., k, n)."""
    return measure_distances(at[..., :3], poses[:, :3]), wrap_degrees(at[..., 3:4] - poses[:, 3])


def measure_distances(at: Tensor, places: Tensor) -> Tensor:
    """Metres of places (..., k, 3) from others (n, 3), heights times `HEIGHT_FACTOR`: (..., k, n).

    Exact far from the origin too, where products of matrices would lose the metres.
    """
    at, places = (torch.cat([x[..., :2], HEIGHT_FACTOR * x[..., 2:3]], -1) for x in (at, places))
    return torch.cdist(at, places.expand(*at.shape[:-2], -1, -1), compute_mode="donot_use_mm_for_euclid_dist")


def _measure_bends(poses: Tensor, radius: float) -> Tensor:
    """Degrees (n,) by which cameras near to each pose (n, 4) were turned from it at most: in bends many."""
    found = []
    for part in poses.split(PART):
        away, turn = measure_offsets(part, poses)
        found.append(turn.abs().masked_fill(away > BEND * radius, 0).amax(1))
    return torch.cat(found)


def write_ways(folder: Path, ways: RecordedWays | None) -> None:
    """Writes the file; without ways there is none afterwards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FILE
    if ways is None:
        path.unlink(missing_ok=True)
        return
    table = pa.table(dict(zip(COLUMNS, [*ways.poses.T, ways.heading], strict=True)))
    limits = {"radius": f"{ways.radius:.4f}"}
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    pq.write_table(table.replace_schema_metadata(limits), local_path(temporary), compression="zstd")
    os.replace(temporary, path)


def read_ways(folder: Path) -> RecordedWays | None:
    """The ways of a scene; None where it has none.  Raises DataError for another file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with pq.ParquetFile(local_path(path)) as file:
            if not 1 <= file.metadata.num_rows <= MAX_WAYS:
                raise ValueError(f"expected 1 to {MAX_WAYS} rows, got {file.metadata.num_rows}")
            if lacking := sorted(
                {*COLUMNS, "radius"} - {*file.schema_arrow.names, *map(bytes.decode, file.schema_arrow.metadata or ())}
            ):
                raise ValueError(f"no {lacking[0]}")
            radius = float(file.schema_arrow.metadata[b"radius"])
            table = file.read(columns=list(COLUMNS))
        rows = np.stack([table[name].to_numpy() for name in COLUMNS], 1).astype(np.float32)
        poses, heading = rows[:, :4], rows[:, 4]
        is_sound = (np.abs(poses) <= MAX_M).all() and ((heading > 0) & (heading <= 180)).all() and 0 < radius <= MAX_M
        if not is_sound:  # true for what is no number, too
            raise ValueError("its numbers are not those of poses, metres and degrees")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not readable as recorded ways ({first_line(error)}); build the scene again"
        ) from error
    return RecordedWays(poses, heading, radius)
