"""Doom is recorded by worker processes, which find it by name."""

from pathlib import Path

import pytest

pytest.importorskip("vizdoom")

from reverie.data.dataset import Dataset
from reverie.data.record import RecordConfig, record


def test_worker_processes_record_the_game(tmp_path: Path) -> None:
    config = RecordConfig(
        world="vizdoom", out=tmp_path / "one", hours=10 / 3600, processes=1, episode_seconds=6, min_episode_seconds=1,
        maps=("freedoom2/MAP01",),
    )  # fmt: skip
    record(config)
    one = Dataset(tmp_path / "one")
    assert one.num_frames >= 250
    assert {episode.meta["map"] for episode in one.episodes} == {"freedoom2/MAP01"}
    assert not any(episode.is_heldout for episode in one.episodes)
