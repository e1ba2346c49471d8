import numpy as np
import pytest

from reverie.data.policies import policy_for, seen_now
from reverie.data.record import play_episode
from reverie.errors import ActionError, WorldError
from reverie.types import Action, ExplorableWorld, PlaceableWorld, World
from reverie.worlds import WORLDS, open_world

pytest.importorskip("vizdoom")

import warp

from reverie_worlds.doom import world as vizdoom
from reverie_worlds.doom.world import FOV_DEG, HELDOUT_MAPS, TRAIN_MAPS, VizDoomWorld

FORWARD = Action(frozenset({"forward"}))
MAPS = ("freedoom2/MAP01", "freedoom2/MAP03")


@pytest.fixture(scope="module")
def world():
    game = VizDoomWorld(MAPS)
    yield game
    game.close()


def run(game: VizDoomWorld, seed: int, actions: list[Action]) -> np.ndarray:
    return np.concatenate([game.reset(seed), *(game.step(action) for action in actions)])


def test_it_is_a_world(world: VizDoomWorld) -> None:
    assert isinstance(world, World)
    picture = world.reset(0)
    assert picture.shape == (1, 128, 224, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 5
    assert world.depth is not None
    assert world.depth.shape == vizdoom.DEPTH_SHAPE


def test_depth_and_poses_warp_a_frame_onto_a_later_one(world: VizDoomWorld) -> None:
    clip = warp.play(world, 1, warp.look_about("forward"), 48)
    warp.check(world, clip, gain_db=4.0, timing=True)
    assert clip.depth is not None
    assert 0.005 < clip.depth.body.mean() < 0.2, "the weapon"
    assert clip.depth.body[:, :24].mean() == 0, "which is below"


def test_the_player_can_be_asked_to_stand_somewhere(world: VizDoomWorld) -> None:
    assert isinstance(world, PlaceableWorld)
    world.reset(1)
    there = world.pose
    for _ in range(30):
        world.step(Action(frozenset({"forward"}), (0.5, 3.0)))
    assert np.abs(world.pose - there).max() > 1
    frame = world.stand(there)
    assert frame.shape == (1, 128, 224, 3)
    np.testing.assert_allclose(world.pose, there, atol=0.1)
    for _ in range(5):
        world.step(Action())
    np.testing.assert_allclose(world.pose, there, atol=0.2)
    nowhere, before = there + np.float32(1000), world.pose
    with pytest.raises(WorldError, match="nobody can stand at"):
        world.stand(nowhere)
    np.testing.assert_allclose(world.pose, before, atol=0.2)
    world.step(FORWARD)


def test_a_level_can_be_looked_at_from_anywhere(world: VizDoomWorld) -> None:
    assert isinstance(world, ExplorableWorld)
    first = world.reset(1)
    pose = world.pose
    frame, geometry = world.look_from(pose)
    np.testing.assert_array_equal(world.pose, pose)
    below = slice(0, 64), slice(None)  # the weapon may sway
    np.testing.assert_array_equal(frame[0][below], first[0][below])
    places = world.standpoints(2.0, 12.0)
    assert places.dtype == np.float32
    assert len(places) > 10
    assert np.abs(places[:, :2] - pose[:2]).max() <= 12.0
    assert (places[:, 2] == pose[2]).all()
    for yaw, place in enumerate(places[::5]):
        asked = np.array([*place, 50.0 * yaw, -5.0 + yaw, 0.0], np.float32)
        _, geometry = world.look_from(asked)
        np.testing.assert_allclose(world.pose[:2], asked[:2], atol=0.01)
        assert (world.pose[3] - asked[3] + 180) % 360 - 180 == pytest.approx(0.0, abs=0.05)
        assert world.pose[4] == pytest.approx(asked[4], abs=0.05)
        assert np.median(geometry.depth) > 0.5
    with pytest.raises(WorldError, match="step after look_from; call reset"):
        world.step(FORWARD)
    np.testing.assert_array_equal(world.reset(1), first)
    with pytest.raises(WorldError, match="call reset"):
        VizDoomWorld(MAPS).look_from(pose)


def test_depth_is_metres_to_the_walls(world: VizDoomWorld) -> None:
    """The map tells how far the walls are; of columns that one wall fills the depth buffer must tell the same."""
    errors = []
    for seed in range(12):
        world.reset(seed)
        depth = world.geometry().depth
        sight = world._look()
        assert sight is not None
        middle = depth[30:34]
        fills = np.ptp(middle, axis=0) == 0
        walls = np.repeat(sight[0].free, 4) * vizdoom.UNIT_M
        fits = fills & (walls < 19.0) & (np.abs(np.log(middle[0] / walls)) < 0.5)  # else another thing stands before
        assert fits.sum() > 0.3 * fills.sum()
        errors += (middle[0] / walls)[fits & (walls > 2.0)].tolist()
    assert np.median(errors) == pytest.approx(1.0, abs=0.03)
    assert np.median(np.abs(np.log(errors))) < 0.06


def test_reset_is_decided_by_the_seed(world: VizDoomWorld) -> None:
    actions = [Action(frozenset({"forward"}), (0.0, 2.0))] * 12
    first = run(world, 5, actions)
    spot, level = world.pose, world.map
    run(world, 6, actions)
    np.testing.assert_array_equal(run(world, 5, actions), first)
    np.testing.assert_array_equal(world.pose, spot)
    assert world.map == level
    fresh = VizDoomWorld(MAPS)
    np.testing.assert_array_equal(run(fresh, 5, actions), first)
    fresh.close()


def test_seeds_lead_to_different_spots_and_directions_with_room_ahead(world: VizDoomWorld) -> None:
    poses, room = [], []
    for seed in range(5):
        world.reset(seed)
        poses.append(world.pose)
        assert world.depth is not None
        room.append(float(np.median(world.depth[:, 18:38])))
    assert len({tuple(pose[:2]) for pose in poses}) >= 4
    assert len({round(float(pose[3])) for pose in poses if pose[3] % 90}) >= 4
    assert np.median(room) >= vizdoom.OPEN_DEPTH


@pytest.mark.parametrize("when", [0, 3, 7])
def test_an_action_shows_first_in_the_next_frame(world: VizDoomWorld, when: int) -> None:
    idle = [Action()] * 10
    turned = list(idle)
    turned[when] = Action(frozenset(), (0.0, 4.0))
    plain, other = run(world, 1, idle), run(world, 1, turned)
    differs = (plain != other).reshape(len(plain), -1).any(axis=1)
    assert int(np.argmax(differs)) == when + 1


@pytest.mark.parametrize("key", ["forward", "back", "left", "right"])
def test_keys_show_in_the_next_frame_too(world: VizDoomWorld, key: str) -> None:
    """Compared at two spots, for at some there is a wall behind or beside."""
    shown = set()
    for seed in (1, 2):
        pressed = run(world, seed, [Action(), Action(frozenset({key}))])
        plain = run(world, seed, [Action()] * 2)
        differs = (plain != pressed).reshape(3, -1).any(axis=1)
        assert not differs[:2].any()
        shown.add(bool(differs[2]))
    assert True in shown


def test_attack_shows_in_the_next_frame(world: VizDoomWorld) -> None:
    for when in (0, 5):
        actions = [Action(frozenset({"attack"}) if i == when else frozenset()) for i in range(8)]
        differs = np.abs(run(world, 1, actions).astype(int) - run(world, 1, [Action()] * 8)).mean(axis=(1, 2, 3))
        assert int(np.argmax(differs > 0)) == when + 1
        assert differs[when + 1] > 0.5, "the flash of the gun is seen"


def test_use_opens_a_door_from_the_next_frame_on(world: VizDoomWorld) -> None:
    """The policy walks up to doors; where it first uses one, the same walk without that key differs from then on."""
    seed, keys = walk_to_a_door(world)
    used = int(np.argmax(["use" in action.keys for action in keys]))
    without = [Action(action.keys - {"use"}, action.mouse) for action in keys]
    differs = np.abs(run(world, seed, keys).astype(int) - run(world, seed, without)).mean(axis=(1, 2, 3))
    assert int(np.argmax(differs > 0)) == used + 1
    assert differs[-1] > 4, "the door is open"


def walk_to_a_door(game: VizDoomWorld) -> tuple[int, list[Action]]:
    for seed in range(20):
        frame, policy, actions = game.reset(seed)[0], policy_for("vizdoom", seed), []
        for _ in range(300):
            actions.append(policy.act(seen_now(game, frame)))
            frame = game.step(actions[-1])[0]
            if "use" in actions[-1].keys:
                return seed, actions + [Action()] * 24
    raise AssertionError("no door was found")


def test_without_hands_it_is_the_world_that_nano_was_trained_in() -> None:
    game = VizDoomWorld(MAPS[:1], hands=False)
    assert game.action_space.keys == ("forward", "back", "left", "right")
    picture = game.reset(1)[0]
    armed = VizDoomWorld(MAPS[:1])
    differs = np.abs(picture.astype(int) - armed.reset(1)[0]).max(axis=(1, 2)) > 8
    assert not differs[:80].any()
    assert differs[100:].any(), "the gun is in the lower part of the picture alone"
    assert game.episode_info == {"monsters": False, "hands": False}
    game.close()
    armed.close()


def test_monsters_come_when_asked_for() -> None:
    game = VizDoomWorld(MAPS[:1], monsters=True)
    plain = VizDoomWorld(MAPS[:1])
    moved = [
        np.abs(np.diff(run(each, 4, [Action()] * 40).astype(int), axis=0)).max(axis=(0, 3)).mean()
        for each in (game, plain)
    ]
    assert moved[0] > moved[1]
    game.close()
    plain.close()


def test_signs_and_amount_of_turns(world: VizDoomWorld) -> None:
    world.reset(1)
    before = world.pose
    world.step(Action(frozenset(), (2.0, 3.0)))
    after = world.pose
    assert (after[3] - before[3]) % 360 == pytest.approx(3.0, abs=0.05)
    assert after[4] - before[4] == pytest.approx(2.0, abs=0.05)


def test_turning_right_moves_the_picture_left_by_as_much_as_the_field_of_view_says(world: VizDoomWorld) -> None:
    focal_px = 112 / np.tan(np.radians(FOV_DEG / 2))
    ratios = []
    for seed in range(6):
        frames = run(world, seed, [Action(frozenset(), (0.0, 4.0))])
        a, b = frames[:, 40:88].mean(axis=(1, 3))
        errors = [np.abs(a[80 + shift : 144 + shift] - b[80:144]).mean() for shift in range(-12, 13)]
        ratios.append((int(np.argmin(errors)) - 12) / (focal_px * np.tan(np.radians(4.0))))
    assert np.median(ratios) == pytest.approx(1.0, abs=0.2)


def test_forward_and_back_move_along_the_view(world: VizDoomWorld) -> None:
    for key, sign in (("forward", 1), ("back", -1)):
        moved = []
        for seed in range(4):
            world.reset(seed)
            before = world.pose
            for _ in range(6):
                world.step(Action(frozenset({key})))
            dx, dy = (world.pose - before)[:2]
            heading = np.radians(before[3])
            moved.append(sign * (dx * np.sin(heading) + dy * np.cos(heading)))
        assert np.median(moved) > 8 * vizdoom.UNIT_M, key


def test_no_text_weapon_or_flash_appears(world: VizDoomWorld) -> None:
    """Standing still, a level's picture stays as it is but for its animated textures."""
    frames = run(world, 3, [Action()] * 30).astype(int)
    assert np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).max() < 8


def test_the_policy_walks_and_does_not_stare(world: VizDoomWorld) -> None:
    stuck, near, frames = 0, 0, 0
    for seed in range(3):
        _, actions, poses, depths = play_episode(world, policy_for("vizdoom", seed), seed, 200)
        held = actions[:-1, :4].any(axis=1)
        moved = np.abs(np.diff(poses[:, :2], axis=0)).sum(axis=1)
        stuck += int((held & (moved < 1.0 / 32)).sum())
        near += int((depths < 4).sum())
        frames += len(actions)
    assert stuck / frames < 0.12
    assert near / frames < 0.25


def test_heldout_levels_are_never_played_for_training() -> None:
    assert not set(HELDOUT_MAPS) & set(TRAIN_MAPS)
    assert len(HELDOUT_MAPS) == 17
    assert {f"freedoom2/MAP{m}" for m in range(25, 33)} | {f"freedoom1/E4M{m}" for m in range(1, 10)} == set(
        HELDOUT_MAPS
    )
    assert not set(vizdoom.choose_maps(None, heldout=False)) & set(HELDOUT_MAPS)
    assert set(vizdoom.choose_maps(None, heldout=True)) == set(HELDOUT_MAPS)
    with pytest.raises(WorldError, match="is a held-out map"):
        VizDoomWorld(("freedoom2/MAP25",))
    with pytest.raises(WorldError, match="is a training map"):
        VizDoomWorld(("freedoom2/MAP01",), heldout=True)


def test_bad_requests_are_one_clear_line(world: VizDoomWorld) -> None:
    with pytest.raises(WorldError, match=r"unknown game 'quake'; known games: .*vizdoom"):
        open_world("quake")
    with pytest.raises(WorldError, match="unknown VizDoom map 'MAP01'"):
        open_world("vizdoom", maps=("MAP01",))
    with pytest.raises(WorldError, match="at least one map"):
        open_world("vizdoom", maps=())
    with pytest.raises(WorldError, match="does not take these options"):
        open_world("vizdoom", weather="rain")
    with pytest.raises(ActionError, match="unknown key 'jump'"):
        world.step(Action(frozenset({"jump"})))
    unopened = VizDoomWorld(MAPS)
    with pytest.raises(WorldError, match="step before reset"):
        unopened.step(FORWARD)
    unopened.close()
    unopened.close()


def test_a_game_that_died_is_one_clear_line_and_starts_again_at_reset() -> None:
    game = VizDoomWorld(MAPS[:1])
    first = game.reset(2)
    game._games["freedoom2"].close()
    with pytest.raises(WorldError, match=r"VizDoom stopped on freedoom2/MAP01: .*; reset to start it again"):
        game.step(FORWARD)
    np.testing.assert_array_equal(game.reset(2), first)
    game.close()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vizdoom", None)
    with pytest.raises(WorldError, match=r'pip install "reverie-world\[worlds\]"'):
        open_world("vizdoom")
    assert "vizdoom" in WORLDS
