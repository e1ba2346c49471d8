"""A person's play becomes a dataset: the pictures that were shown, the actions that were sent, cut into episodes."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.toy_world import ToyWorld

from reverie.data import live
from reverie.data.dataset import Dataset
from reverie.data.live import RecordedWorld, open_writer
from reverie.data.video import write_video
from reverie.errors import DataError
from reverie.types import Action

FORWARD = Action(frozenset({"forward"}))
RIGHT = Action(mouse=(0.0, 7.5))


def play(out: Path, *walks: list[Action], world: ToyWorld | None = None) -> list[np.ndarray]:
    """Each walk begins with a reset; returns what was shown, walk by walk."""
    game = world or ToyWorld()
    shown = []
    with open_writer(out, "toy", game) as writer:
        recorded = RecordedWorld(game, writer)
        for seed, actions in enumerate(walks):
            shown.append(np.concatenate([recorded.reset(seed), *(recorded.step(action) for action in actions)]))
        recorded.close()
    assert game.closed
    return shown


def test_rows_hold_what_was_shown_and_sent(tmp_path: Path) -> None:
    actions = [FORWARD, RIGHT] * 30
    shown = play(tmp_path / "set", actions)[0]
    clip = Dataset(tmp_path / "set").clip(0)
    np.testing.assert_array_equal(clip.actions, ToyWorld.action_space.encode(actions))
    assert len(clip.frames) == len(actions), "row i: frame i, and the action that leads from it"
    assert np.abs(clip.frames.astype(int) - shown[:-1]).mean() < 4
    assert clip.poses is not None
    assert clip.poses[4, 0] - clip.poses[0, 0] == 20.0, "two steps forward in four frames"


def test_a_restart_and_a_minute_begin_new_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EPISODE_FRAMES", 60)
    play(tmp_path / "set", [FORWARD] * 70, [RIGHT] * 60, [RIGHT] * 10)
    dataset = Dataset(tmp_path / "set")
    assert [(e.length, e.meta["seed"], e.meta["player"]) for e in dataset.episodes] == [
        (60, 0, "person"),
        (60, 1, "person"),
    ], "the ten frames before the restart, and the last ten, are too short to keep"


def test_play_is_added_to_what_is_there(tmp_path: Path) -> None:
    play(tmp_path / "set", [FORWARD] * 50)
    play(tmp_path / "set", [RIGHT] * 55)
    assert [episode.length for episode in Dataset(tmp_path / "set").episodes] == [50, 55]


def test_an_episode_ends_where_the_game_ends(tmp_path: Path) -> None:
    game = ToyWorld(ends_after=55)
    with open_writer(tmp_path / "set", "toy", game) as writer:
        recorded = RecordedWorld(game, writer)
        recorded.reset(0)
        for _ in range(55):
            recorded.step(FORWARD)
        recorded.close()
    assert [episode.length for episode in Dataset(tmp_path / "set").episodes] == [55]


def test_a_full_disk_is_told_and_keeps_the_episodes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write_once(*args: Any) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_video(*args)
        written.append(args)

    monkeypatch.setattr(live, "write_video", write_once)
    with pytest.raises(DataError, match="No space left"):
        play(tmp_path / "set", [FORWARD] * 50, [FORWARD] * 50)
    assert Dataset(tmp_path / "set").num_episodes == 1


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        open_writer(tmp_path / "set", "toy", ToyWorld()),
        pytest.raises(DataError, match="another recorder"),
    ):
        open_writer(tmp_path / "set", "toy", ToyWorld())
