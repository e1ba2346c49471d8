import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reverie.data.checks import CELL_FRAMES, STARE_FRAMES, STUCK_FRAMES, good_length, problems
from reverie.data.dataset import Dataset
from reverie.types import ActionSpace

SPACE = ActionSpace(("forward", "back"))


def walk(frames: int, speed: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    actions = np.zeros((frames, 4), np.float32)
    actions[:, 0] = 1
    poses = np.zeros((frames, 5), np.float32)
    poses[:, 0] = speed * np.arange(frames)
    return actions, poses


def test_a_good_walk_is_kept_whole() -> None:
    actions, poses = walk(400)
    assert good_length(actions, poses, np.full(400, 30.0, np.float32), SPACE) == 400
    assert good_length(actions, None, None, SPACE) == 400


def test_cut_before_being_stuck() -> None:
    actions, poses = walk(400)
    poses[100 : 100 + STUCK_FRAMES + 4, 0] = poses[100, 0]
    poses[100 + STUCK_FRAMES + 4 :, 0] -= (STUCK_FRAMES + 4) * 12.0
    assert good_length(actions, poses, None, SPACE) == 100
    actions[100 : 100 + STUCK_FRAMES + 4] = 0
    assert good_length(actions, poses, None, SPACE) == 400, "standing without keys is no fault"


def test_cut_at_a_teleport_and_at_a_stare() -> None:
    actions, poses = walk(400)
    poses[200:, 1] += 500
    assert good_length(actions, poses, None, SPACE) == 200
    depths = np.full(400, 30.0, np.float32)
    depths[50 : 50 + STARE_FRAMES] = 1.0
    assert good_length(actions, poses, depths, SPACE) == 50


def test_a_cell_is_thrown_away() -> None:
    actions, poses = walk(CELL_FRAMES + 50)
    actions[:] = 0
    poses[:, 0] = 30 * np.sin(np.arange(len(poses)))
    assert good_length(actions, poses, None, SPACE) == 0


def test_problems_of_a_dataset_are_listed_by_file(toy_dataset_path: Path, tmp_path: Path) -> None:
    assert problems(Dataset(toy_dataset_path)) == []
    root = Path(shutil.copytree(toy_dataset_path, tmp_path / "copy"))
    next(root.glob("videos/*/*/file-000.mp4")).write_bytes(b"")
    rows = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(rows)
    broken = pa.array([[0.5] * 6] * table.num_rows, table.schema.field("action").type)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", broken), rows)
    found = problems(Dataset(root))
    assert len(found) == 2
    assert "file-000.mp4" in found[0]
    assert "file-001.parquet: episode 1 has keys that are neither 0 nor 1" in found[1]
