"""Minetest: scenery and bad input without the game; pairing, turns, poses and replays with it, in one running game."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import warp

from reverie.errors import ActionError, WorldError
from reverie.types import Action, ExplorableWorld, World
from reverie.worlds import WORLDS, install_command, missing
from reverie_worlds.minetest.scenery import GENERATORS, HELDOUT_EVERY, WORLD_EPISODES, check_maps, choose_scenery
from reverie_worlds.minetest.world import DEGREES_PER_PX, KEYS, MinetestWorld, _part

INFO = WORLDS["minetest"]
IDLE = Action()


def act(*keys: str, pitch: float = 0.0, yaw: float = 0.0) -> Action:
    return Action(frozenset(keys), (pitch, yaw))


# ---- scenery ----


def test_a_seed_decides_the_scenery() -> None:
    for seed in range(40):
        assert choose_scenery(seed, GENERATORS, False) == choose_scenery(seed, GENERATORS, False)
    sceneries = [choose_scenery(seed, GENERATORS, False) for seed in range(400)]
    assert {s.generator for s in sceneries} == set(GENERATORS)
    assert len({s.time for s in sceneries}) == 6
    assert len({s.weather for s in sceneries}) == 4
    assert len({s.place_seed for s in sceneries}) == 400
    worlds = {(s.generator, s.world_seed) for s in sceneries}
    assert len(worlds) == 400 // WORLD_EPISODES


def test_training_and_heldout_worlds_are_apart() -> None:
    for seed in range(0, 800, 8):
        assert choose_scenery(seed, GENERATORS, True).world_seed % HELDOUT_EVERY == 0
        assert choose_scenery(seed, GENERATORS, False).world_seed % HELDOUT_EVERY != 0
    assert choose_scenery(5, ("v7/123",), False).world_seed == 123
    assert check_maps(("v7/120", "flat"), True) == ("v7/120", "flat")


@pytest.mark.parametrize(
    ("maps", "heldout", "says"),
    [
        (("v8",), False, "unknown Minetest map 'v8'; known generators: v7"),
        ((), False, "at least one map"),
        (("v7/abc",), False, "no world seed from 0 to"),
        (("v7/99999999999",), False, "no world seed"),
        (("v7/120",), False, "v7/120 is a held-out world; say heldout=True"),
        (("v7/121",), True, "v7/121 is a training world; say heldout=False"),
    ],
)
def test_maps_that_cannot_be_played(maps: tuple[str, ...], heldout: bool, says: str) -> None:
    with pytest.raises(WorldError, match=says):
        MinetestWorld(maps, heldout)


def test_turns_are_whole_pixels_and_the_rest_is_carried() -> None:
    world = MinetestWorld()
    turns = np.random.default_rng(0).uniform(-7, 7, (500, 2))
    px = np.array([world._mouse_px((pitch, yaw)) for pitch, yaw in turns])
    executed = np.cumsum(px * [1, -1], axis=0)[:, ::-1] * DEGREES_PER_PX
    assert np.abs(executed - np.cumsum(turns, axis=0)).max() <= DEGREES_PER_PX / 2 + 1e-9


def test_parts_make_up_the_whole() -> None:
    for whole in (-1000, -7, 0, 5, 447):
        for count in (1, 2, 3, 9):
            assert sum(_part(whole, i, count) for i in range(count)) == whole


def test_what_needs_an_episode_says_so() -> None:
    world = MinetestWorld()
    for use in (
        lambda: world.step(IDLE),
        lambda: world.pose,
        world.geometry,
        lambda: world.hints,
        lambda: world.episode_info,
    ):
        with pytest.raises(WorldError, match="call reset"):
            use()
    assert isinstance(world, World)
    world.close()


# ---- the game ----

lacks = missing(INFO)
with_game = pytest.mark.skipif(bool(lacks), reason=f"no {', '.join(lacks)}: {install_command([INFO])}")


@pytest.fixture(scope="module")
def world() -> Iterator[MinetestWorld]:
    game = MinetestWorld(("flat/7",))
    yield game
    game.close()


@with_game
def test_an_episode_begins_on_open_ground(world: MinetestWorld) -> None:
    picture = world.reset(0)
    assert picture.shape == (1, 128, 224, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    assert world.map == "flat"
    assert world.episode_info["world_seed"] == 7
    assert world.hints["ground"]
    assert not world.hints["liquid"]
    assert world.hints["light"] >= 14
    assert max(world.hints["eye"]) > 8
    assert world.pose.dtype == np.float32


@with_game
def test_the_first_frame_that_an_action_changes_is_the_one_returned(world: MinetestWorld) -> None:
    """Idle frames hardly differ; each action's frame does, and the frame after it no more than a running walk does."""
    world.reset(10)
    for action in (act(yaw=2.0), act(pitch=2.0), act("forward"), act("jump"), act("left")):
        for _ in range(25):
            world.step(IDLE)
        frames = np.concatenate([world.step(a) for a in (IDLE, IDLE, action, IDLE)]).astype(int)
        before, changed = np.abs(np.diff(frames, axis=0)).reshape(3, -1).mean(axis=1)[:2]
        assert changed > 2 * before + 0.3, action


@with_game
def test_turns_are_exact_also_wide_ones(world: MinetestWorld) -> None:
    world.reset(11)
    start = world.pose
    rng = np.random.default_rng(1)
    asked = np.zeros(2)
    for pitch, yaw in [*rng.uniform(-1, 1, (12, 2)), (12.0, 100.0), (-12.0, -170.03), (0.01, 0.01), (0.02, 0.02)]:
        before = world._running().time_ns
        world.step(act(pitch=float(pitch), yaw=float(yaw)))
        assert world._running().time_ns - before == pytest.approx(40_000_000, rel=0.02)
        asked += (pitch, yaw)
        moved = (world.pose - start)[[4, 3]]
        error = (moved - asked + 180) % 360 - 180
        assert np.abs(error).max() < DEGREES_PER_PX / 2 + 0.002


@with_game
def test_the_pose_is_that_of_the_camera_at_this_frame(world: MinetestWorld) -> None:
    """At the next frame the game tells where its camera was at this one."""
    world.reset(12)
    for i in range(60):
        pose = world.pose
        world.step(act(*(["forward"] if i % 20 else []), *(["jump"] if i % 30 > 20 else []), yaw=1.0))
        eye_x, eye_y, eye_z = world._eye_before
        np.testing.assert_allclose([eye_x, eye_z, eye_y], pose[:3], atol=0.02)


@with_game
def test_depth_and_poses_warp_a_frame_onto_a_later_one(world: MinetestWorld) -> None:
    clip = warp.play(world, 15, warp.look_about("forward"), 48)
    warp.check(world, clip, gain_db=4.0, timing=True)
    assert clip.depth is not None
    assert not clip.depth.body.any(), "nothing of the player is drawn"
    assert np.isinf(clip.depth.depth).any(), "the sky"


@with_game
def test_the_landscape_can_be_looked_at_from_anywhere(world: MinetestWorld) -> None:
    assert isinstance(world, ExplorableWorld)
    first = world.reset(9)
    pose = world.pose
    frame, _ = world.look_from(pose)
    np.testing.assert_allclose(world.pose, pose, atol=0.01)
    assert np.abs(frame.astype(int) - first).mean() < 2.0
    places = world.standpoints(6.0, 12.0)
    assert places.dtype == np.float32
    assert 5 < len(places) <= 25
    assert np.abs(places[:, :2] - pose[:2]).max() < 13.0
    for i, place in enumerate(places[::6]):
        asked = np.array([*place, (100.0 * i + 5) % 360, -12.0, 0.0], np.float32)
        _, geometry = world.look_from(asked)
        np.testing.assert_allclose(world.pose, asked, atol=0.02)
        assert np.median(geometry.depth) > 0.5
    for lower in (0.6, 3.0):  # with the feet in the ground, and in the middle of it
        asked = np.array([*places[0, :2], places[0, 2] - lower, 40.0, 0.0, 0.0], np.float32)
        world.look_from(asked)
        np.testing.assert_allclose(world.pose, asked, atol=0.02, err_msg="nothing pushes the camera away")
    with pytest.raises(WorldError, match="step after look_from; call reset"):
        world.step(IDLE)
    with pytest.raises(WorldError, match="a pose is six finite numbers"):
        world.look_from(np.full(6, np.nan, np.float32))
    world.reset(16)
    before = world.pose
    for _ in range(12):
        world.step(act("jump", "forward"))
    assert np.abs(world.pose - before)[:3].max() > 0.5, "the player moves as always"


@with_game
def test_keys_move_along_the_view(world: MinetestWorld) -> None:
    world.reset(13)
    for key, angle in (("forward", 0.0), ("right", 90.0), ("back", 180.0), ("left", 270.0)):
        for _ in range(10):
            world.step(IDLE)
        before = world.pose
        for _ in range(6):
            world.step(act(key))
        east, north = (world.pose - before)[:2]
        heading = np.radians(before[3] + angle)
        assert east * np.sin(heading) + north * np.cos(heading) > 0.4, key
        assert abs(east * np.cos(heading) - north * np.sin(heading)) < 0.2, key


@with_game
def test_digging_and_placing_change_the_ground(world: MinetestWorld) -> None:
    world.reset(14)
    for _ in range(30):
        world.step(act(pitch=-1.5))
    before = world.step(IDLE)[0].astype(int)
    for _ in range(40):
        world.step(act("attack"))
    for _ in range(20):
        world.step(IDLE)
    dug = world.step(IDLE)[0].astype(int)
    assert np.abs(dug - before)[48:80, 80:144].mean() > 5
    for _ in range(20):
        world.step(act(yaw=2.0))
    aside = world.step(IDLE)[0].astype(int)
    world.step(act("use"))
    for _ in range(20):
        world.step(IDLE)
    placed = world.step(IDLE)[0].astype(int)
    assert np.abs(placed - aside)[48:80, 80:144].mean() > 5


@with_game
def test_another_episode_in_the_same_world_goes_elsewhere_quickly(world: MinetestWorld) -> None:
    world.reset(1)
    process, first = world._running().pid, world.pose
    world.reset(2)
    assert world._running().pid == process
    assert np.abs(world.pose - first)[:2].max() > 100
    with pytest.raises(ActionError, match="unknown key 'handbrake'"):
        world.step(act("handbrake"))


@with_game
def test_after_a_crash_the_seed_leads_back_to_its_world(world: MinetestWorld) -> None:
    """To its world, hour and weather.  The game does not grow the same trees each time, and the choice of a spot sees
    them, so the place and the direction are usually, not always, the same: they are not compared here."""
    world.reset(4)
    scenery, info = world.scenery, world.episode_info
    os.kill(world._running().pid, signal.SIGKILL)
    with pytest.raises(WorldError, match="minetest was ended by SIGKILL"):
        world.step(IDLE)
    again = world.reset(4)
    assert (world.scenery, world.episode_info) == (scenery, info)
    assert again.std() > 4, "a picture of something"
    assert np.isfinite(world.pose).all()


def test_every_key_of_the_action_space_is_bound() -> None:
    assert set(MinetestWorld.action_space.keys) == set(KEYS) | {"attack", "use"}
