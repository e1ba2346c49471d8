"""Rewards and ends of a recording's episodes, in LeRobot's columns `next.reward` and `next.done`.

Row i has the reward of frame i + 1, as its action has its effect there.  Our recorders write no rewards; imported
datasets may have them, and `write_rewards` adds them to any recording.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reverie.data.dataset import Dataset, read_info, read_parquet
from reverie.errors import DataError
from reverie.paths import local_path
from reverie.types import Clip

REWARD, DONE = "next.reward", "next.done"

Rewards = npt.NDArray[np.float32]
Ends = npt.NDArray[np.bool_]


def read_rewards(dataset: Dataset, episode: int) -> tuple[Rewards, Ends | None]:
    """Rewards (f,) of an episode, and the frames (f,) that end it; None if the recording does not state them.

    Raises DataError for a recording without rewards, or with some that are no finite numbers.
    """
    rows, path = dataset.rows(episode), dataset.episodes[episode].data_file
    if REWARD not in rows.column_names:
        raise DataError(
            f"{dataset.path}: has no rewards, expected the column {REWARD} beside {', '.join(rows.column_names)}; add "
            "it with reverie.data.rewards.write_rewards, or import a dataset that has it"
        )
    rewards = _numbers(rows, REWARD, path)
    if not np.isfinite(rewards).all():
        raise DataError(f"{path}: {REWARD} is no finite number in row {int(np.argmin(np.isfinite(rewards)))}; mend it")
    return rewards, _numbers(rows, DONE, path) > 0 if DONE in rows.column_names else None


def _numbers(rows: pa.Table, name: str, path: Path) -> Rewards:
    try:
        values = np.array(rows[name].to_pylist(), np.float32)  # LeRobot writes numbers, some tools lists of one
        return values.reshape(len(rows))
    except (ValueError, TypeError):
        raise DataError(f"{path}: {name} is not one number a row; write it as float32 or bool") from None


def write_rewards(root: str | Path, judge: Callable[[Clip], tuple[Any, Any]]) -> None:
    """Adds rewards and ends to a recording, or writes those that it has anew.  Not while it is being recorded.

    judge: a whole episode with its frames, actions and poses -> rewards (f,) and ends (f,), one for each action.
    Raises DataError for another number of them.
    """
    dataset = Dataset(root)
    files: dict[Path, dict[str, npt.NDArray[Any]]] = {}
    for episode in dataset.episodes:
        index = np.asarray(read_parquet(episode.data_file)["episode_index"])
        columns = files.setdefault(
            episode.data_file, {REWARD: np.zeros(len(index), np.float32), DONE: np.zeros(len(index), np.bool_)}
        )
        rewards, ends = (np.asarray(x) for x in judge(dataset.clip(episode.index, depth=False)))
        if rewards.shape != (episode.length,) or ends.shape != (episode.length,):
            raise DataError(
                f"{dataset.path}: episode {episode.index} has {episode.length} frames, got rewards {rewards.shape} and "
                f"ends {ends.shape}; give one for each"
            )
        frame = np.asarray(read_parquet(episode.data_file)["frame_index"])
        own = np.flatnonzero(index == episode.index)
        own = own[np.argsort(frame[own], kind="stable")]
        columns[REWARD][own], columns[DONE][own] = rewards, ends
    for path, columns in files.items():
        table = read_parquet(path)
        kept = table.select([name for name in table.column_names if name not in columns])
        for name, values in columns.items():
            kept = kept.append_column(name, pa.array(values))
        temporary = path.with_name(f".{path.name}.tmp")
        pq.write_table(kept, local_path(temporary))
        os.replace(temporary, path)
    info = read_info(dataset.path)
    for name, kind in ((REWARD, "float32"), (DONE, "bool")):
        info["features"][name] = {"dtype": kind, "shape": [1], "names": None}
    path = dataset.path / "meta/info.json"
    temporary = path.with_name(".info.json.tmp")
    temporary.write_text(json.dumps(info, indent=4))
    os.replace(temporary, path)
