from itertools import pairwise

import numpy as np
import pytest
import warp

from reverie.data.policies import policy_for, seen_now
from reverie.errors import ActionError, WorldError
from reverie.types import Action, PlaceableWorld, World
from reverie.worlds import WORLDS, install_command, missing, open_world
from reverie_worlds.temple import runner as rules
from reverie_worlds.temple.camera import ChaseCamera
from reverie_worlds.temple.runner import MIN_SPEED, Runner
from reverie_worlds.temple.track import DEADLY, FIRST_FREE, HALF_WIDTH, LAST_FREE, LEAN, Leg, Piece, first_leg
from reverie_worlds.temple.world import TempleWorld

INFO = WORLDS["temple"]
needs_panda = pytest.mark.skipif(bool(missing(INFO)), reason=f"temple is not installed; {install_command([INFO])}")
KEYS = ("left", "right", "jump", "crouch", "turn-left", "turn-right")


def straight(*pieces: Piece, exits: tuple[str, ...] = ("right",), walled: bool = False, length: float = 60.0) -> Leg:
    seeds = {"left": 1, "right": 2}
    return Leg(0, (0.0, 0.0, 0.0), 0, length, pieces, (), exits, walled, (), seeds)


def run(leg: Leg, script: dict[int, str], frames: int = 100) -> Runner:
    """Run `leg` with the keys that `script` holds from its frame on, until the next frame it names."""
    runner, held = Runner(leg, 10.0), ""
    for frame in range(frames):
        held = script.get(frame, held)
        runner.step(set(held.split()))
        if runner.dying:
            break
    return runner


# -- the track


def test_legs_leave_room_to_react_and_stay_level_at_corners() -> None:
    for track in range(12):
        leg = first_leg(track)
        for _ in range(6):
            ends = [FIRST_FREE, *(p.s1 + 9.0 for p in leg.pieces)]
            for end, piece in zip(ends, leg.pieces, strict=False):
                assert end <= piece.s0 < piece.s1 <= leg.length - LAST_FREE
            assert leg.floor(-HALF_WIDTH) == 0.0
            assert leg.floor(leg.length - HALF_WIDTH) == leg.floor(leg.length + HALF_WIDTH)
            child = leg.child(leg.exits[0])
            assert child.start == pytest.approx(leg.at(leg.length, 0.0, leg.floor(leg.length)))
            leg = child


def test_the_track_follows_from_its_number_and_never_turns_thrice_the_same_way() -> None:
    def walk(track: int) -> list[tuple[int, float, int]]:
        leg, seen = first_leg(track), []
        for i in range(30):
            seen.append((leg.seed, leg.length, leg.heading))
            leg = leg.child(leg.exits[i % len(leg.exits)])
        return seen

    assert walk(3) == walk(3)
    assert walk(3) != walk(4)
    for track in range(8):
        headings = [heading for _, _, heading in walk(track)]
        turns = [(b - a) % 4 for a, b in pairwise(headings)]
        assert set(turns) <= {1, 3}
        assert not any(a == b == c for a, b, c in zip(turns, turns[1:], turns[2:], strict=False))


def test_every_kind_of_piece_and_both_kinds_of_corner_come_up() -> None:
    kinds, exits = set(), set()
    for track in range(60):
        leg = first_leg(track)
        kinds |= {p.kind for p in leg.pieces}
        exits.add(leg.exits)
    assert kinds >= {*DEADLY, "wall", "ramp", "bridge", "tunnel", "gate"}
    assert exits == {("left",), ("right",), ("left", "right")}


# -- the runner


@pytest.mark.parametrize(
    ("piece", "key", "mode"),
    [
        (Piece("gap", 12.0, 15.5), "jump", "fall"),
        (Piece("beam", 12.0, 13.0), "crouch", "hit"),
        (Piece("narrow", 12.0, 20.0, side=1), "left", "fall"),
        (Piece("narrow", 12.0, 20.0, side=-1), "right", "fall"),
        (Piece("pillar", 12.0, 13.5, side=1), "left", "hit"),
        (Piece("pillar", 12.0, 13.5, side=-1), "right", "hit"),
    ],
)
def test_each_obstacle_is_passed_by_its_key_and_only_so(piece: Piece, key: str, mode: str) -> None:
    assert piece.answer == key
    begin = 17 if key in ("jump", "crouch") else 10
    passed = run(straight(piece), {begin: key, begin + 2: key if key in ("left", "right") else ""}, 50)
    assert not passed.dying
    assert passed.s > piece.s1
    assert run(straight(piece), {}, 60).mode == mode
    wrong = {"jump": "crouch", "crouch": "jump", "left": "right", "right": "left"}[key]
    assert run(straight(piece), {begin: wrong}, 60).mode == mode


def test_a_low_wall_is_jumped_or_stumbled_over() -> None:
    wall = Piece("wall", 12.0, 12.7)
    assert run(straight(wall), {17: "jump", 19: ""}, 50).stumbles == 0
    tripped = run(straight(wall), {}, 50)
    assert tripped.stumbles == 1
    assert not tripped.deaths


def meet_corner(leg: Leg, before_m: float, key: str) -> Runner:
    """Press `key` for two frames when the corner's middle is `before_m` ahead."""
    runner, left = Runner(leg, 10.0, s=45.0), 2
    for _ in range(60):
        pressed = leg.length - runner.s < before_m and left > 0
        left -= pressed
        runner.step({key} if pressed else set())
        if runner.dying or runner.leg is not leg:
            break
    return runner


def test_corners_are_turned_early_or_late_within_reach_and_else_run_over() -> None:
    for before_m in (4.2, 1.0, -1.0):
        runner = meet_corner(straight(), before_m, "turn-right")
        assert runner.leg.heading == 1, before_m
        assert abs(runner.x) <= LEAN
    assert meet_corner(straight(), 8.0, "turn-right").mode == "fall"
    assert meet_corner(straight(), 1.0, "turn-left").mode == "fall"
    assert meet_corner(straight(walled=True), -9.0, "turn-right").mode == "hit"


def test_a_turn_does_not_jump_in_space() -> None:
    for way in ("left", "right"):
        runner = Runner(straight(exits=(way,)), 10.0, s=56.0)
        places = []
        for _ in range(20):
            runner.step({f"turn-{way}"})
            places.append(runner.place)
        assert runner.leg.heading == (1 if way == "right" else 3)
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        assert steps.max() < 0.8


def test_after_a_fall_the_run_goes_on_behind_what_was_in_the_way() -> None:
    gap = Piece("gap", 12.0, 15.0)
    runner = run(straight(gap), {}, 60)
    veils = []
    for _ in range(rules.FALL_FRAMES + rules.VEIL_FRAMES + 2):
        runner.step({"jump"} if runner.dying else set[str]())
        veils.append(runner.veil)
    assert runner.mode == "run"
    assert runner.s > gap.s1
    assert runner.speed < MIN_SPEED + 0.2
    assert max(veils) == 1.0
    assert veils[-1] == 0.0


def test_speed_grows_and_stays_below_its_limit() -> None:
    runner = Runner(straight(length=1e9), MIN_SPEED)
    speeds = []
    for _ in range(5000):
        runner.step(frozenset())
        speeds.append(runner.speed)
    assert all(b > a for a, b in pairwise(speeds))
    assert 13.0 < speeds[-1] < rules.MAX_SPEED


def test_the_camera_swings_round_smoothly_and_ends_behind_the_runner() -> None:
    runner, camera = Runner(straight(), 10.0, s=52.0), ChaseCamera()
    camera.snap(runner)
    yaws, places = [camera.yaw], [camera.position]
    for _ in range(60):
        runner.step({"turn-right"} if 56.0 < runner.s < 60.0 and runner.leg.heading == 0 else set())
        camera.follow(runner)
        yaws.append(camera.yaw)
        places.append(camera.position)
    assert runner.leg.heading == 1
    assert camera.yaw == pytest.approx(90.0, abs=1.0)
    assert np.abs(np.diff(yaws)).max() < 10.0
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 1.6


# -- the picture


@pytest.fixture(scope="module")
def world():
    game = open_world("temple", maps=("jungle",))
    yield game
    game.close()


def shown(game: World, seed: int, script: list[set[str]]) -> np.ndarray:
    return np.concatenate([game.reset(seed), *(game.step(Action(frozenset(keys))) for keys in script)])


@needs_panda
def test_it_is_a_world(world: World) -> None:
    assert isinstance(world, World)
    assert world.action_space.keys == KEYS
    picture = world.reset(0)
    assert picture.shape == (1, 128, 224, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 25
    pose = world.pose  # type: ignore[attr-defined]
    assert pose.shape == (6,)
    assert pose.dtype == np.float32


@needs_panda
def test_depth_and_poses_warp_a_frame_onto_a_later_one(world: World) -> None:
    policy = policy_for("temple", 1)
    clip = warp.play(world, 1, lambda _: policy.act(seen_now(world, np.zeros(0))), 48)  # type: ignore[arg-type]
    warp.check(world, clip, gain_db=4.0)  # type: ignore[arg-type]
    assert clip.depth is not None
    assert 0.005 < clip.depth.body.mean() < 0.1, "the runner"


@needs_panda
def test_the_track_can_be_looked_at_from_anywhere(world: World) -> None:
    warp.look_check(world, 1, gain_db=3.0)  # type: ignore[arg-type]
    world.reset(1)
    places = world.standpoints(10.0, 400.0)  # type: ignore[attr-defined]
    assert len(places) > 60, "four corners on"
    assert np.ptp(places[:, :2], axis=0).min() > 40
    far = places[-1]
    _, near = world.look_from(np.array([*far, 0, -60, 0], np.float32))  # type: ignore[attr-defined]
    assert 1.0 < np.median(near.depth) < 6.0, "the causeway below is drawn there too"


@needs_panda
def test_the_runner_can_be_asked_to_stand_on_the_track(world: World) -> None:
    assert isinstance(world, PlaceableWorld)
    world.reset(1)
    there = world.pose
    for _ in range(10):
        world.step(Action())
    assert world.stand(there).shape == (1, *world.resolution, 3)
    np.testing.assert_allclose(world.pose, there, atol=0.7)
    before = world.pose
    world.step(Action())
    assert 0.1 < np.linalg.norm(world.pose[:2] - before[:2]) < 0.7, "it runs on"
    before = world.pose
    with pytest.raises(WorldError, match="there is no track at"):
        world.stand(there + np.array([500, 0, 0, 0, 0, 0], np.float32))
    with pytest.raises(WorldError, match="there is no track at"):
        world.stand(there + np.array([0, 0, 0, 180, 0, 0], np.float32))
    np.testing.assert_array_equal(world.pose, before)


@needs_panda
@pytest.mark.parametrize("key", KEYS)
def test_a_key_shows_first_in_the_next_frame(world: World, key: str) -> None:
    when = 3
    idle: list[set[str]] = [set() for _ in range(when + 3)]
    pressed = [*idle[:when], {key}, *idle[when + 1 :]]
    differs = np.abs(shown(world, 1, idle).astype(int) - shown(world, 1, pressed)).max(axis=(1, 2, 3))
    assert not differs[: when + 1].any()
    assert differs[when + 1] > 30


@needs_panda
def test_the_seed_decides_everything_whatever_came_before(world: World) -> None:
    script: list[set[str]] = [set() if i % 2 else {KEYS[i // 2]} for i in range(12)]
    first, info = shown(world, 5, script), world.episode_info  # type: ignore[attr-defined]
    shown(world, 6, script[:7])
    np.testing.assert_array_equal(shown(world, 5, script), first)
    assert world.episode_info == info  # type: ignore[attr-defined]
    fresh = open_world("temple", maps=("jungle",))
    np.testing.assert_array_equal(shown(fresh, 5, script), first)
    fresh.close()


@needs_panda
def test_places_differ_and_the_picture_moves() -> None:
    colours = []
    for name in ("desert", "night"):
        game = open_world("temple", maps=(name,))
        frames = shown(game, 0, [set()] * 3)
        assert game.map == name  # type: ignore[attr-defined]
        assert np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3)).min() > 1.0
        colours.append(frames.mean(axis=(0, 1, 2)))
        game.close()
    assert np.abs(colours[0] - colours[1]).max() > 40


@needs_panda
def test_leaning_right_moves_the_runner_to_the_right_and_turning_turns_the_pose(world: World) -> None:
    world.reset(0)
    runner = world._runner  # type: ignore[attr-defined]
    world.step(Action(frozenset({"right"})))
    assert runner.x > 0.15
    runner.s = runner.leg.length - 1.0
    way = runner.leg.exits[0]
    before = world.pose[3]  # type: ignore[attr-defined]
    for _ in range(25):
        world.step(Action(frozenset({f"turn-{way}"})))
    turned = (world.pose[3] - before + 180) % 360 - 180  # type: ignore[attr-defined]
    assert turned == pytest.approx(90 if way == "right" else -90, abs=8)


@needs_panda
def test_a_run_without_end_keeps_few_legs(world: World) -> None:
    world.reset(2)
    runner = world._runner  # type: ignore[attr-defined]
    for _ in range(5):
        leg = runner.leg
        runner.s, runner.mode = leg.length - 1.5, "run"
        for _ in range(3):
            world.step(Action(frozenset({f"turn-{leg.exits[0]}"})))
        assert runner.leg is leg.child(leg.exits[0])
        assert len(world._stage._legs) <= 11  # type: ignore[attr-defined]


@needs_panda
def test_heldout_tracks_are_never_run_for_training() -> None:
    from reverie_worlds.temple.world import track_number

    training, heldout = ({track_number(seed, split) for seed in range(900)} for split in (False, True))
    assert len(training) == len(heldout) == 900
    assert not training & heldout
    assert all(number % 10 == 9 for number in heldout)
    assert training == {n for n in range(1000) if n % 10 != 9}


@needs_panda
def test_bad_requests_are_one_clear_line() -> None:
    with pytest.raises(WorldError, match="unknown temple map 'moon'; its maps are jungle, desert"):
        open_world("temple", maps=("moon",))
    with pytest.raises(WorldError, match="at least one map"):
        open_world("temple", maps=())
    with pytest.raises(WorldError, match="does not take these options"):
        open_world("temple", weather="rain")
    game = open_world("temple", maps=("ice",))
    with pytest.raises(WorldError, match="step before reset"):
        game.step(Action())
    with pytest.raises(WorldError, match="a seed is 0 or more, got -1"):
        game.reset(-1)
    with pytest.raises(ActionError, match="unknown key 'forward'"):
        game.step(Action(frozenset({"forward"})))
    game.close()
    game.close()
    with pytest.raises(WorldError, match="closed"):
        game.reset(0)


@needs_panda
def test_a_place_is_one_track_whatever_the_seed() -> None:
    world = TempleWorld(place=6)
    try:
        infos = []
        for seed in (0, 1):
            world.reset(seed)
            infos.append((world.map, world.episode_info))
        assert infos[0] == infos[1]
        assert infos[0][1]["place"] == 6
        speeds = {world._now().speed}
        world.reset(3)
        assert world._now().speed not in speeds
        with pytest.raises(WorldError, match="0 or more"):
            TempleWorld(place=-1)
    finally:
        world.close()
