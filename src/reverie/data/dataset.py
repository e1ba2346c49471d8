"""Recordings on disk: the LeRobot v3 layout, read and written.

    meta/info.json                          version, fps, features, totals
    meta/episodes/chunk-000/file-000.parquet one row per episode: length, files, map, seed, heldout, statistics
    meta/tasks.parquet, meta/stats.json     as LeRobot wants them
    meta/reverie.json                       how it was recorded (ours; others ignore it)
    data/chunk-000/file-000.parquet         action, observation.state, timestamp and indices, one row per frame
    videos/observation.images.screen/chunk-000/file-000.mp4
    depth/chunk-000/file-000.parquet        depth and body masks of some frames (ours, see `depth.py`)

We write one episode per file; we read any number per file, and need only the video and the action of the features.
Row i holds frame i and the action whose effect is first seen in frame i + 1.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reverie.data.depth import DEPTH_PATH, check_table, read_clip_depth
from reverie.data.poses import Conversion, conversion_for
from reverie.data.video import read_video
from reverie.errors import ActionError, DataError
from reverie.types import ActionSpace, Clip

CODEBASE_VERSION = "v3.0"
VIDEO_KEY = "observation.images.screen"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")

_CACHED_TABLES = 8


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode: its place, its length in frames, and in `meta` what is known of it (map, seed, heldout, ...)."""

    index: int
    length: int
    data_file: Path
    video_file: Path
    first_row: int
    video_from_frame: int
    meta: dict[str, Any] = field(default_factory=dict)
    depth_file: Path | None = None

    @property
    def is_heldout(self) -> bool:
        return bool(self.meta.get("heldout", False))


class Dataset:
    """A recording, opened for reading.  Cheap to open and to pickle; files are read when a clip asks for them.

    Raises DataError, naming the file, for what is missing, damaged, of another version or without our action names.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = _read_info(self.path)
        self.episodes = _read_episodes(self.path, self.info, self.video_key)
        self._tables: OrderedDict[Path, pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": OrderedDict()}

    @property
    def num_episodes(self) -> int:
        return len(self.episodes)

    @property
    def num_frames(self) -> int:
        return sum(episode.length for episode in self.episodes)

    @property
    def fps(self) -> int:
        return int(self.info["fps"])

    @property
    def video_key(self) -> str:
        """The feature that holds the pictures: ours, or the only video there is."""
        videos = [name for name, feature in self.info["features"].items() if feature.get("dtype") == "video"]
        if VIDEO_KEY in videos:
            return VIDEO_KEY
        if len(videos) == 1:
            return videos[0]
        raise DataError(f"{self.path / 'meta/info.json'}: needs the video {VIDEO_KEY}, has {videos or 'no video'}")

    @cached_property
    def action_space(self) -> ActionSpace:
        names = self.info["features"]["action"].get("names")
        if isinstance(names, dict):
            names = next(iter(names.values()), None)
        try:
            return ActionSpace.from_names(names or ())
        except ActionError as error:
            raise DataError(f"{self.path / 'meta/info.json'}: {error}; convert it to those names") from error

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        feature = self.info["features"][self.video_key]
        sizes = dict(zip(feature.get("names") or ("height", "width", "channels"), feature["shape"], strict=False))
        return int(sizes["height"]), int(sizes["width"])

    @cached_property
    def notes(self) -> dict[str, Any]:
        """What `meta/reverie.json` says; empty where there is none."""
        try:
            notes = json.loads((self.path / "meta/reverie.json").read_text())
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    @cached_property
    def fov_deg(self) -> float | None:
        """Horizontal field of view of the pictures, degrees; None where the recording does not know it."""
        return self._camera_note("fov_deg")

    @cached_property
    def pixel_aspect(self) -> float:
        """The vertical focal length over the horizontal one, in pixels; 1 where the recording does not say."""
        return self._camera_note("pixel_aspect") or 1.0

    def _camera_note(self, name: str) -> float | None:
        world = self.notes.get("world")
        value = self.notes.get(name) or (world.get(name) if isinstance(world, dict) else None)
        try:
            return None if value is None else float(value)
        except (ValueError, TypeError):
            return None

    @cached_property
    def _conversion(self) -> Conversion | None:
        names = self.info["features"].get("observation.state", {}).get("names")
        if isinstance(names, dict):
            names = next(iter(names.values()), None)
        return conversion_for(names if isinstance(names, list | tuple) else None, self.notes)

    @property
    def poses_are_known(self) -> bool:
        """Whether camera poses were recorded whose convention is known."""
        return self._conversion is not None and self._conversion.is_known

    def require_poses(self) -> None:
        """Raises DataError unless camera poses were recorded whose convention is known."""
        if self._conversion is None:
            raise DataError(f"{self.path}: has no camera poses; record the game again, or import them with the video")
        if not self._conversion.is_known:
            raise DataError(
                f"{self.path}: its camera poses are of an unknown convention, for meta/reverie.json names no game that"
                " wrote them; record or import it again"
            )

    def poses(self, episode: int) -> npt.NDArray[np.float32] | None:
        """The camera poses of an episode `(f, 6)` in the order of POSE_NAMES; None where none were recorded.

        Older recordings are converted to our convention; where theirs is not known (see `require_poses`), the numbers
        stay as they are, with roll 0.
        """
        return self._poses_of(self.rows(episode))

    def _poses_of(self, rows: pa.Table) -> npt.NDArray[np.float32] | None:
        if self._conversion is None or "observation.state" not in rows.column_names:
            return None
        values = np.asarray(rows.column("observation.state").combine_chunks().flatten(), np.float32)
        return self._conversion(values.reshape(rows.num_rows, -1))

    def clip(self, episode: int, start: int = 0, length: int | None = None, *, depth: bool = True) -> Clip:
        """Frames `start` to `start + length` of an episode, with their actions, poses and recorded depth.

        depth: read the depth too, where there is any; it takes about a millisecond a frame that has it.
        Raises DataError for a stretch outside the episode and for damaged files.
        """
        if not 0 <= episode < self.num_episodes:
            raise DataError(f"{self.path}: no episode {episode}, there are {self.num_episodes}")
        entry = self.episodes[episode]
        length = entry.length - start if length is None else length
        if start < 0 or length < 1 or start + length > entry.length:
            raise DataError(
                f"{self.path}: episode {episode} has {entry.length} frames, asked for {length} from frame {start}"
            )
        frames = read_video(entry.video_file, entry.video_from_frame + start, length, self.fps, self.resolution)
        rows = self.rows(episode).slice(start, length)
        actions = _matrix(rows, "action", self.action_space.size, entry.data_file)
        found = None
        if depth and entry.depth_file is not None:
            table = check_table(self._table(entry.depth_file, "depth"), entry.depth_file)
            found = read_clip_depth(table, entry.depth_file, entry.index, start, length)
        return Clip(frames, actions, self.fps, self._poses_of(rows), found)

    def rows(self, episode: int) -> pa.Table:
        """All rows of an episode.  Raises DataError if the file or a column is missing or rows are."""
        entry = self.episodes[episode]
        table = self._table(entry.data_file)
        rows = table.slice(entry.first_row, entry.length)
        if rows.num_rows != entry.length:
            raise DataError(f"{entry.data_file}: has {rows.num_rows} rows for episode {episode}, needs {entry.length}")
        return rows

    def _table(self, path: Path, column: str = "action") -> pa.Table:
        if path not in self._tables:
            table = _read_parquet(path)
            if column not in table.column_names:
                raise DataError(f"{path}: the column {column} is missing, has {table.column_names}; record it again")
            self._tables[path] = table
            while len(self._tables) > _CACHED_TABLES:
                self._tables.popitem(last=False)
        return self._tables[path]


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DataError(f"no dataset at {root}: {path} is missing; make one with `reverie record vizdoom -o {root}`")
    try:
        info = json.loads(path.read_text())
        version, features = info["codebase_version"], info["features"]
        fps = info["fps"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a LeRobot info file ({error!r})") from error
    if str(version).split(".")[0] != CODEBASE_VERSION.split(".")[0]:
        raise DataError(f"{path}: LeRobot version {version}, needs {CODEBASE_VERSION}; convert it with lerobot")
    if not isinstance(features, dict) or "action" not in features:
        raise DataError(f"{path}: the feature action is missing")
    if not isinstance(fps, int | float) or fps <= 0:
        raise DataError(f"{path}: fps must be positive, got {fps!r}")
    return info


def _read_parquet(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: the file is missing; record or download it again")
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error


def _read_episodes(root: Path, info: dict[str, Any], video_key: str) -> list[Episode]:
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DataError(f"{root / 'meta/episodes'}: no episodes yet; record some, or wait for the first to be complete")
    needed = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index")
    needed += tuple(f"videos/{video_key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp"))
    rows: list[dict[str, Any]] = []
    for path in files:
        table = _read_parquet(path)
        for name in needed:
            if name not in table.column_names:
                raise DataError(f"{path}: the column {name} is missing; it is not a LeRobot v3 episode table")
        kept = [name for name in table.column_names if not name.startswith("stats/")]
        rows.extend(table.select(kept).to_pylist())
    rows.sort(key=lambda row: row["episode_index"])
    return _episodes(root, info, video_key, rows)


def _episodes(root: Path, info: dict[str, Any], video_key: str, rows: list[dict[str, Any]]) -> list[Episode]:
    starts: dict[Path, int] = {}
    episodes = []
    for row in rows:
        places = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        data_file = root / info.get("data_path", DATA_PATH).format(**places)
        video = {part: row[f"videos/{video_key}/{part}"] for part in ("chunk_index", "file_index")}
        video_file = root / info.get("video_path", VIDEO_PATH).format(video_key=video_key, **video)
        first = starts.setdefault(data_file, row["dataset_from_index"])
        meta = {name: value for name, value in row.items() if "/" not in name}
        depth = {part: row.get(f"depth/{part}") for part in ("chunk_index", "file_index")}
        depth_file = None if None in depth.values() else root / DEPTH_PATH.format(**depth)
        from_frame = round(row[f"videos/{video_key}/from_timestamp"] * info["fps"])
        first_row = row["dataset_from_index"] - first
        episodes.append(
            Episode(row["episode_index"], row["length"], data_file, video_file, first_row, from_frame, meta, depth_file)
        )
    return episodes


def _matrix(rows: pa.Table, name: str, width: int, path: Path) -> npt.NDArray[np.float32]:
    """A list column as `(f, width)` float32."""
    column = rows.column(name).combine_chunks()
    try:
        values = np.asarray(column.flatten() if pa.types.is_nested(column.type) else column, np.float32)
        return values.reshape(rows.num_rows, width).copy()
    except ValueError as error:
        raise DataError(f"{path}: {name} should have {width} numbers in each of {rows.num_rows} rows") from error
