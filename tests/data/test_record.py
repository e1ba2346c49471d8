import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_world
from toy_world import record_toy, toy_config

from reverie.data.dataset import Dataset
from reverie.data.policies import policy_for
from reverie.data.record import RecordConfig, play_episode, record
from reverie.errors import DataError, WorldError
from reverie.types import Action


def test_record_reaches_the_frames_asked_for_and_continues(tmp_path: Path) -> None:
    record_toy(tmp_path, 60)
    first = Dataset(tmp_path)
    assert first.num_frames == 80
    assert first.action_space == toy_world.ToyWorld.action_space
    before = first.clip(0).frames
    assert record(toy_config(tmp_path, 60)) == 80, "nothing to do the second time"
    record_toy(tmp_path, 160)
    again = Dataset(tmp_path)
    assert again.num_frames == 160
    assert [episode.meta["seed"] for episode in again.episodes] == [0, 1, 2, 3]
    np.testing.assert_array_equal(again.clip(0).frames, before)


def test_action_of_row_i_shows_first_in_frame_i_plus_1(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    for index in range(data.num_episodes):
        clip = data.clip(index)
        assert clip.poses is not None
        turned = np.diff(clip.poses[:, 3])
        np.testing.assert_allclose((turned + 180) % 360 - 180, clip.actions[:-1, 5], atol=1e-3)


def test_recorded_frames_are_the_world_s_pictures(toy_dataset_path: Path) -> None:
    data = Dataset(toy_dataset_path)
    clip = data.clip(1)
    world = toy_world.ToyWorld()
    frames = [world.reset(data.episodes[1].meta["seed"])[0]]
    frames += [world.step(action)[0] for action in data.action_space.decode(clip.actions[:-1])]
    error = np.abs(np.stack(frames).astype(int) - clip.frames).mean()
    assert error < 6, "H.264 at this quality is close to the picture"


def test_an_episode_ends_where_the_level_does() -> None:
    world = toy_world.ToyWorld(ends_after=25)
    frames, actions, poses, _ = play_episode(world, policy_for("toy", 0), 0, 100)
    assert len(frames) == len(actions) == len(poses) == 25


def test_killed_recorder_leaves_a_dataset_that_reads_and_continues(tmp_path: Path) -> None:
    script = str(Path(toy_world.__file__))
    process = subprocess.Popen([sys.executable, script, str(tmp_path), "1000000"])
    table = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    deadline = time.monotonic() + 60
    while not (table.exists() and Dataset(tmp_path).num_episodes >= 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = Dataset(tmp_path)
    assert found.num_episodes >= 3
    assert len(found.clip(found.num_episodes - 1).frames) == 40
    goal = found.num_frames + 40
    record_toy(tmp_path, goal)
    after = Dataset(tmp_path)
    assert after.num_frames == goal
    assert json.loads((tmp_path / "meta/info.json").read_text())["total_frames"] == goal
    assert len(list((tmp_path / "data").glob("*/*.parquet"))) == after.num_episodes
    assert not (tmp_path / ".partial").exists()


def test_worker_processes_record_the_game(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    config = RecordConfig(
        world="vizdoom", out=tmp_path / "one", hours=10 / 3600, processes=1, episode_seconds=6, min_episode_seconds=1,
        maps=("freedoom2/MAP01",),
    )  # fmt: skip
    record(config)
    one = Dataset(tmp_path / "one")
    assert one.num_frames >= 250
    assert {episode.meta["map"] for episode in one.episodes} == {"freedoom2/MAP01"}
    assert not any(episode.is_heldout for episode in one.episodes)


def test_a_second_recorder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another recorder"):
            record(toy_config(tmp_path, 40))


def test_a_folder_with_another_kind_of_dataset_is_refused(tmp_path: Path, toy_dataset_path: Path) -> None:
    record_toy(tmp_path, 40)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    info["features"]["action"]["names"][0] = "key.jump"
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="other features"):
        record(toy_config(tmp_path, 80))


def test_training_and_heldout_levels_do_not_mix_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        toy_world.WORLDS, "toy", toy_world.WorldInfo("toy", "", lambda heldout=False: toy_world.ToyWorld())
    )
    record_toy(tmp_path, 40)
    with pytest.raises(DataError, match="training episodes"):
        record(toy_config(tmp_path, 80, heldout=True))


def test_bad_requests_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="unknown game 'quake'"):
        record(toy_config(tmp_path, 40, world="quake"))
    with pytest.raises(DataError, match="hours must be positive"):
        toy_config(tmp_path, 0)
    with pytest.raises(DataError, match="must not be negative"):
        toy_config(tmp_path, 40, processes=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write there"):
        record(toy_config(tmp_path / "file" / "set", 40))


def test_a_world_where_one_is_always_stuck_ends_the_recording(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="in a row were stuck"):
        record(toy_config(tmp_path, 400, world="stuck", episode_seconds=12.0, min_episode_seconds=10.0))


def test_the_worlds_say_what_options_they_do_not_take(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="does not take these options"):
        record(toy_config(tmp_path, 40, maps=("attic",)))
    assert Action() == Action(frozenset())
