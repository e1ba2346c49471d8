from __future__ import annotations

import numpy as np
import pytest

from reverie.data.checks import Verdict, agreement, judge, limits_of, out_of_step
from reverie.data.signals import SIDEWAYS, UPRIGHT, change, slide, thumbnails
from reverie.types import ActionSpace
from reverie.worlds import WORLDS, WorldInfo
from reverie.worlds.limits import Limits

SPACE = ActionSpace(("forward", "back"))
CAR = ActionSpace(("forward", "back", "left", "right"), mouse=False)
PX_PER_DEG = 1.5


@pytest.fixture(autouse=True)
def _games(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two games with limits of their own: narrow halls with a depth image, and hills."""
    halls = Limits(travel=0.375, stuck_s=0.56, jump_travel=4.0, stare_depth=5.0)
    hills = Limits(stuck_s=3.0, cell_travel=6.0, jump_travel=12.0, blank_s=3.0)
    for name, limits in (("halls", halls), ("hills", hills)):
        monkeypatch.setitem(WORLDS, name, WorldInfo(name, "a game", object, limits=limits))


def walk(frames: int, speed: float = 0.375) -> tuple[np.ndarray, np.ndarray]:
    actions = np.zeros((frames, 4), np.float32)
    actions[:, 0] = 1
    poses = np.zeros((frames, 6), np.float32)
    poses[:, 0] = speed * np.arange(frames)
    return actions, poses


def panorama(yaw_deg: np.ndarray, pitch_deg: np.ndarray, seed: int = 0) -> np.ndarray:
    """Pictures (f, 64, 112, 3) of a camera inside a blotchy wall that is far away."""
    rng = np.random.default_rng(seed)
    blots = [np.kron(rng.normal(0, 18, (320 // s, 1600 // s)), np.ones((s, s))) for s in (4, 8, 16, 32, 64)]
    wall = np.clip(np.sum(blots, axis=0) + 120, 20, 235).astype(np.uint8)[..., None].repeat(3, -1)
    x = np.round(500 + PX_PER_DEG * np.cumsum(yaw_deg)).astype(int).clip(0, wall.shape[1] - 112)
    y = np.round(80 - PX_PER_DEG * np.cumsum(pitch_deg)).astype(int).clip(0, wall.shape[0] - 64)
    return np.stack([wall[b : b + 64, a : a + 112] for a, b in zip(x, y, strict=True)])


def turning(frames: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Actions that walk and look around with a shaking hand, and the pictures that show each in the next frame."""
    rng = np.random.default_rng(seed)
    actions = np.zeros((frames, 4), np.float32)
    actions[:, 0] = 1
    actions[:, 3] = 5 * np.sin(np.arange(frames) / 9) + rng.choice([-1.2, 1.2], frames)
    shown = np.concatenate([[0.0], actions[:-1, 3]])
    return actions, panorama(shown, np.zeros(frames))


def verdict(frames: np.ndarray | None, actions: np.ndarray, poses: np.ndarray | None = None, **kw: object) -> Verdict:
    return judge(frames, actions, poses, None, SPACE, **kw)  # type: ignore[arg-type]


def test_a_good_walk_is_kept_whole() -> None:
    actions, poses = walk(400)
    assert judge(None, actions, poses, np.full(400, 30.0, np.float32), SPACE, "halls") == Verdict(400)
    assert judge(None, actions, None, None, SPACE) == Verdict(400)


def test_turns_that_the_picture_shows_are_good() -> None:
    actions, frames = turning()
    assert verdict(frames, actions) == Verdict(200)


@pytest.mark.parametrize("speed", [0.16, 12.0, 300.0])
def test_cut_before_being_stuck_whatever_the_unit(speed: float) -> None:
    actions, poses = walk(400, speed)
    poses[100:140, 0] = poses[100, 0]
    poses[140:, 0] -= 40 * speed
    found = verdict(None, actions, poses)
    assert 98 <= found.length <= 100
    assert "is stuck from frame" in found.reasons[0]
    actions[100:140] = 0
    assert verdict(None, actions, poses) == Verdict(400), "standing without keys is no fault"
    actions[100:140, :2] = 1
    assert verdict(None, actions, poses) == Verdict(400), "opposite keys cancel"


def test_who_never_moves_is_stuck_from_the_start() -> None:
    actions, poses = walk(300, 0.0)
    assert verdict(None, actions, poses).length == 0


def test_cut_at_a_teleport() -> None:
    actions, poses = walk(400)
    poses[200:, 1] += 500
    found = judge(None, actions, poses, None, SPACE, "halls")
    assert found.length == 200
    assert "jumps 500 units at frame 200" in found.reasons[0]


def test_cut_at_a_stare() -> None:
    actions, poses = walk(400)
    depths = np.full(400, 30.0, np.float32)
    depths[50:95] = 1.0
    assert judge(None, actions, poses, depths, SPACE, "halls").length == 50
    assert judge(None, actions, poses, depths, SPACE, "hills").length == 400, "its depth has another unit, if any"


def test_a_cell_is_thrown_away() -> None:
    actions, poses = walk(300)
    actions[:] = 0
    poses[:, 0] = np.sin(np.arange(len(poses)))
    assert judge(None, actions, poses, None, SPACE, "halls").length == 0


def test_an_idle_player_in_a_still_world_is_legal() -> None:
    actions, frames = turning()
    actions[60:120] = 0
    frames[61:121] = frames[60]
    assert verdict(frames, actions) == Verdict(200)


def test_frozen_pictures_are_cut() -> None:
    actions, frames = turning()
    actions[:, 3] = 3.0
    frames = panorama(np.full(200, 3.0), np.zeros(200))
    frames[80:110] = frames[80]
    found = verdict(frames, actions)
    assert found.length == 81
    assert "is frozen from frame 81" in found.reasons[0]


def test_repeated_pictures_are_found_by_turns_and_by_poses() -> None:
    actions, frames = turning()
    actions[:, 3] = 3.0
    frames = panorama(np.full(200, 3.0), np.zeros(200))
    frames[1::2] = frames[::2]
    found = verdict(frames, actions)
    assert found.length == 0
    assert "repeats pictures: 50%" in found.reasons[0]
    assert judge(frames, actions, None, None, SPACE, "imported").length == 200, "a slow source repeats them rightly"
    actions[:, 3] = 0
    assert "repeats pictures" in verdict(frames, actions, walk(200)[1]).reasons[0]


@pytest.mark.parametrize(("level", "word"), [(0, "black"), (128, "blank")])
def test_blank_pictures_are_cut(level: int, word: str) -> None:
    actions, frames = turning()
    frames[90:130] = level
    found = verdict(frames, actions)
    assert found.length == 90
    assert f"is {word} from frame 90" in found.reasons[0]
    actions, frames = turning()
    frames[90:100] = level
    assert "broken" not in " ".join(verdict(frames, actions).reasons), "short darkness may be a tunnel"


def test_one_broken_picture_is_cut() -> None:
    actions, frames = turning()
    frames[70] = 255 - frames[70] // 2
    actions[66:74, 3] = 0
    frames[67:75] = frames[67]
    frames[70] = np.random.default_rng(5).integers(0, 255, frames[70].shape)
    found = verdict(frames, actions)
    assert found.length == 70
    assert "broken picture at frame 70" in found.reasons[0]


def test_almost_nothing_happens() -> None:
    actions, frames = turning(400)
    actions[:, 3] = 0
    frames[:] = frames[0]
    frames[380:] = panorama(np.full(20, 3.0), np.zeros(20))
    assert "hardly changes: 9" in verdict(frames, actions).reasons[0]


def test_turns_the_wrong_way_are_found() -> None:
    actions, frames = turning()
    actions[:, 3] *= -1
    assert "turns the wrong way" in verdict(frames, actions).reasons[0]


def test_looking_up_moves_the_picture_down() -> None:
    pitch = np.tile(np.repeat([2.0, -2.0], 8), 10).astype(np.float32)
    frames = panorama(np.zeros(160), np.concatenate([[0.0], pitch[:-1]]))
    assert agreement(frames, pitch[:-1], "pitch") == 1.0
    assert agreement(frames, -pitch[:-1], "pitch") == 0.0
    actions = np.zeros((160, 4), np.float32)
    actions[:, 2] = -pitch
    assert "recorded pitch" in verdict(frames, actions).reasons[0]


@pytest.mark.parametrize(("late", "word"), [(1, "after"), (-1, "before")])
def test_a_row_of_the_wrong_frame_is_found(late: int, word: str) -> None:
    actions, frames = turning()
    assert out_of_step(frames, actions[:-1, 3]) == 0
    moved = np.roll(actions, -late, axis=0)
    assert out_of_step(frames, moved[:-1, 3]) == late
    assert f"the picture turns {word} its row" in verdict(frames, moved).reasons[0]


def test_turns_of_a_world_without_a_mouse_come_from_the_pose() -> None:
    actions, frames = turning()
    poses = walk(200)[1]
    poses[:, 3] = np.concatenate([[0.0], np.cumsum(actions[:-1, 3])]) % 360.0
    keys = np.zeros((200, 4), np.float32)
    keys[:, 0] = 1
    assert judge(frames, keys, poses, None, CAR, "") == Verdict(200)
    poses[:, 3] = -poses[:, 3]
    assert "turns the wrong way" in judge(frames, keys, poses, None, CAR, "").reasons[0]


def test_impossible_actions_spoil_an_episode() -> None:
    actions, poses = walk(50)
    for value, place, text in (
        (np.nan, (7, 2), "actions that are not numbers, first at frame 7"),
        (0.5, (3, 0), "keys that are neither 0 nor 1"),
        (999.0, (4, 3), "turns of more than 180 degrees"),
    ):
        bad = actions.copy()
        bad[place] = value
        found = verdict(None, bad, poses)
        assert found.length == 0
        assert text in found.reasons[0]
    poses[20, 1] = np.nan
    found = verdict(None, actions, poses)
    assert found.length == 20
    assert "the pose is not a number" in found.reasons[0]


def test_short_and_tiny_episodes_do_not_break_the_checks() -> None:
    for length in (1, 2, 3, 5):
        actions, poses = walk(length)
        assert verdict(np.zeros((length, 16, 16, 3), np.uint8), actions, poses).length == length


def test_motion_is_measured_in_pixels_on_both_axes() -> None:
    yaw = np.array([0, 4, -6, 2, 8, 0], float)
    frames = panorama(yaw, 0 * yaw)
    np.testing.assert_allclose(slide(frames[:-1], frames[1:], SIDEWAYS), -PX_PER_DEG * yaw[1:], atol=0.6)
    changed = change(thumbnails(frames))
    frames = panorama(0 * yaw, yaw)
    np.testing.assert_allclose(slide(frames[:-1], frames[1:], UPRIGHT), PX_PER_DEG * yaw[1:], atol=0.6)
    assert changed[-1] == 0
    assert changed[:-1].min() > 5


def test_imported_play_and_unknown_games_have_limits() -> None:
    assert limits_of("imported").stuck_s is None
    assert limits_of("a game that nobody has installed") == Limits()
    assert limits_of("halls").travel == 0.375
