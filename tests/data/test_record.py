import contextlib
import errno
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers import toy_world
from tests.helpers.toy_world import record_toy, start_recorder, toy_config

from reverie.data.dataset import VIDEO_KEY, Dataset
from reverie.data.game_options import parse_options
from reverie.data.policies import policy_for
from reverie.data.record import play_episode, record
from reverie.errors import DataError, WorldError
from reverie.types import Action
from reverie.worlds import WORLDS, WorldInfo


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
    seeds = [episode.meta["seed"] for episode in again.episodes]
    rejected = rejected_of(tmp_path)
    assert sorted(seeds + [row["seed"] for row in rejected]) == list(range(len(seeds) + len(rejected)))
    assert all("frame" in row["reason"] or "pictures" in row["reason"] for row in rejected)
    np.testing.assert_array_equal(again.clip(0).frames, before)


def rejected_of(root: Path) -> list[dict[str, Any]]:
    path = root / "meta/rejected.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
    assert poses is not None
    assert len(frames) == len(actions) == len(poses) == 25


def test_killed_recorder_leaves_a_dataset_that_reads_and_continues(tmp_path: Path) -> None:
    process = start_recorder(str(tmp_path), "1000000")
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


def alive_in_group(parent: int) -> list[str]:
    """Processes whose command line names our toy, or that are children of `parent`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if state[0] != "Z" and int(state[1]) == parent:
                found.append(entry.name)
    return found


def wait_until(what: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)
    return False


def test_killed_recorder_leaves_no_processes_and_nothing_half_written(tmp_path: Path) -> None:
    out = tmp_path / "set"
    table = out / "meta/episodes/chunk-000/file-000.parquet"
    process = start_recorder(str(out), "1000000", "2")
    try:
        assert wait_until(lambda: table.exists() and Dataset(out).num_episodes >= 3)
        workers = alive_in_group(process.pid)
        assert len(workers) >= 2
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20), "workers outlive it"
    found = Dataset(out)
    assert all(len(found.clip(i).frames) == found.episodes[i].length for i in range(found.num_episodes))
    record_toy(out, found.num_frames + 40, processes=1)
    assert Dataset(out).num_frames >= found.num_frames + 40
    assert len(list((out / "videos").rglob("*.mp4"))) == len(list((out / "data").rglob("*.parquet")))
    assert not [path for path in out.rglob("*") if ".tmp" in path.name or path.name == ".partial"]


def test_a_game_that_fails_costs_only_its_episode(tmp_path: Path) -> None:
    """Of each four seeds one raises, one kills its worker, one hangs; all of them twice, so that they are given up."""
    record_toy(tmp_path, 80, world="bad", processes=2, hang_seconds=4.0)
    data = Dataset(tmp_path)
    assert data.num_frames >= 80
    assert all(episode.meta["seed"] % 4 == 3 for episode in data.episodes)
    reasons = {row["seed"] % 4: row for row in rejected_of(tmp_path) if row["failed"]}
    assert "failed 2 times: WorldError: the game shows an error" in reasons[0]["reason"]
    assert "lost 2 times: the recording process died (signal 9)" in reasons[1]["reason"]
    assert "no answer in 4 s: the game hangs" in reasons[2]["reason"]
    assert not left_by_bad_worlds(), "the games that the dead workers had started are ended too"


def left_by_bad_worlds() -> list[str]:
    return [
        entry.name
        for entry in Path("/proc").glob("[0-9]*")
        if (entry / "cmdline").exists()
        and (entry / "cmdline").read_bytes() == b"sleep\x001000\x00"
        and int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == 1
    ]


def test_an_episode_that_failed_once_is_played_again(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    options = (f"once={tmp_path / 'once'}", "kinds=raise die fine")
    record_toy(tmp_path / "set", 120, world="bad", processes=1, set=options)
    data = Dataset(tmp_path / "set")
    assert {0, 1, 2} <= {episode.meta["seed"] for episode in data.episodes}
    assert json.loads(data.episodes[0].meta["options"])["kinds"] == "raise die fine"


def test_a_game_that_always_fails_ends_the_recording(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"bad failed in 8 episodes in a row; the last: .*the game shows an error"):
        record_toy(tmp_path, 80, world="bad", set=("kinds=raise",))


@pytest.mark.parametrize("where", ["reverie.data.episode.write_video", "reverie.data.writer.pq.write_table"])
def test_a_full_disk_ends_the_recording_and_keeps_the_good_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    record_toy(tmp_path, 80)
    before = Dataset(tmp_path).num_frames

    def full(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(DataError, match=r"no space left on the disk .* its 2 episodes are safe"):
            record_toy(tmp_path, 400)
    assert Dataset(tmp_path).num_frames == before
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name or path.name == ".partial"]
    record_toy(tmp_path, before + 40)
    assert Dataset(tmp_path).num_frames > before


def test_what_is_known_of_an_episode_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        toy_world.ToyWorld, "episode_info", {"weather": "rain", "wind": [1, 2], "seed": -1}, raising=False
    )
    monkeypatch.setattr(toy_world.ToyWorld, "map", "meadow", raising=False)
    record_toy(tmp_path, 40, seed=3)
    meta = Dataset(tmp_path).episodes[0].meta
    assert meta["seed"] >= 3_000_000
    assert (meta["map"], meta["weather"], meta["wind"], meta["heldout"]) == ("meadow", "rain", "[1, 2]", False)


class Levels(toy_world.ToyWorld):
    def __init__(
        self, maps: tuple[str, ...] | None = None, heldout: bool = False, monsters: bool = False, hands: bool = True
    ) -> None:
        super().__init__()


def test_options_of_a_game(tmp_path: Path) -> None:
    info = WorldInfo("levels", "a game with options", Levels)
    read = parse_options(info, ["monsters=true", "maps=freedoom2/MAP01,freedoom1/E1M1", "hands=no"])
    assert read == {"monsters": True, "maps": ("freedoom2/MAP01", "freedoom1/E1M1"), "hands": False}
    assert parse_options(info, ["maps=none"]) == {"maps": None}
    assert parse_options(WORLDS["toy"], ["ends_after=7"]) == {"ends_after": 7}
    for setting, message in (
        ("monsters=maybe", "--set monsters takes true or false, got 'maybe'"),
        ("monsters", "--set takes KEY=VALUE"),
        ("weather=rain", "levels has no option 'weather'; its options: maps, heldout, monsters, hands"),
    ):
        with pytest.raises(WorldError, match=message):
            parse_options(info, [setting])
    with pytest.raises(WorldError, match="given twice"):
        parse_options(info, ["hands=no", "hands=yes"])
    with pytest.raises(WorldError, match="ends_after takes a whole number, got 'soon'"):
        record_toy(tmp_path, 40, set=("ends_after=soon",))


def test_a_second_recorder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another recorder"):
            record(toy_config(tmp_path, 40))


def test_a_folder_with_another_kind_of_dataset_is_refused(tmp_path: Path, toy_dataset_path: Path) -> None:
    record_toy(tmp_path, 40)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    held = json.dumps(info)
    for change, message in (
        ((("features", "action", "names", 0), "key.jump"), r"other features: action is \[6\] \['key.jump'"),
        ((("features", VIDEO_KEY, "shape", 0), 64), r"other features: observation.images.screen is \[64, 48, 3\]"),
        ((("fps",), 30), "has 30 frames a second, not 25"),
        ((("codebase_version",), "v2.1"), "LeRobot version v2.1, needs v3.0"),
    ):
        info = json.loads(held)
        *way, last = change[0]
        place = info
        for step in way:
            place = place[step]
        place[last] = change[1]
        (tmp_path / "meta/info.json").write_text(json.dumps(info))
        with pytest.raises(DataError, match=message):
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
    with pytest.raises(WorldError, match="in a row were thrown away, most were stuck"):
        record(toy_config(tmp_path, 400, world="stuck", episode_seconds=12.0, min_episode_seconds=10.0))


def test_the_worlds_say_what_options_they_do_not_take(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="does not take these options"):
        record(toy_config(tmp_path, 40, maps=("attic",)))
    assert Action() == Action(frozenset())
