"""LeRobot itself reads what Reverie has recorded.

LeRobot wants a Python and packages of its own, so it lives in an environment that REVERIE_LEROBOT_PYTHON names:

    python3.12 -m venv lerobot && lerobot/bin/pip install 'lerobot[dataset]==0.6.1'
    REVERIE_LEROBOT_PYTHON=$PWD/lerobot/bin/python make test ARGS=tests/data/test_writer_lerobot.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.yard_scene import record_yard

from reverie.data.dataset import Dataset

PYTHON = os.environ.get("REVERIE_LEROBOT_PYTHON")
TOLERANCE = 6.0
"""Levels of 255 by which decoders' conversions to RGB may differ, on average: they interpolate colour differently."""
STILL = 0.1
"""Levels by which two frames of a still scene may differ."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("REVERIE_LEROBOT_RECORDING")
    return Path(named) if named else record_yard(tmp_path_factory.mktemp("yard") / "set", episodes=3, frames=41)


def run_lerobot(tmp_path: Path, *words: str) -> dict[str, np.ndarray]:
    """Runs `lerobot_reader.py` by LeRobot's own Python, and returns the arrays that it writes."""
    if PYTHON is None:
        pytest.skip("REVERIE_LEROBOT_PYTHON names no Python with LeRobot: see this file")
    out = tmp_path / "read.npz"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    mode, folder, *rest = words
    script = Path(__file__).parents[1] / "helpers/lerobot_reader.py"
    done = subprocess.run([PYTHON, str(script), mode, folder, str(out), *rest], env=env, capture_output=True, text=True)
    if mode == "stream" and "torchcodec" in done.stderr:
        pytest.skip("LeRobot streams by torchcodec alone, which does not load there")
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


def test_lerobot_reads_the_same(recording: Path, tmp_path: Path) -> None:
    dataset = Dataset(recording)
    starts = np.cumsum([0, *(episode.length for episode in dataset.episodes)])
    chosen = [(0, 1), (0, dataset.episodes[0].length - 2), (1, 7), (dataset.num_episodes - 1, 20)]
    indices = [str(starts[episode] + frame) for episode, frame in chosen]
    read = run_lerobot(tmp_path, "items", str(recording), *indices)
    assert (int(read["num_episodes"]), int(read["num_frames"])) == (dataset.num_episodes, dataset.num_frames)
    assert read["places"].tolist() == [list(place) for place in chosen]
    for i, (episode, frame) in enumerate(chosen):
        clip = dataset.clip(episode, frame - 1, 3)
        np.testing.assert_array_equal(read["actions"][i], clip.actions[1])
        np.testing.assert_array_equal(read["window_actions"][i], clip.actions[1:])
        if clip.poses is not None:
            np.testing.assert_allclose(read["poses"][i], clip.poses[1], atol=1e-4)
        assert_shows(read["frames"][i], clip.frames, 1)
        for place, frame_read in enumerate(read["window_frames"][i]):
            assert_shows(frame_read, clip.frames, place)


def test_lerobot_streams_the_same(recording: Path, tmp_path: Path) -> None:
    read = run_lerobot(tmp_path, "stream", str(recording))
    assert read["places"].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert_shows(read["frames"], Dataset(recording).clip(0, 2, 3).frames, 1)


def assert_shows(theirs: np.ndarray, ours: np.ndarray, index: int) -> None:
    """A frame that LeRobot has read is frame `index` of `ours` `(f, H, W, 3)`, and like no other unless it is still."""
    differences = np.abs(theirs.astype(np.int16) - ours.astype(np.int16)).mean((1, 2, 3))
    assert differences[index] < TOLERANCE
    assert differences[index] < differences.min() + STILL


def test_what_lerobot_asks_of_the_layout(recording: Path) -> None:
    """The keys and columns that LeRobot 0.6 reads without asking whether they are there."""
    import pyarrow.parquet as pq

    info = json.loads((recording / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert {"fps", "features", "total_episodes", "total_frames", "data_path", "video_path", "robot_type"} <= info.keys()
    for name, feature in info["features"].items():
        assert {"dtype", "shape", "names"} <= feature.keys(), name
    episodes = pq.read_table(recording / "meta/episodes/chunk-000/file-000.parquet")
    key = "videos/observation.images.screen"
    needed = {"episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index", "data/chunk_index"}
    needed |= {"data/file_index", "meta/episodes/chunk_index", "meta/episodes/file_index"}
    needed |= {f"{key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}
    assert needed <= set(episodes.column_names)
    tasks = pq.read_table(recording / "meta/tasks.parquet")
    assert {"task_index", "task"} == set(tasks.column_names)
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    stats = json.loads((recording / "meta/stats.json").read_text())
    assert {"action", "observation.state", "observation.images.screen"} <= stats.keys()
