"""Taking episodes out of a dataset, so that a process killed at any moment leaves all of it, or all without them.

The dataset without them is prepared in `.partial/next`: rows, depth and the episode table anew, videos as hard links.
Renamed to `.next` it counts; from then on `finish` puts it in place, by the process that made it or by the next writer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reverie.data.dataset import DATA_PATH, VIDEO_PATH, read_parquet
from reverie.data.depth import DEPTH_PATH
from reverie.paths import local_path

FILES_PER_CHUNK = 1000
EPISODES_PER_FILE = 500
NEXT = ".next"
FOLDERS = ("data", "videos", "depth")
"""Folders of the episodes' files; the last is only in datasets with depth."""


def prepare(root: Path, rows: Sequence[dict[str, Any]], indices: Sequence[int]) -> None:
    """Makes the dataset at `root` without the episodes `indices`, beside the one that is there.

    Args:
        root: a dataset of ours, with a file of rows and one of each video for every episode.
        rows: its episode table.
    """
    work = root / ".partial/next"
    shutil.rmtree(work, ignore_errors=True)
    kept = [row for row in rows if row["episode_index"] not in set(indices)]
    table: list[dict[str, Any]] = []
    total = 0
    for index, row in enumerate(kept):
        chunk, file = divmod(index, FILES_PER_CHUNK)
        place = {"chunk_index": chunk, "file_index": file}
        new = dict(row)
        before = {part: row[f"data/{part}"] for part in place}
        target = work / DATA_PATH.format(**place)
        target.parent.mkdir(parents=True, exist_ok=True)
        frames = _renumbered(read_parquet(root / DATA_PATH.format(**before)), index, total)
        pq.write_table(frames, local_path(target), write_page_checksum=True)
        new |= {f"data/{part}": value for part, value in place.items()}
        for key in sorted({name.split("/")[1] for name in row if name.startswith("videos/")}):
            before = {part: row[f"videos/{key}/{part}"] for part in place}
            target = work / VIDEO_PATH.format(video_key=key, **place)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(root / VIDEO_PATH.format(video_key=key, **before), target)
            new |= {f"videos/{key}/{part}": value for part, value in place.items()}
        if row.get("depth/chunk_index") is not None:
            before = {part: row[f"depth/{part}"] for part in place}
            target = work / DEPTH_PATH.format(**place)
            target.parent.mkdir(parents=True, exist_ok=True)
            depth = read_parquet(root / DEPTH_PATH.format(**before))
            depth = _with_column(depth, "episode_index", np.full(depth.num_rows, index))
            pq.write_table(depth, local_path(target), write_page_checksum=True)
            new |= {f"depth/{part}": value for part, value in place.items()}
        _move_stats(new, "episode_index", index - row["episode_index"])
        _move_stats(new, "index", total - row["dataset_from_index"])
        new |= {"episode_index": index, "dataset_from_index": total, "dataset_to_index": total + row["length"]}
        new["meta/episodes/file_index"] = index // EPISODES_PER_FILE
        total += row["length"]
        table.append(new)
    folder = work / "meta/episodes/chunk-000"
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, len(table), EPISODES_PER_FILE)):
        part = pa.Table.from_pylist(table[first : first + EPISODES_PER_FILE])
        pq.write_table(part, local_path(folder / f"file-{number:03d}.parquet"), write_page_checksum=True)
    for name in FOLDERS if (root / "depth").is_dir() else FOLDERS[:2]:
        (work / name).mkdir(exist_ok=True)
    os.replace(work, root / NEXT)


def finish(root: Path) -> None:
    """Puts a prepared dataset in the place of the one at `root`; goes on where a killed process left off."""
    waiting = root / NEXT
    if not waiting.is_dir():
        return
    for name in (*FOLDERS, "meta/episodes"):
        if (waiting / name).is_dir():
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(waiting / name, root / name)
    shutil.rmtree(waiting)


def _renumbered(frames: pa.Table, episode: int, first: int) -> pa.Table:
    length = frames.num_rows
    frames = _with_column(frames, "episode_index", np.full(length, episode))
    return _with_column(frames, "index", first + np.arange(length))


def _with_column(table: pa.Table, name: str, values: npt.NDArray[np.integer]) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def _move_stats(row: dict[str, Any], feature: str, by: int) -> None:
    for figure in ("min", "max", "mean"):
        name = f"stats/{feature}/{figure}"
        if row.get(name) is not None:
            row[name] = [value + by for value in row[name]]


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the drive has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
