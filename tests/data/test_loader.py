from pathlib import Path

import numpy as np
import pytest

from reverie.data.dataset import Dataset
from reverie.data.loader import ClipLoader
from reverie.errors import DataError


def batches(loader: ClipLoader, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    with loader:
        return [next(loader) for _ in range(count)]


def test_shapes_and_pairing(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    loader = ClipLoader(data, 9, batch=4, seed=1, workers=0)
    picks = loader.picks(0)
    frames, actions = next(loader)
    assert frames.shape == (4, 9, 32, 48, 3)
    assert frames.dtype == np.uint8
    assert actions.shape == (4, 9, 6)
    assert actions.dtype == np.float32
    for i, (episode, start) in enumerate(picks):
        clip = data.clip(episode, start, 9)
        np.testing.assert_array_equal(frames[i], clip.frames)
        np.testing.assert_array_equal(actions[i], clip.actions)


def test_batches_are_the_same_whatever_the_workers(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    here = batches(ClipLoader(data, 5, 3, seed=7, workers=0), 5)
    there = batches(ClipLoader(data, 5, 3, seed=7, workers=2), 5)
    for (a, b), (c, d) in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_picks_of_seeds_and_steps_differ_and_reach_all(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    loader = ClipLoader(data, 30, 8, seed=0, workers=0)
    assert loader.picks(0) != loader.picks(1)
    assert loader.picks(0) != ClipLoader(data, 30, 8, seed=1, workers=0).picks(0)
    reached = {pick for step in range(200) for pick in loader.picks(step)}
    assert reached == {(episode, start) for episode in range(3) for start in range(11)}


def test_bad_requests(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    with pytest.raises(DataError, match="no episode has 41 frames"):
        ClipLoader(data, 41, 1, workers=0)
    with pytest.raises(DataError, match="a batch needs frames and clips"):
        ClipLoader(data, 5, 0, workers=0)


def test_a_damaged_file_is_named(toy_dataset_path: Path, tmp_path: Path) -> None:
    import shutil

    root = Path(shutil.copytree(toy_dataset_path, tmp_path / "copy"))
    for video in root.glob("videos/*/*/*.mp4"):
        video.write_bytes(video.read_bytes()[:200])
    with ClipLoader(Dataset(root), 5, 2, workers=1) as loader, pytest.raises(DataError, match=r"\.mp4: not a readable"):
        next(loader)
