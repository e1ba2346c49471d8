"""Recordings on disk: the LeRobot v3 layout, read and written.

    meta/info.json                          version, fps, features, totals
    meta/episodes/chunk-000/file-000.parquet one row per episode: length, files, map, seed, heldout, statistics
    meta/tasks.parquet, meta/stats.json     in LeRobot's layout
    meta/reverie.json                       how it was recorded (ours; others ignore it)
    data/chunk-000/file-000.parquet         action, observation.state, timestamp and indices, one row per frame
    videos/observation.images.screen/chunk-000/file-000.mp4
    depth/chunk-000/file-000.parquet        depth and body masks of some frames (ours, see `depth.py`)

We write one episode per file; we read any number per file, and need only the video and the action of the features.
Row i holds frame i and the action whose effect first shows in frame i + 1.

Rows are found by their own columns (`episode_index`, `frame_index`, `index`, `timestamp`), never by their
place in a file, and frames by their time after the video's first.  What contradicts itself is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
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
from reverie.paths import is_inside, local_path, own_files
from reverie.types import FPS, ActionSpace, Clip, ClipDepth

CODEBASE_VERSION = "v3.0"
VIDEO_KEY = "observation.images.screen"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_PATTERN = re.compile(r"(?:[^{}]|\{[a-z_]+(?::0?\d{0,2}d?)?\})+")
"""A path with places for numbers of a usual length, and for nothing else of Python's."""
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
ROW_COLUMNS = ("frame_index", "index", "timestamp")

_CACHED_TABLES = 8


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode: its place, its length in frames, and in `meta` its attributes (map, seed, heldout, ...)."""

    index: int
    length: int
    data_file: Path
    video_file: Path
    from_index: int
    """The number of its first row, counted over all episodes."""
    video_from_s: float
    """Start of its first frame in the video, in seconds after the video's first."""
    meta: dict[str, Any] = field(default_factory=dict)
    overlaps: int | None = None
    """Another episode to which the table gives some of the same frames: which of the two they show is not known."""
    depth_file: Path | None = None

    @property
    def is_heldout(self) -> bool:
        return bool(self.meta.get("heldout", False))


class Dataset:
    """A recording, opened for reading.  Cheap to open and to pickle; files are read when a clip asks for them.

    Raises DataError, naming the file, for what is missing, damaged, of another version or without our action names.
    """

    version = CODEBASE_VERSION
    """Version of the layout that is read; another one is refused."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = read_info(self.path, self.version)
        try:
            self.episodes = self._list_episodes()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise DataError(f"{self.path / 'meta'}: a malformed description ({error!r}); record it again") from error
        self._tables: OrderedDict[Path, pa.Table] = OrderedDict()
        self._found: dict[int, npt.NDArray[np.intp]] = {}

    def _list_episodes(self) -> list[Episode]:
        return _read_episodes(self.path, self.info, self.video_key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": OrderedDict(), "_found": {}}

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
        """The feature that holds the frames: ours, or the only video there is."""
        videos = [name for name, feature in self.info["features"].items() if feature.get("dtype") == "video"]
        if VIDEO_KEY in videos:
            return VIDEO_KEY
        if len(videos) == 1:
            return videos[0]
        raise DataError(f"{self.path / 'meta/info.json'}: needs the video {VIDEO_KEY}, has {videos or 'no video'}")

    @cached_property
    def action_space(self) -> ActionSpace:
        path = self.path / "meta/info.json"
        try:
            names = self.info["features"]["action"].get("names")
            if isinstance(names, dict):
                names = next(iter(names.values()), None)
            return ActionSpace.from_names(names or ())
        except ActionError as error:
            raise DataError(f"{path}: {error}; convert it to those names") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: a malformed description ({error!r}); record it again") from error

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        try:
            feature = self.info["features"][self.video_key]
            sizes = dict(zip(feature.get("names") or ("height", "width", "channels"), feature["shape"], strict=False))
            return int(sizes["height"]), int(sizes["width"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            path = self.path / "meta/info.json"
            raise DataError(f"{path}: a malformed description ({error!r}); record it again") from error

    @cached_property
    def notes(self) -> dict[str, Any]:
        """Contents of `meta/reverie.json`; empty if there is none."""
        try:
            notes = json.loads((self.path / "meta/reverie.json").read_text())
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    @cached_property
    def fov_deg(self) -> float | None:
        """Horizontal field of view of the frames, degrees; None if the recording does not state it."""
        return self._camera_note("fov_deg")

    @cached_property
    def pixel_aspect(self) -> float:
        """The vertical focal length over the horizontal one, in pixels; 1 if the recording does not state it."""
        return self._camera_note("pixel_aspect") or 1.0

    def _camera_note(self, name: str) -> float | None:
        world = self.notes.get("world")
        value = self.notes.get(name) or (world.get(name) if isinstance(world, dict) else None)
        try:
            return None if value is None else float(value)
        except (ValueError, TypeError):
            return None

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the episodes: a hash of their table, of the features, and of the sizes of all their files."""
        digest = hashlib.sha256(json.dumps([self.info["features"], self.info["fps"]], sort_keys=True).encode())
        for path in _episode_tables(self.path):
            digest.update(path.read_bytes())
        for path in dict.fromkeys(path for one in self.episodes for path in (one.data_file, one.video_file)):
            size = path.stat().st_size if path.is_file() else -1
            digest.update(f"\n{path.relative_to(self.path)} {size}".encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _state_names(self) -> Sequence[str]:
        names = self.info["features"].get("observation.state", {}).get("names")
        if isinstance(names, dict):
            names = next(iter(names.values()), None)
        return names if isinstance(names, list | tuple) else ()

    @cached_property
    def _conversion(self) -> Conversion | None:
        return conversion_for(self._state_names, self.notes)

    @property
    def poses_are_known(self) -> bool:
        """Tests whether camera poses were recorded in a known convention."""
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
        return self._poses_of(self.rows(episode), self.episodes[episode].data_file)

    def _poses_of(self, rows: pa.Table, path: Path) -> npt.NDArray[np.float32] | None:
        if self._conversion is None:
            return None
        values, size = _poses(rows, path), len(self._state_names)
        if values is None or values.shape[1] != size:
            got = "is missing" if values is None else f"has {values.shape[1]} numbers a row"
            raise DataError(f"{path}: observation.state {got}, expected {size} numbers a row; record it again")
        return self._conversion(values)

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
        if entry.overlaps is not None:
            raise DataError(
                f"{entry.video_file}: the episode table gives frames of it to episode {entry.index} and to episode"
                f" {entry.overlaps}; mend its from_timestamp"
            )
        rows = self.rows(episode).slice(start, length)
        actions = self.actions(episode)[start : start + length]
        rate = float(self.info["fps"])
        frames = read_video(entry.video_file, start, length, rate, self.resolution, entry.video_from_s)
        found = self.depth(episode, start, length) if depth else None
        return Clip(frames, actions, self.fps, self._poses_of(rows, entry.data_file), found)

    def actions(self, episode: int) -> npt.NDArray[np.float32]:
        """The action rows of an episode, (f, a).  Raises DataError as `rows`, and for what is no number."""
        entry = self.episodes[episode]
        actions = _matrix(self.rows(episode), "action", self.action_space.size, entry.data_file)
        if not np.isfinite(actions).all():
            row = int(np.argmin(np.isfinite(actions).all(axis=1)))
            raise DataError(f"{entry.data_file}: episode {entry.index} has actions that are not numbers, frame {row}")
        return actions

    def depth(self, episode: int, start: int = 0, length: int | None = None) -> ClipDepth | None:
        """The depth of frames `start` to `start + length` of an episode; None where none was recorded."""
        entry = self.episodes[episode]
        if entry.depth_file is None:
            return None
        table = check_table(self._table(entry.depth_file, "depth"), entry.depth_file)
        length = entry.length - start if length is None else length
        return read_clip_depth(table, entry.depth_file, entry.index, start, length)

    def rows(self, episode: int) -> pa.Table:
        """All rows of an episode, by frame.

        Raises DataError if the file or a column is missing or rows are, and for rows that claim to belong to
        another episode, frame or time.
        """
        entry = self.episodes[episode]
        table = self._table(entry.data_file)
        found = self._found.get(episode)
        if found is None:
            found = self._found[episode] = _own_rows(entry, table, self.info["fps"])
        if found[-1] - found[0] == len(found) - 1 and (np.diff(found) == 1).all():
            return table.slice(int(found[0]), len(found))
        return table.take(pa.array(found))

    def _table(self, path: Path, column: str = "action") -> pa.Table:
        if path not in self._tables:
            table = read_parquet(path)
            if column not in table.column_names:
                raise DataError(f"{path}: the column {column} is missing, has {table.column_names}; record it again")
            self._tables[path] = table
            while len(self._tables) > _CACHED_TABLES:
                self._tables.popitem(last=False)
        return self._tables[path]


def check_rate(dataset: Dataset) -> None:
    """Raises DataError for a dataset of another rate than a training takes: its turns would be too fast or slow."""
    if dataset.info["fps"] != FPS:
        raise DataError(
            f"{dataset.path}: has {dataset.info['fps']:g} frames a second, needs {FPS}; bring it in with"
            f" `reverie import lerobot {dataset.path} DIR`"
        )


def read_info(root: Path, wanted: str = CODEBASE_VERSION) -> dict[str, Any]:
    """`meta/info.json` of a dataset.  Raises DataError for another layout, version or frame rate than can be read."""
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DataError(f"no dataset at {root}: {path} is missing; make one with `reverie record vizdoom -o {root}`")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, features = info["codebase_version"], info["features"]
        fps = info["fps"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a LeRobot info file ({error!r})") from error
    if str(version).split(".")[0] != wanted.split(".")[0]:
        older = str(version).startswith("v2.")
        way = "bring it in with `reverie import lerobot`" if older else "convert it with lerobot"
        raise DataError(f"{path}: LeRobot version {version}, needs {wanted}; {way}")
    if not isinstance(features, dict) or "action" not in features:
        raise DataError(f"{path}: the feature action is missing")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps < math.inf:
        raise DataError(f"{path}: fps must be positive, got {fps!r}")
    return info


def read_parquet(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: the file is missing; record or download it again")
    try:
        return pq.ParquetFile(local_path(path), page_checksum_verification=True).read()
    except (pa.ArrowException, OSError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable parquet file ({first}); record it again") from error


def _episode_tables(root: Path) -> list[Path]:
    return own_files((root / "meta" / "episodes").glob("*/*.parquet"))


def _read_episodes(root: Path, info: dict[str, Any], video_key: str) -> list[Episode]:
    files = _episode_tables(root)
    if not files:
        raise DataError(f"{root / 'meta/episodes'}: no episodes yet; record some, or wait for the first to be complete")
    needed = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index")
    needed += tuple(f"videos/{video_key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp"))
    rows: list[dict[str, Any]] = []
    for path in files:
        table = read_parquet(path)
        for name in needed:
            if name not in table.column_names:
                raise DataError(f"{path}: the column {name} is missing; it is not a LeRobot v3 episode table")
        kept = [name for name in table.column_names if not name.startswith("stats/")]
        rows.extend(table.select(kept).to_pylist())
    rows.sort(key=lambda row: row["episode_index"])
    for before, row in pairwise(rows):
        if before["episode_index"] == row["episode_index"]:
            raise DataError(f"{root / 'meta/episodes'}: episode {row['episode_index']} is listed twice; remove one row")
    return _marked([_episode(root, info, video_key, row) for row in rows], info["fps"])


def _marked(episodes: list[Episode], fps: float) -> list[Episode]:
    """The episodes, with `overlaps` where two of them are to show the same frames."""
    order = sorted(range(len(episodes)), key=lambda i: (episodes[i].video_file, episodes[i].video_from_s))
    for here, following in pairwise(order):
        one, other = episodes[here], episodes[following]
        end_s = one.video_from_s + (one.length - 0.5) / fps
        if one.video_file == other.video_file and other.video_from_s < end_s:
            episodes[here] = replace(one, overlaps=other.index)
            episodes[following] = replace(other, overlaps=one.index)
    return episodes


def _episode(root: Path, info: dict[str, Any], video_key: str, row: dict[str, Any]) -> Episode:
    """One row of the episode table.  Raises DataError, naming the episode, for a value that cannot be."""
    index, length, from_index = row["episode_index"], row["length"], row["dataset_from_index"]
    from_s = row[f"videos/{video_key}/from_timestamp"]
    places = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
    video = {part: row[f"videos/{video_key}/{part}"] for part in ("chunk_index", "file_index")}
    for name, value in (("episode_index", index), ("dataset_from_index", from_index), *places.items(), *video.items()):
        if not isinstance(value, int) or value < 0:
            raise DataError(f"{root / 'meta/episodes'}: episode {index}: {name} must be 0 or more, got {value!r}")
    if not isinstance(length, int) or length < 1:
        raise DataError(f"{root / 'meta/episodes'}: episode {index}: length must be 1 or more, got {length!r}")
    if not isinstance(from_s, int | float) or not 0 <= from_s < math.inf:
        raise DataError(f"{root / 'meta/episodes'}: episode {index}: from_timestamp must be 0 or more, got {from_s!r}")
    data_file = file_by_pattern(root, info.get("data_path", DATA_PATH), **places)
    video_file = file_by_pattern(root, info.get("video_path", VIDEO_PATH), video_key=video_key, **video)
    meta = {name: value for name, value in row.items() if "/" not in name}
    depth = {part: row.get(f"depth/{part}") for part in ("chunk_index", "file_index")}
    depth_file = None if None in depth.values() else root / DEPTH_PATH.format(**depth)
    return Episode(index, length, data_file, video_file, from_index, float(from_s), meta, depth_file=depth_file)


def file_by_pattern(root: Path, pattern: str, **places: int | str) -> Path:
    """A file by a path pattern of `meta/info.json`.  Raises DataError for one that is not inside the dataset."""
    file = root / pattern.format(**places) if _PATTERN.fullmatch(pattern) else root
    if not is_inside(file, root):
        raise DataError(
            f"{root / 'meta/info.json'}: the path {pattern[:80]!r} is none inside the dataset; expected one such as"
            f" {DATA_PATH}"
        )
    return file


def _own_rows(entry: Episode, table: pa.Table, fps: float) -> npt.NDArray[np.intp]:
    """Numbers of the rows of `table` that belong to an episode, by frame.  Raises DataError for any contradiction."""
    path, name = entry.data_file, f"{entry.data_file}: episode {entry.index}"
    found = _find_rows(entry, table)
    if len(found) != entry.length:
        raise DataError(f"{path}: has {len(found)} rows for episode {entry.index}, needs {entry.length}")
    if "frame_index" in table.column_names:
        found = found[np.argsort(_numbers(table, "frame_index", path)[found], kind="stable")]
    there = {key: _numbers(table, key, path)[found] for key in ROW_COLUMNS if key in table.column_names}
    frames = np.arange(entry.length)
    for bad in np.flatnonzero(there.get("frame_index", frames) != frames)[:1]:
        raise DataError(
            f"{name} has rows that are missing or out of order: row {found[bad]} has frame_index"
            f" {there['frame_index'][bad]:g}, needs {bad}"
        )
    for bad in np.flatnonzero(there.get("index", entry.from_index + frames) != entry.from_index + frames)[:1]:
        raise DataError(
            f"{name} has rows of another episode: row {found[bad]} has index {there['index'][bad]:g}, the episode table"
            f" says {entry.from_index + bad}"
        )
    for bad in np.flatnonzero(~(np.abs(there.get("timestamp", frames / fps) - frames / fps) <= 0.5 / fps))[:1]:
        raise DataError(
            f"{name} has rows of another time: row {found[bad]} has timestamp {there['timestamp'][bad]:g}, frame {bad}"
            f" at {fps:g} a second is at {bad / fps:.3f} s"
        )
    return found


def _find_rows(entry: Episode, table: pa.Table) -> npt.NDArray[np.intp]:
    """Numbers of an episode's rows, by what the table says of them, in the table's order."""
    path = entry.data_file
    if "episode_index" in table.column_names:
        owners = _numbers(table, "episode_index", path)
        found = np.flatnonzero(owners == entry.index)
        if not len(found):
            there = ", ".join(f"{one:g}" for one in np.unique(owners)[:5]) or "none"
            raise DataError(
                f"{path}: episode {entry.index} has rows of another episode: the file has those of {there}; the episode"
                " table names the wrong file"
            )
        return found
    if "index" in table.column_names:
        index = _numbers(table, "index", path)
        return np.flatnonzero((index >= entry.from_index) & (index < entry.from_index + entry.length))
    first = entry.from_index - _rows_before(path)
    return np.arange(max(0, first), min(first + entry.length, table.num_rows))


def _rows_before(path: Path) -> int:
    """Rows of the data files before `path`, for files that do not state which rows they hold."""
    files = own_files(path.parent.parent.glob(f"*/*{path.suffix}"))
    return sum(pq.read_metadata(local_path(file)).num_rows for file in files if file < path)


def _numbers(table: pa.Table, name: str, path: Path) -> npt.NDArray[np.float64]:
    """A column of single numbers, `(rows,)`; NaN where there is none."""
    column = table.column(name).combine_chunks()
    try:
        values = np.asarray(column.flatten() if pa.types.is_nested(column.type) else column, np.float64)
        return values.reshape(table.num_rows)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{path}: {name} should have one number in each of {table.num_rows} rows") from error


def _matrix(rows: pa.Table, name: str, width: int, path: Path) -> npt.NDArray[np.float32]:
    """A list column as `(f, width)` float32."""
    column = rows.column(name).combine_chunks()
    try:
        values = np.asarray(column.flatten() if pa.types.is_nested(column.type) else column, np.float32)
        return values.reshape(rows.num_rows, width).copy()
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{path}: {name} should have {width} numbers in each of {rows.num_rows} rows") from error


def _poses(rows: pa.Table, path: Path) -> npt.NDArray[np.float32] | None:
    if "observation.state" not in rows.column_names:
        return None
    column = rows.column("observation.state").combine_chunks()
    try:
        values = np.asarray(column.flatten() if pa.types.is_nested(column.type) else column, np.float32)
        return values.reshape(rows.num_rows, -1).copy()
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{path}: observation.state should have as many numbers in each row") from error
