from __future__ import annotations

import functools
import math
import os
import signal

import numpy as np
import pytest
import warp

from reverie.data.policies import policy_for
from reverie.data.record import play_episode
from reverie.errors import ActionError, WorldError
from reverie.types import Action, World
from reverie.worlds import WORLDS, install_command, missing
from reverie_worlds.rally import world as trigger_rally
from reverie_worlds.rally.world import TriggerRallyWorld

pytestmark = pytest.mark.skipif(
    bool(missing(WORLDS["trigger-rally"])), reason=f"no Trigger Rally: {install_command([WORLDS['trigger-rally']])}"
)

MAPS = ("maps/leaves", "events/02-alps/lake")
STAND = Action()


def press(*keys: str) -> Action:
    return Action(frozenset(keys))


@pytest.fixture(scope="module")
def world():
    game = TriggerRallyWorld(MAPS)
    yield game
    game.close()


def drive(game: TriggerRallyWorld, seed: int, actions: list[Action]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and cameras, one more than actions."""
    pictures, cameras = [game.reset(seed)], [game.camera]
    for action in actions:
        pictures.append(game.step(action))
        cameras.append(game.camera)
    return np.concatenate(pictures), np.array(cameras)


def test_it_is_a_world_that_shows_a_drive(world: TriggerRallyWorld) -> None:
    assert isinstance(world, World)
    picture = world.reset(0)
    assert picture.shape == (1, 128, 224, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    assert world.map in MAPS
    assert world.pose.shape == (6,)
    assert world.pose.dtype == np.float32
    assert set(world.episode_info) == {"car", "weather", "start"}
    assert set(world.episode_info["weather"]) == {"sky", "rain", "snow", "fog"}


@pytest.mark.parametrize("view", ["chase", "bonnet"])
def test_depth_and_poses_warp_a_frame_onto_a_later_one(view: str) -> None:
    game = TriggerRallyWorld(MAPS[1:], view=view)
    clip = warp.play(game, 1, lambda i: press("forward", "right" if i // 6 % 2 else "left"), 48, skip=30)
    warp.check(game, clip, gain_db=3.0, pitch=view == "bonnet")
    assert clip.depth is not None
    assert 0.02 < clip.depth.body.mean() < 0.3, "the car"
    assert np.isinf(clip.depth.depth[:, 0]).mean() > 0.5, "the sky"
    game.close()


def test_the_field_of_view_is_what_it_says(world: TriggerRallyWorld) -> None:
    world.reset(0)
    assert world._game is not None
    projection = world._game.projection
    assert projection is not None
    assert 2 * math.degrees(math.atan(1 / projection[0, 0])) == pytest.approx(world.fov_deg, abs=0.1)


@functools.cache
def fresh_drive(*keys_before_and_after: tuple[str, ...]) -> np.ndarray:
    """The cameras of 30 frames of some keys and 3 of others, in a new process: there it is the same to the bit."""
    game = TriggerRallyWorld(MAPS[:1])
    before, after = keys_before_and_after
    cameras = drive(game, 1, [press(*before)] * 30 + [press(*after)] * 3)[1]
    game.close()
    return cameras


@pytest.mark.parametrize("key", ["forward", "back", "left", "right", "handbrake"])
def test_a_key_shows_first_in_the_next_frame(key: str) -> None:
    """Pedals from a stand, wheel and handbrake at speed: the camera, which hangs on the car, tells of each at once."""
    before: tuple[str, ...] = () if key in ("forward", "back") else ("forward",)
    plain, pressed = fresh_drive(before, before), fresh_drive(before, (*before, key))
    np.testing.assert_array_equal(plain[:31], pressed[:31])
    assert (plain[31] != pressed[31]).any()


def test_left_and_right_turn_the_picture_and_the_yaw_their_way(world: TriggerRallyWorld) -> None:
    turned = {}
    for key in ("left", "right"):
        world.reset(1)
        yaw = world.pose[3]
        for i in range(60):
            world.step(press("forward", key) if i > 30 else press("forward"))
        turned[key] = (world.pose[3] - yaw + 180) % 360 - 180
    assert turned["left"] < -5 < 5 < turned["right"]


def test_forward_and_back_move_along_the_view_by_the_pose(world: TriggerRallyWorld) -> None:
    for key, sign in (("forward", 1), ("back", -1)):
        world.reset(1)
        before = world.pose
        for _ in range(25):
            world.step(press(key))
        dx, dy = (world.pose - before)[:2]
        yaw = math.radians(before[3])
        assert sign * (dx * math.sin(yaw) + dy * math.cos(yaw)) > 0.5, key
        assert sign * world.hints["speed"] > 0.5


def test_the_seed_decides_and_a_drive_comes_back(world: TriggerRallyWorld) -> None:
    """In one process clouds, dust and the last millimetre know of earlier races; from a fresh one all is the same."""
    actions = [press("forward")] * 30 + [press("forward", "left")] * 10 + [press("handbrake")] * 5
    pictures, cameras = drive(world, 5, actions)
    info, level = world.episode_info, world.map
    drive(world, 6, actions[:3])
    again, cameras_again = drive(world, 5, actions)
    assert (world.episode_info, world.map) == (info, level)
    assert np.abs(cameras_again - cameras)[:10].max() < 0.01
    assert np.abs(cameras_again - cameras).max() < 1.0
    assert np.abs(again.astype(int) - pictures).mean() < 6
    fresh = [TriggerRallyWorld(MAPS), TriggerRallyWorld(MAPS)]
    (a, _), (b, _) = (drive(game, 5, actions) for game in fresh)
    np.testing.assert_array_equal(a, b)
    for game in fresh:
        game.close()


def test_seeds_choose_track_car_weather_and_place(world: TriggerRallyWorld) -> None:
    drawn = []
    for seed in range(5):
        world.reset(seed)
        drawn.append((world.map, world.episode_info["car"], world.episode_info["weather"]["sky"], *world.pose[:2]))
    assert {row[0] for row in drawn} == set(MAPS)
    assert len({row[1] for row in drawn}) >= 3
    assert len({row[2] for row in drawn}) >= 2
    assert len({row[3:] for row in drawn}) >= 3


def test_no_instruments_map_or_countdown_are_seen_and_the_first_key_works(world: TriggerRallyWorld) -> None:
    """Standing still nothing changes but clouds, water and what falls; and the race is on."""
    pictures, _ = drive(world, 3, [STAND] * 10)
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() < 3
    world.reset(3)
    place = world.camera[:3, 3]
    for _ in range(10):
        world.step(press("forward"))
    assert math.dist(place, world.camera[:3, 3]) > 0.05


def test_the_bonnet_view_is_lower_and_nearer() -> None:
    heights = {}
    for view in ("chase", "bonnet"):
        game = TriggerRallyWorld(MAPS[:1], view=view)
        game.reset(1)
        heights[view] = game.pose[2]
        cars = game._car_place()
        heights[view + " car"] = cars
        game.close()
    assert heights["bonnet"] < heights["chase"] - 0.3
    assert math.dist(heights["bonnet car"], heights["chase car"]) < 1.0


def test_a_car_that_cannot_move_ends_the_drive(world: TriggerRallyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_rally, "STUCK_M", 1e6)  # however far it comes, it counts as nothing
    monkeypatch.setattr(trigger_rally, "STUCK_FRAMES", 5)
    world.reset(1)
    ends = []
    for _ in range(6):
        world.step(press("forward"))
        ends.append(world.finished)
    assert ends.index(True) == 4
    assert world.step(STAND).shape == (1, 128, 224, 3)
    assert not world.finished


def test_a_policy_drives_and_the_road_is_told(world: TriggerRallyWorld) -> None:
    _, actions, poses, _ = play_episode(world, policy_for("trigger-rally", 2), 2, 150)
    assert actions.shape[1] == 5
    assert np.hypot(*(poses[:, :2] - poses[0, :2]).T).max() > 3
    hints = world.hints
    assert np.asarray(hints["ahead"]).shape == (5, 2)
    assert hints["off_route_m"] < 60


def test_the_split_is_fixed() -> None:
    train, heldout = TriggerRallyWorld(), TriggerRallyWorld(heldout=True)
    assert not set(train.maps) & set(heldout.maps)
    assert len(train.maps) + len(heldout.maps) + len(trigger_rally.BROKEN) == 178
    assert len(heldout.maps) == 18
    assert "maps/xing" in heldout.maps


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"maps": ("maps/nowhere",)}, "unknown track 'maps/nowhere'"),
        ({"maps": ("maps/xing",)}, "maps/xing is a held-out track; say heldout=True"),
        ({"maps": ("maps/leaves",), "heldout": True}, "maps/leaves is a training track; say heldout=False"),
        ({"maps": ()}, "at least one track"),
        ({"view": "moon"}, "unknown view 'moon'; Trigger Rally has chase, bonnet"),
    ],
)
def test_bad_options_are_one_line(options: dict, words: str) -> None:
    with pytest.raises(WorldError, match=words) as error:
        TriggerRallyWorld(**options)
    assert "\n" not in str(error.value)


def test_unknown_keys_and_turns_are_refused(world: TriggerRallyWorld) -> None:
    with pytest.raises(ActionError):
        world.step(press("jump"))
    with pytest.raises(ActionError):
        world.step(Action(mouse=(0.0, 1.0)))


def test_a_step_before_reset_is_refused() -> None:
    with pytest.raises(WorldError, match="call reset"):
        TriggerRallyWorld(MAPS).step(STAND)


def test_a_level_that_does_not_load_is_told_and_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    game = TriggerRallyWorld(MAPS[:1])
    monkeypatch.setattr(trigger_rally, "level_xml", lambda *_: '<level name="reverie"><terrain /></level>')
    monkeypatch.setattr(trigger_rally, "MAX_LOAD_STEPS", 5)
    with pytest.raises(WorldError, match="maps/leaves") as error:
        game.reset(1)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert game.reset(1).std() > 10, "the next reset starts the game again"
    game.close()


def test_a_killed_game_is_told_and_comes_back(world: TriggerRallyWorld) -> None:
    world.reset(1)
    assert world._game is not None
    os.kill(world._game.pid, signal.SIGKILL)
    with pytest.raises(WorldError, match="trigger-rally"):
        world.step(STAND)
    with pytest.raises(WorldError, match="call reset"):
        world.step(STAND)
    assert world.reset(1).shape == (1, 128, 224, 3)
