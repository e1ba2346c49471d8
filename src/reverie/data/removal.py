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
        table.append(_copy_episode(root, work, row, index, total))
        total += row["length"]
    folder = work / "meta/episodes/chunk-000"
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, len(table), EPISODES_PER_FILE)):
        _write(folder / f"file-{number:03d}.parquet", pa.Table.from_pylist(table[first : first + EPISODES_PER_FILE]))
    for name in FOLDERS if (root / "depth").is_dir() else FOLDERS[:2]:
        (work / name).mkdir(exist_ok=True)
    os.replace(work, root / NEXT)


def _copy_episode(root: Path, work: Path, row: dict[str, Any], index: int, total: int) -> dict[str, Any]:
    """Copies an episode's files from `root` to `work` as episode `index`, after `total` frames; returns its row."""
    chunk, file = divmod(index, FILES_PER_CHUNK)
    place, new = {"chunk_index": chunk, "file_index": file}, dict(row)

    def move(kind: str, path: str, **names: str) -> tuple[Path, Path]:
        """A file's old place and its new one, which the row takes over."""
        before = {part: row[f"{kind}/{part}"] for part in place}
        new.update({f"{kind}/{part}": value for part, value in place.items()})
        target = work / path.format(**names, **place)
        target.parent.mkdir(parents=True, exist_ok=True)
        return root / path.format(**names, **before), target

    source, target = move("data", DATA_PATH)
    _write(target, _renumbered(read_parquet(source), index, total))
    for key in sorted({name.split("/")[1] for name in row if name.startswith("videos/")}):
        _link(*move(f"videos/{key}", VIDEO_PATH, video_key=key))
    if row.get("depth/chunk_index") is not None:
        source, target = move("depth", DEPTH_PATH)
        depth = read_parquet(source)
        _write(target, _with_column(depth, "episode_index", np.full(depth.num_rows, index)))
    _move_stats(new, "episode_index", index - row["episode_index"])
    _move_stats(new, "index", total - row["dataset_from_index"])
    new |= {"episode_index": index, "dataset_from_index": total, "dataset_to_index": total + row["length"]}
    return new | {"meta/episodes/file_index": index // EPISODES_PER_FILE}


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, local_path(path), write_page_checksum=True)


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
