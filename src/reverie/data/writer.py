"""Writing a dataset: episodes are prepared under temporary names and appear one by one, complete or not at all.

Order of a commit: the video, the rows, the depth, then the episode table, each by rename.  An episode exists once the
table lists it, so a writer killed at any moment leaves a dataset that reads; what it left is swept away by the next.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reverie.data import removal
from reverie.data.dataset import (
    CODEBASE_VERSION,
    DATA_PATH,
    VIDEO_KEY,
    VIDEO_PATH,
    read_info,
    read_parquet,
)
from reverie.data.depth import DEPTH_PATH, DepthRecord, depth_notes, depth_table
from reverie.data.poses import POSE_CONVENTION
from reverie.data.video import KEY_EVERY_FRAMES
from reverie.errors import DataError
from reverie.locks import lock
from reverie.paths import local_path, own_files
from reverie.types import POSE_NAMES, ActionSpace

FILES_PER_CHUNK = 1000
EPISODES_PER_FILE = 500
"""Rows of one file of the episode table: the last file alone is written again when an episode is added."""
EPISODES_PATH = "meta/episodes/chunk-000/file-{file_index:03d}.parquet"
REJECTED_PATH = "meta/rejected.jsonl"


class DatasetWriter:
    """Appends episodes to the dataset at `root`, which is made if it is not there.

    One writer at a time: a second raises DataError, and so does a dataset of another kind than asked for.
    depth_every: frames between those whose depth will be added; 0 if none is.  Only the notes state it.
    """

    def __init__(
        self,
        root: str | Path,
        action_space: ActionSpace,
        resolution: tuple[int, int],
        fps: int,
        *,
        pose_names: tuple[str, ...] = (),
        task: str = "explore",
        notes: dict[str, Any] | None = None,
        depth_every: int = 0,
    ) -> None:
        self.root = Path(root)
        self.action_space = action_space
        self.resolution = resolution
        self.fps = fps
        self.task = task
        self._pose_names = pose_names
        self._depth_every = depth_every
        self._lock = _take_lock(self.root)
        self.rows: list[dict[str, Any]] = []
        self.rejected: list[dict[str, Any]] = []
        self._num_frames = 0
        self._stats: dict[str, Any] = {}
        try:
            self._resume()
            self._write_head(self._described(notes or {}))
        except BaseException as error:
            self.close()
            if is_disk_full(error):
                raise self.full(error) from error
            raise

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def partial(self) -> Path:
        """Folder of unfinished work; emptied by the next writer."""
        return self.root / ".partial"

    @property
    def num_frames(self) -> int:
        return self._num_frames

    def add(
        self,
        video: Path,
        actions: npt.NDArray[np.float32],
        poses: npt.NDArray[np.float32] | None,
        picture_stats: dict[str, list[Any]],
        meta: dict[str, Any],
        depth: Sequence[DepthRecord] = (),
    ) -> int:
        """Commit an episode; `video` is moved from its place in `partial`.  Returns the episode's index.

        Raises DataError if the disk is full; the episodes before are safe.
        actions: `(f, size)`; poses: `(f, len(pose_names))` or None; picture_stats: from `picture_statistics`; depth: of
        the frames that have it, in their order.
        """
        try:
            return self._add(video, actions, poses, picture_stats, meta, depth)
        except OSError as error:
            if is_disk_full(error):
                raise self.full(error) from error
            raise

    def reject(self, **what: Any) -> None:
        """Note an episode that was not kept: `seed`, `reason` and its other attributes."""
        self.rejected.append(what)
        try:
            with (self.root / REJECTED_PATH).open("a") as file:
                file.write(json.dumps(what) + "\n")
        except OSError as error:
            raise (self.full(error) if is_disk_full(error) else error) from error

    def remove(self, indices: Sequence[int]) -> None:
        """Take episodes out; those behind them move up.  All or nothing, as with `add`.

        Raises DataError if the disk is full, with all episodes still there.
        """
        try:
            removal.prepare(self.root, self.rows, indices)
        except OSError as error:
            raise (self.full(error) if is_disk_full(error) else error) from error
        removal.finish(self.root)
        self.rows, self._num_frames, self._stats = [], 0, {}
        self._resume()
        self._write_info()

    def write_notes(self, notes: dict[str, Any]) -> None:
        """Replace `meta/reverie.json`; its entries on poses and depth stay."""
        try:
            _write_text(self.root / "meta/reverie.json", json.dumps(self._described(notes), indent=2))
        except OSError as error:
            raise (self.full(error) if is_disk_full(error) else error) from error

    def full(self, error: object) -> DataError:
        """The error to raise where the disk is full."""
        return DataError(
            f"{self.root}: no space left on the disk ({error}); its {len(self.rows)} episodes are safe:"
            " free some space and run the command again"
        )

    def _add(
        self,
        video: Path,
        actions: npt.NDArray[np.float32],
        poses: npt.NDArray[np.float32] | None,
        picture_stats: dict[str, list[Any]],
        meta: dict[str, Any],
        depth: Sequence[DepthRecord],
    ) -> int:
        index = len(self.rows)
        chunk, file = divmod(index, FILES_PER_CHUNK)
        place = {"chunk_index": chunk, "file_index": file}
        table = self._frames_table(index, actions, poses)
        video_file = self.root / VIDEO_PATH.format(video_key=VIDEO_KEY, **place)
        video_file.parent.mkdir(parents=True, exist_ok=True)
        os.replace(video, video_file)
        _write_table(self.root / DATA_PATH.format(**place), table)
        where = {}
        if depth:
            _write_table(self.root / DEPTH_PATH.format(**place), depth_table(index, depth))
            where = {"depth/chunk_index": chunk, "depth/file_index": file}
        row = self._episode_row(index, len(actions)) | where | meta | _flat_stats(table, picture_stats)
        first = index // EPISODES_PER_FILE * EPISODES_PER_FILE
        episodes_file = self.root / EPISODES_PATH.format(file_index=index // EPISODES_PER_FILE)
        _write_table(episodes_file, _episode_table([*self.rows[first:], row]))
        self._take_in(row)
        self._write_info()
        return index

    def _episode_row(self, index: int, length: int) -> dict[str, Any]:
        """The episode table's row of the next episode: where its files are, and its frames."""
        chunk, file = divmod(index, FILES_PER_CHUNK)
        return {
            "episode_index": index,
            "tasks": [self.task],
            "length": length,
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            f"videos/{VIDEO_KEY}/chunk_index": chunk,
            f"videos/{VIDEO_KEY}/file_index": file,
            f"videos/{VIDEO_KEY}/from_timestamp": 0.0,
            f"videos/{VIDEO_KEY}/to_timestamp": length / self.fps,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": index // EPISODES_PER_FILE,
        }

    def close(self) -> None:
        """Let another writer in; safe to call twice."""
        if self._lock is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def _resume(self) -> None:
        """Take up what is there, and sweep away what a killed writer left."""
        removal.finish(self.root)
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        if (self.root / "meta/info.json").is_file():
            info = read_info(self.root)
            self._check_same(info)
        for path in own_files((self.root / "meta/episodes").glob("*/*.parquet")):
            for row in read_parquet(path).to_pylist():
                self._take_in(row)
        self.rejected = _read_rejected(self.root / REJECTED_PATH)
        for folder in ("meta", "data", "videos", "depth"):
            for left in (self.root / folder).rglob(".*.tmp"):
                left.unlink()
        chunk, file = divmod(len(self.rows), FILES_PER_CHUNK)
        place = {"chunk_index": chunk, "file_index": file}
        for pattern in (DATA_PATH, VIDEO_PATH, DEPTH_PATH):
            (self.root / pattern.format(video_key=VIDEO_KEY, **place)).unlink(missing_ok=True)

    def _check_same(self, info: dict[str, Any]) -> None:
        """Raise DataError unless `info` is of a dataset of the same kind; how the video is encoded may differ."""
        held, wanted = info["features"], json.loads(json.dumps(self._features()))
        for name in {**held, **wanted}:
            has, needs = ({k: v for k, v in f.get(name, {}).items() if k != "info"} for f in (held, wanted))
            if has != needs:
                has, needs = (f"{f.get('shape', 'nothing')} {f.get('names') or ''}".strip() for f in (has, needs))
                raise DataError(
                    f"{self.root}: holds a dataset with other features: {name} is {has} there, {needs} here;"
                    " choose another folder"
                )
        if info["fps"] != self.fps:
            raise DataError(f"{self.root}: has {info['fps']} frames a second, not {self.fps}; choose another folder")

    def _take_in(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._num_frames += row["length"]
        self._stats = _merge_stats(self._stats, row)

    def _features(self) -> dict[str, Any]:
        height, width = self.resolution
        video_info = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": self.fps,
            "video.channels": 3,
            "video.g": KEY_EVERY_FRAMES,
            "has_audio": False,
        }
        features: dict[str, Any] = {
            VIDEO_KEY: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": video_info,
            },
            "action": {"dtype": "float32", "shape": [self.action_space.size], "names": list(self.action_space.names)},
        }
        if self._pose_names:
            names = list(self._pose_names)
            features["observation.state"] = {"dtype": "float32", "shape": [len(names)], "names": names}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index"):
            features[name] = {"dtype": "int64", "shape": [1], "names": None}
        return features

    def _frames_table(
        self, episode: int, actions: npt.NDArray[np.float32], poses: npt.NDArray[np.float32] | None
    ) -> pa.Table:
        length = len(actions)
        if actions.shape[1:] != (self.action_space.size,) or (poses is None) != (not self._pose_names):
            raise DataError(f"{self.root}: an episode of other features, actions {actions.shape}")
        if poses is not None and poses.shape != (length, len(self._pose_names)):
            raise DataError(f"{self.root}: poses are {poses.shape}, expected {(length, len(self._pose_names))}")
        frame = np.arange(length, dtype=np.int64)
        columns: dict[str, Any] = {"action": _vectors(actions)}
        if poses is not None:
            columns["observation.state"] = _vectors(poses)
        columns["timestamp"] = (frame / self.fps).astype(np.float32)
        columns["frame_index"] = frame
        columns["episode_index"] = np.full(length, episode, np.int64)
        columns["index"] = frame + self.num_frames
        columns["task_index"] = np.zeros(length, np.int64)
        return pa.table(columns)

    def _described(self, notes: dict[str, Any]) -> dict[str, Any]:
        """The notes with their entries on poses and depth."""
        if self._pose_names == POSE_NAMES:
            notes = {**notes, "pose_convention": POSE_CONVENTION}
        return {**notes, "depth": depth_notes(self._depth_every)} if self._depth_every else notes

    def _write_head(self, notes: dict[str, Any]) -> None:
        _write_table(self.root / "meta/tasks.parquet", _tasks_table([self.task]))
        if notes:
            _write_text(self.root / "meta/reverie.json", json.dumps(notes, indent=2))
        self._write_info()

    def _write_info(self) -> None:
        info = {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": None,
            "total_episodes": len(self.rows),
            "total_frames": self.num_frames,
            "total_tasks": 1,
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self._features(),
        }
        if self.rows:
            _write_text(self.root / "meta/stats.json", json.dumps(self._stats, indent=2))
        _write_text(self.root / "meta/info.json", json.dumps(info, indent=2))


def picture_statistics(frames: npt.NDArray[np.uint8]) -> dict[str, list[Any]]:
    """Range, mean and deviation of each colour in [0, 1] over a grid of points of every 25th frame, in LeRobot's
    (3, 1, 1) shape."""
    pixels = frames[::25, 1::3, 1::3].reshape(-1, 3).astype(np.float64) / 255.0
    found = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    stats: dict[str, list[Any]] = {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}
    stats["count"] = [len(frames[::25])]
    return stats


def _take_lock(root: Path) -> int:
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(f"{root}: cannot write there ({error.strerror}); choose another folder") from error
    try:
        lock(handle)
    except OSError:
        os.close(handle)
        raise DataError(f"{root}: another recorder is writing there; wait for it, or choose another folder") from None
    return handle


def _vectors(rows: npt.NDArray[np.float32]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def _tasks_table(tasks: list[str]) -> pa.Table:
    """The task list as pandas would write it, with the text as the index."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    column = {"metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", **column},
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", **column},
        ],
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _flat_stats(table: pa.Table, picture_stats: dict[str, list[Any]]) -> dict[str, Any]:
    """Columns `stats/<feature>/<figure>` of one episode."""
    flat = {f"stats/{VIDEO_KEY}/{name}": value for name, value in picture_stats.items()}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        values = np.asarray(column.flatten() if pa.types.is_nested(column.type) else column, np.float64)
        values = values.reshape(table.num_rows, -1)
        figures = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
        flat |= {f"stats/{name}/{figure}": value.tolist() for figure, value in figures.items()}
        flat[f"stats/{name}/count"] = [table.num_rows]
    return flat


def _merge_stats(before: dict[str, dict[str, Any]], row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The statistics of all episodes together, weighted by their counts: those `before`, and one more."""
    merged: dict[str, dict[str, Any]] = {}
    for feature in sorted({key.split("/")[1] for key in row if key.startswith("stats/")}):
        new = {f: np.array(row[f"stats/{feature}/{f}"], np.float64) for f in ("min", "max", "mean", "std", "count")}
        old = {f: np.array(value, np.float64) for f, value in before.get(feature, {}).items()} or new
        n, m = (0.0 if old is new else float(old["count"].sum())), float(new["count"].sum())
        mean = (old["mean"] * n + new["mean"] * m) / (n + m)
        square = ((old["std"] ** 2 + old["mean"] ** 2) * n + (new["std"] ** 2 + new["mean"] ** 2) * m) / (n + m)
        merged[feature] = {
            "min": np.minimum(old["min"], new["min"]).tolist(),
            "max": np.maximum(old["max"], new["max"]).tolist(),
            "mean": mean.tolist(),
            "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
            "count": [int(n + m)],
        }
    return merged


def _episode_table(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows as a table that has every column of any of them; a column of several kinds is of texts."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array([None if value is None else str(value) for value in values])
    return pa.table(columns)


def _read_rejected(path: Path) -> list[dict[str, Any]]:
    """Reads the notes on episodes not kept; skips a last line that is cut short."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text().split("\n"):
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def is_disk_full(error: BaseException) -> bool:
    """Tests whether `error`, or a cause of it, is a full disk or quota."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in codes:  # FFmpeg's errors have the number and are not OSErrors
            return True
        cause = cause.__cause__
    return False


def _write_table(path: Path, table: pa.Table) -> None:
    with _replacing(path) as temporary:
        pq.write_table(table, local_path(temporary), write_page_checksum=True)


def _write_text(path: Path, text: str) -> None:
    with _replacing(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name for what is to be at `path` once it is complete; nothing is left if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
