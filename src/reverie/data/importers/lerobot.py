"""Any LeRobot dataset of version 3 or 2: one video, and an action with named dimensions.

Version 2.1 (and 2.0), which the GameWAM sets of Minecraft and Doom have, keeps each episode in files of its own:

    meta/info.json       data_path, video_path, chunks_size
    meta/episodes.jsonl  {"episode_index": 0, "tasks": [...], "length": 120}
    data/chunk-000/episode_000000.parquet, videos/chunk-000/VIDEO/episode_000000.mp4

Evidence: LeRobot's own documentation of its formats, `info.json` of public v2.1 datasets, and for GameWAM the card of
huggingface.co/datasets/Yunncheng/gamewam-minecraft (v2.1, 22 action dimensions, 640x360 at 20 frames a second).  What
its dimensions are called stands in its `info.json` and on no page that we found: give it with `--map`.

Ours are taken as they are.  For others `--map` defines a dimension: `--map drive=key.forward` (held above 0.5),
`--map cam_yaw=mouse.yaw*57.3` (a turn in degrees after the factor, up and right positive), `--map 3=key.jump` by number
where the dimensions have no names.

A row's frame is the one shown at the row's own time after the episode's first; a row without such a frame, and a frame
without a row, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reverie.data.dataset import Dataset, Episode, file_by_pattern
from reverie.data.importers.take import Source, Table, Take, Track, ordered, parse_json, read_json, read_lines
from reverie.errors import DataError
from reverie.types import POSE_NAMES, ActionSpace

if TYPE_CHECKING:
    from reverie.data.importers.config import ImportConfig

MOUSE = ("mouse.pitch", "mouse.yaw")


class AnyDataset(Dataset):
    """A dataset whose video is chosen by name and whose action names need not be ours."""

    def __init__(self, path: Path, chosen_video: str | None = None) -> None:
        self.chosen_video = chosen_video
        super().__init__(path)

    @property
    def video_key(self) -> str:
        return self.chosen_video or super().video_key


class OlderDataset(AnyDataset):
    """A dataset of version 2.0 or 2.1: `meta/episodes.jsonl` lists the episodes, which lie in files of their own."""

    version = "v2.1"

    def _list_episodes(self) -> list[Episode]:
        path = self.path / "meta/episodes.jsonl"
        episodes: list[Episode] = []
        begin = 0
        for row, line in enumerate(read_lines(path), 1):
            try:
                listed = parse_json(line)
                index, length = listed["episode_index"], listed["length"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}: row {row}: needs episode_index and length ({error!r})") from error
            if not (type(index) is int and index == len(episodes)):
                raise DataError(f"{path}: row {row}: episode_index is {index!r}, expected {len(episodes)}")
            if not (type(length) is int and length > 0):
                raise DataError(f"{path}: row {row}: length must be 1 or more, got {length!r}")
            places = {"episode_chunk": index // int(self.info.get("chunks_size", 1000)), "episode_index": index}
            data = file_by_pattern(self.path, str(self.info["data_path"]), **places)
            video = file_by_pattern(self.path, str(self.info["video_path"]), video_key=self.video_key, **places)
            episodes.append(Episode(index, length, data, video, begin, 0.0, {"tasks": listed.get("tasks")}))
            begin += length
        if not episodes:
            raise DataError(f"{path}: lists no episodes")
        return episodes


def open_source(config: ImportConfig) -> Source:
    """Every episode of the dataset."""
    dataset = _open(config)
    try:
        names = action_names(dataset)
        has_poses = dataset.poses_are_known
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{config.src / 'meta/info.json'}: a malformed description ({error!r})") from error
    space, columns = mapping(config.map, names, dataset.path)

    def takes() -> Iterator[Take | str]:
        rate = float(dataset.info["fps"])
        for number, episode in enumerate(dataset.episodes):
            if episode.overlaps is not None:
                yield (
                    f"{episode.video_file}: the episode table gives frames of it to episode {episode.index} and to"
                    f" episode {episode.overlaps}; both are left out"
                )
                continue
            begin = episode.video_from_s
            window = (begin, begin + episode.length / rate)
            read = partial(read_track, dataset, number, space, columns, has_poses)
            meta = {"map": str(episode.meta.get("map", ""))}
            rows = partial(_row_bytes, dataset, number)
            yield Take(f"episode {episode.index}", episode.video_file, read, window, meta, rows=rows)

    return Source(space, takes, has_poses)


def read_track(
    dataset: Dataset,
    number: int,
    space: ActionSpace,
    columns: dict[str, tuple[int, float]],
    has_poses: bool,
    times: Table,
) -> Track:
    """The rows of one episode, in our dimensions.  times: of its frames, in seconds after the video's first."""
    episode = dataset.episodes[number]
    rows = dataset.rows(number)
    actions = _matrix(rows.column("action"), episode.data_file)
    if max((column for column, _ in columns.values()), default=0) >= actions.shape[1]:
        raise DataError(f"{episode.data_file}: action should have {len(action_names(dataset))} numbers in each row")
    track = Track.blank(len(times), space)
    row, frame = _pairs(track, len(actions), episode, float(dataset.info["fps"]), times)
    for place, name in enumerate(space.names):
        if name in columns:
            column, factor = columns[name]
            values = actions[row, column] * factor
            track.actions[frame, place] = (
                np.where(np.isnan(values), np.nan, values > 0.5) if place < len(space.keys) else values
            )
    if has_poses:
        poses = dataset.poses(number)
        assert poses is not None
        track.poses = np.zeros((len(times), len(POSE_NAMES)))
        track.poses[frame] = poses[row]
    track.validate(episode.data_file, space)
    return track


def _pairs(
    track: Track, rows: int, episode: Episode, rate: float, times: Table
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Matches rows to frames shown within half a frame of the row's time; drops frames without a row of their own."""
    said = episode.video_from_s + np.arange(rows) / rate
    frame = np.searchsorted((times[1:] + times[:-1]) / 2, said)
    fits = np.abs(times[frame] - said) <= 0.5 / rate + 1e-6
    # Of several rows nearest to one frame (a video of fewer frames than rows) none is known to be its own.
    several = np.flatnonzero(np.bincount(frame[fits], minlength=len(times)) > 1)
    fits &= ~np.isin(frame, several)
    row = np.flatnonzero(fits)
    without = np.flatnonzero(~fits)
    paired = np.zeros(len(times), np.bool_)
    paired[frame[fits]] = True
    if len(without):
        if not len(row) or without[0] > row[-1]:
            track.notes.append(f"{episode.data_file}: has {rows} rows, the video ends after {len(times)} frames")
        else:
            track.note_rows(episode.data_file, without.tolist(), "the video shows no frame of its own at its time")
        track.dropped["rows without a frame"] += len(without)
    if not paired.all():
        track.note_rows(episode.video_file, np.flatnonzero(~paired).tolist(), "no row for this frame")
        track.drop(~paired, "no action")
    return row, frame[fits]


def _row_bytes(dataset: Dataset, number: int) -> bytes:
    """Serialises the rows of an episode: equal bytes wherever they are stored."""
    rows = dataset.rows(number)
    names = [name for name in ("action", "observation.state") if name in rows.column_names]
    parts = [f"{name} {rows.column(name).to_pylist()}" for name in names]
    return "\n".join([f"{dataset.info['fps']}", *parts]).encode()


def mapping(wishes: tuple[str, ...], names: list[str], path: Path) -> tuple[ActionSpace, dict[str, tuple[int, float]]]:
    """Our action space, and where each of our dimensions comes from: its column and factor."""
    if not wishes:
        wishes = tuple(f"{name}={name}" for name in names if name.startswith("key.") or name in MOUSE)
        if not wishes:
            raise DataError(f"{path}: its actions are {names}; say what they are, as in --map {names[0]}=key.forward")
    columns: dict[str, tuple[int, float]] = {}
    for wish in wishes:
        theirs, _, ours = wish.rpartition("=")
        ours, _, factor = ours.partition("*")
        if theirs not in names or not (ours in MOUSE or (ours.startswith("key.") and len(ours) > 4)):
            raise DataError(f"--map {wish}: must be NAME=key.KEY or NAME=mouse.yaw*FACTOR with NAME one of {names}")
        try:
            columns[ours] = (names.index(theirs), float(factor or 1.0))
        except ValueError as error:
            raise DataError(f"--map {wish}: the factor {factor!r} is not a number") from error
    keys = ordered(name.removeprefix("key.") for name in columns if name.startswith("key."))
    return ActionSpace(keys, mouse=any(name in columns for name in MOUSE)), columns


def action_names(dataset: Dataset) -> list[str]:
    """The names of the action's dimensions, or their numbers if they have none."""
    feature = dataset.info["features"]["action"]
    names = feature.get("names")
    while isinstance(names, dict):
        numbered = all(isinstance(place, int) for place in names.values())
        names = list(names) if numbered else next(iter(names.values()), None)
    while isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    size = int((feature.get("shape") or [0])[0])
    return [str(name) for name in names] if names and len(names) == size else [str(i) for i in range(size)]


def _open(config: ImportConfig) -> AnyDataset:
    info = config.src / "meta/info.json"
    try:
        about = read_json(info) if info.is_file() else {}
        older = str(about.get("codebase_version")) in ("v2.0", "v2.1")
        if config.video_key is not None and info.is_file():
            features = about["features"]
            videos = [name for name, feature in features.items() if feature.get("dtype") == "video"]
            if config.video_key not in videos:
                raise DataError(f"{config.src}: has no video {config.video_key!r}, has {videos}")
        return (OlderDataset if older else AnyDataset)(config.src, config.video_key)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise DataError(f"{info}: a malformed description ({error!r})") from error


def _matrix(column: Any, path: Path) -> Table:
    """A column of lists of numbers, `(rows, n)`; NaN where there is none."""
    try:
        values = np.array(column.to_pylist(), np.float64)
        return values.reshape(len(values), -1)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: rows of different lengths, or not numbers ({error})") from error
