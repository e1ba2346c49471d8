from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.import_samples import after, bring, numbers, rows, scene, shaking, write

from reverie.errors import DataError

PLACE = "rounds/match_id=2393226/map_name=de_mirage/round=16/player=00"
FIRST_TICK = 6460
NAMES = pa.list_(pa.string())
SCHEMA = pa.schema(
    [("tick", pa.int32()), ("t", pa.float32()), ("buttons", pa.uint64()), ("active", NAMES), ("pressed", NAMES),
     ("released", NAMES), ("pitch", pa.float32()), ("yaw", pa.float32()), ("delta_pitch", pa.float32()),
     ("delta_yaw", pa.float32()), ("input_weapon", pa.string()), ("team_num", pa.int8()), ("is_alive", pa.bool_()),
     ("health", pa.int16()), ("x", pa.float32()), ("y", pa.float32()), ("z", pa.float32())]
)  # fmt: skip


def sample(
    root: Path, frames: int = 96, change: Callable[[list[dict[str, Any]]], Any] = lambda ticks: None
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A round at 32 frames and 64 ticks a second, as OpenCS2 has it.  Returns the turns to the right from each frame to
    the next, half of which each of the two ticks on the way makes."""
    right = shaking(frames)
    turn = np.concatenate([[0.0], np.repeat(right[:-1] / 2, 2)])
    yaw = 30.0 - np.cumsum(turn)
    ticks = [
        {"tick": FIRST_TICK + i, "t": i / 64, "buttons": 8, "active": ["forward"] if i % 4 == 1 else [], "pressed": [],
         "released": [], "pitch": 5.0, "yaw": yaw[i], "delta_pitch": 0.0, "delta_yaw": -turn[i], "input_weapon": "awp",
         "team_num": 2, "is_alive": True, "health": 100, "x": 100.0 * i, "y": -50.0, "z": 36.0}
        for i in range(len(turn))
    ]  # fmt: skip
    change(ticks)
    (root / PLACE).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(ticks, SCHEMA), root / PLACE / "ticks.parquet")
    write(root / PLACE / "video.mp4", scene(after(right)), 32)
    write(root / PLACE / "video.preview.mp4", scene(after(right))[:8], 20)
    return right, ticks


def test_turns_keys_and_poses_arrive_with_their_frames(tmp_path: Path) -> None:
    right, _ = sample(tmp_path / "src")
    data, report = bring("opencs2", tmp_path / "src", tmp_path / "dst")
    assert not report.notes
    assert data.action_space.keys == ("forward", "back", "left", "right", "jump", "crouch", "attack", "use")
    heading = after(right).cumsum()
    clip = data.clip(0)
    shown = np.array(numbers(clip.frames))
    assert shown[-1] >= 94
    np.testing.assert_allclose(np.diff(heading[shown]), rows(data, "mouse.yaw")[:-1], atol=1e-3)
    assert not rows(data, "mouse.pitch").any()
    # Forward is down at every fourth tick: the first of the two after every even frame.
    single = np.diff(shown) == 1
    np.testing.assert_array_equal(rows(data, "key.forward")[:-1][single], shown[:-1][single] % 2 == 0)
    assert clip.poses is not None
    np.testing.assert_allclose(clip.poses[:, 0], 0.0254 * 100 * 2 * shown, rtol=1e-5)
    np.testing.assert_allclose(clip.poses[:, 3], (60.0 + heading[shown]) % 360, atol=1e-3)
    np.testing.assert_allclose(clip.poses[:, [1, 2, 4]], [[0.0254 * -50, 0.0254 * 100, -5.0]] * len(shown), rtol=1e-5)
    meta = data.episodes[0].meta
    assert (meta["map"], meta["match"], meta["source"]) == ("de_mirage", "2393226", "2393226-de_mirage-16-00")


def test_rows_are_found_by_their_tick_not_by_their_order(tmp_path: Path) -> None:
    sample(tmp_path / "a")
    sample(tmp_path / "b", change=lambda ticks: ticks.reverse())
    before, now = (bring("opencs2", tmp_path / one, tmp_path / f"to-{one}")[0].clip(0) for one in "ab")
    np.testing.assert_array_equal(now.actions, before.actions)


def test_buttons_by_wish(tmp_path: Path) -> None:
    def aim(ticks: list[dict[str, Any]]) -> None:
        for tick in ticks[40:60]:
            tick["active"] = ["attack2", "turn_left"]

    sample(tmp_path / "src", change=aim)
    data, _ = bring("opencs2", tmp_path / "src", tmp_path / "dst", map=("attack2=aim", "move_left=left"))
    assert data.action_space.keys == ("left", "aim")
    shown = np.array(numbers(data.clip(0).frames))
    np.testing.assert_array_equal(rows(data, "key.aim") > 0, (shown >= 19) & (shown < 30))


def kill(ticks: list[dict[str, Any]]) -> None:
    for tick in ticks[100:]:
        tick["is_alive"] = False


def contradict(ticks: list[dict[str, Any]]) -> None:
    ticks[101]["delta_yaw"] += 3.0


@pytest.mark.parametrize(
    ("change", "says", "dropped"),
    [
        (kill, None, {"dead": 47}),
        (
            contradict,
            "ticks.parquet: row 101: delta_yaw is not what yaw turned",
            {"rows that contradict themselves": 1},
        ),
        (lambda ticks: ticks.__delitem__(slice(101, 103)), None, {"no action": 2}),
        (lambda ticks: ticks.__delitem__(slice(101, None)), "no tick for 46 frames of the video", {"no action": 46}),
    ],
)
def test_frames_that_are_left_out(tmp_path: Path, change: Any, says: str | None, dropped: dict[str, int]) -> None:
    right, _ = sample(tmp_path / "src", change=change)
    data, report = bring("opencs2", tmp_path / "src", tmp_path / "dst")
    assert says is None or any(says in note for note in report.notes)
    for reason, count in dropped.items():
        assert report.outcomes[0].dropped[reason] == count
    heading = after(right).cumsum()
    for episode in range(data.num_episodes):
        shown = numbers(data.clip(episode).frames)
        assert 50 not in shown or change is kill
        np.testing.assert_allclose(np.diff(heading[shown]), rows(data, "mouse.yaw", episode)[:-1], atol=1e-3)


def twice(ticks: list[dict[str, Any]]) -> None:
    ticks[7]["tick"] = ticks[6]["tick"]


def shift(ticks: list[dict[str, Any]]) -> None:
    ticks[9]["t"] += 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (twice, r"ticks\.parquet: rows 6 and 7 are both of tick 6466"),
        (shift, r"ticks\.parquet: row 9: t is 0\.240625, but tick 6469 is 0\.140625 s after tick 6460"),
    ],
)
def test_contradictions_refuse_the_file(tmp_path: Path, change: Any, says: str) -> None:
    sample(tmp_path / "src", change=change)
    with pytest.raises(DataError, match=says):
        bring("opencs2", tmp_path / "src", tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


def test_bad_requests_and_missing_files(tmp_path: Path) -> None:
    sample(tmp_path / "src")
    with pytest.raises(DataError, match=r"--map shoot=attack: must be BUTTON=NAME with BUTTON one of attack, attack2"):
        bring("opencs2", tmp_path / "src", tmp_path / "dst", map=("shoot=attack",))
    table = tmp_path / "src" / PLACE / "ticks.parquet"
    pq.write_table(pq.read_table(table).drop(["active"]), table)
    with pytest.raises(DataError, match="the column active is missing"):
        bring("opencs2", tmp_path / "src", tmp_path / "dst")
    (tmp_path / "src" / PLACE / "video.mp4").unlink()
    with pytest.raises(DataError, match=r"its video video\.mp4 is missing"):
        bring("opencs2", tmp_path / "src", tmp_path / "dst")
    (tmp_path / "wds/shards").mkdir(parents=True)
    (tmp_path / "wds/shards/000.train.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"tar shards are not read; fetch the loose files"):
        bring("opencs2", tmp_path / "wds", tmp_path / "dst")
