import math

import numpy as np
import pytest

from reverie.errors import ActionError, WorldError
from reverie.types import Action, PlaceableWorld, World
from reverie.worlds import WORLDS, missing

if missing(WORLDS["city"]):
    pytest.skip(f"city needs {', '.join(missing(WORLDS['city']))}", allow_module_level=True)

import warp

from reverie_worlds.city.chunks import build_chunk
from reverie_worlds.city.plan import Plan
from reverie_worlds.city.traffic import road_piece, signal, turn_piece
from reverie_worlds.city.vehicle import Vehicle
from reverie_worlds.city.world import STYLES, CityWorld, check_maps, is_heldout


def held(*keys: str) -> Action:
    return Action(frozenset(keys))


@pytest.fixture(scope="module")
def car():
    world = CityWorld(("oldtown/0001",), view="car")
    yield world
    world.close()


@pytest.fixture(scope="module")
def walk():
    world = CityWorld(("oldtown/0001",), view="walk")
    yield world
    world.close()


def run(world: CityWorld, seed: int, actions: list[Action]) -> np.ndarray:
    return np.concatenate([world.reset(seed), *(world.step(action) for action in actions)])


def test_it_is_a_world_with_a_picture_worth_seeing(car: CityWorld) -> None:
    assert isinstance(car, World)
    picture = car.reset(0)
    assert picture.shape == (1, 128, 224, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 20
    assert car.map == "oldtown/0001"
    assert car.episode_info["view"] == "car"
    assert len(np.unique(picture.reshape(-1, 3) // 16, axis=0)) > 60, "many colours"


@pytest.mark.parametrize("view", ["car", "walk"])
def test_depth_and_poses_warp_a_frame_onto_a_later_one(view: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(view)
    clip = warp.play(world, 1, warp.look_about("forward"), 48)
    warp.check(world, clip, gain_db=4.0, timing=True)
    assert clip.depth is not None
    body = clip.depth.body.mean()
    assert 0.01 < body < 0.3 if view == "car" else body == 0
    assert np.isinf(clip.depth.depth).any(), "the sky"


@pytest.mark.parametrize("view", ["car", "walk"])
def test_the_city_can_be_looked_at_from_anywhere(view: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(view)
    warp.look_check(world, 1, gain_db=3.0)
    world.reset(1)
    here = world.pose
    places = world.standpoints(4.0, 12.0)
    assert 10 < len(places) <= 49
    assert places.dtype == np.float32
    assert np.abs(places[:, :2] - here[:2]).max() < 12.0 + 9.0, "around the player"
    assert (np.abs(places[:, 2] - 1.8) < 1.0).all()
    for place in places[::7]:
        _, geometry = world.look_from(np.array([*place, 45.0, 0.0, 0.0], np.float32))
        assert np.median(geometry.depth) > 0.5, "not inside of something"


@pytest.mark.parametrize("view", ["car", "walk"])
def test_the_player_can_be_asked_to_stand_somewhere(view: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(view)
    assert isinstance(world, PlaceableWorld)
    world.reset(1)
    for _ in range(12):
        world.step(held("forward"))
    there, seen = world.pose, world.step(Action())
    for _ in range(25):
        world.step(Action(frozenset({"forward"}), (0.0, 3.0)))
    frame = world.stand(there)
    assert frame.shape == seen.shape
    assert np.linalg.norm(world.pose[:2] - there[:2]) < 0.6
    np.testing.assert_allclose(world.pose[3:5], there[3:5], atol=1.5)
    rest = world.pose
    for _ in range(5):
        world.step(Action())
    np.testing.assert_allclose(world.pose[:2], rest[:2], atol=0.05)
    boxes = world._stage.obstacles((float(there[0]), float(there[1])))[0]
    widest = boxes[np.argmax(np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))]
    inside, before = there.copy(), world.pose
    inside[:2] = (widest[:2] + widest[2:]) / 2
    with pytest.raises(WorldError, match="nobody can stand at"):
        world.stand(inside)
    np.testing.assert_array_equal(world.pose, before)
    world.step(Action())


def test_geometry_leaves_the_frames_that_follow_as_they_are(car: CityWorld) -> None:
    actions = [held("forward")] * 3
    plain = run(car, 5, actions)
    car.reset(5)
    for i, action in enumerate(actions):
        geometry = car.geometry()
        np.testing.assert_array_equal(car.geometry().depth, geometry.depth)
        np.testing.assert_array_equal(car.step(action)[0], plain[i + 1])
    geometry = car.geometry()
    assert geometry.depth[~geometry.body].min() > 0.3
    assert (geometry.depth[geometry.body] > 3.0).all(), "what is behind the car, not the car"
    with pytest.raises(WorldError, match="call reset"):
        CityWorld(("oldtown/0001",)).geometry()


def test_the_same_seed_and_actions_give_the_same_frames_here_and_in_another_world(car: CityWorld) -> None:
    actions = [held("forward", "left")] * 8 + [Action(frozenset({"handbrake"}), (1.0, 3.0))] * 4
    first = run(car, 5, actions)
    spot = car.pose
    run(car, 6, actions)
    np.testing.assert_array_equal(run(car, 5, actions), first)
    np.testing.assert_array_equal(car.pose, spot)
    other = CityWorld(("oldtown/0001",), view="car")
    np.testing.assert_array_equal(run(other, 5, actions), first)
    other.close()


@pytest.mark.parametrize("when", [0, 4])
@pytest.mark.parametrize(
    ("view", "action"),
    [("car", held("forward")), ("car", held("back")), ("car", held("left")), ("car", held("right")),
     ("car", held("handbrake")), ("car", Action(frozenset(), (0.0, 4.0))), ("walk", held("forward")),
     ("walk", held("left")), ("walk", held("jump")), ("walk", Action(frozenset(), (4.0, 0.0)))],
)  # fmt: skip
def test_an_action_shows_first_in_the_next_frame(
    car: CityWorld, walk: CityWorld, view: str, action: Action, when: int
) -> None:
    world = car if view == "car" else walk
    idle = [Action()] * (when + 2)
    acted = [action if k == when else Action() for k in range(when + 2)]
    plain, other = run(world, 3, idle), run(world, 3, acted)
    differs = (plain != other).reshape(len(plain), -1).any(axis=1)
    assert int(np.argmax(differs)) == when + 1
    assert differs.any()


def test_signs_and_amount_of_turns(car: CityWorld, walk: CityWorld) -> None:
    walk.reset(1)
    before = walk.pose
    walk.step(Action(frozenset(), (2.0, 3.0)))
    assert (walk.pose[3] - before[3]) % 360 == pytest.approx(3.0, abs=0.01)
    assert walk.pose[4] - before[4] == pytest.approx(2.0, abs=0.01)
    car.reset(1)
    car._car.vx = 0.0
    before = car.pose
    car.step(Action(frozenset(), (2.0, 5.0)))
    assert (car.pose[3] - before[3]) % 360 == pytest.approx(5.0, abs=0.3)
    assert car.pose[4] - before[4] == pytest.approx(2.0, abs=0.3)


def test_the_car_goes_forward_turns_and_stops(car: CityWorld) -> None:
    flat = Vehicle()
    for _ in range(75):
        flat.drive(frozenset({"forward"}), 0.04, lambda x, y: 0.0)
    assert 12 < flat.vx < 25
    assert flat.y > 15
    assert abs(flat.x) < 0.01
    for _ in range(25):
        flat.drive(frozenset({"forward", "right"}), 0.04, lambda x, y: 0.0)
    assert math.radians(15) < flat.heading < math.radians(150)
    for _ in range(75):
        flat.drive(frozenset({"back"}), 0.04, lambda x, y: 0.0)
    assert flat.vx < 0, "it brakes, then reverses"


def test_the_handbrake_makes_it_slide() -> None:
    def slide(keys: frozenset[str]) -> float:
        car, most = Vehicle(vx=15.0), 0.0
        for _ in range(25):
            car.drive(keys, 0.04, lambda x, y: 0.0)
            most = max(most, abs(math.atan2(car.vy, max(car.vx, 0.1))))
        return most

    assert slide(frozenset({"right", "handbrake"})) > 2 * slide(frozenset({"right"}))


def test_nothing_drives_or_walks_through_houses(car: CityWorld, walk: CityWorld) -> None:
    for world, keys in ((car, ("forward", "right")), (walk, ("forward",))):
        for seed in (1, 2):
            world.reset(seed)
            for _ in range(110):
                world.step(held(*keys))
                x, y, _, _ = world._player_state()
                boxes = world._stage.obstacles((x, y))[0]
                inside = (boxes[:, 0] < x) & (x < boxes[:, 2]) & (boxes[:, 1] < y) & (y < boxes[:, 3])
                assert not inside.any()


def test_a_fast_car_is_stopped_by_a_wall(car: CityWorld) -> None:
    car.reset(1)
    x, y, _, _ = car._player_state()
    boxes = car._stage.obstacles((x, y))[0]
    box = boxes[np.argmin(np.hypot(boxes[:, 0] - x, boxes[:, 1] - y))]
    car._car.x, car._car.y, car._car.heading, car._car.vx = (box[0] + box[2]) / 2, box[1] - 6.0, 0.0, 35.0
    hit = 0.0
    for _ in range(12):
        car.step(held("forward"))
        hit = max(hit, car._car.jolt)
        assert car._car.y < box[1]
    assert hit > 5, "it was felt"


def test_kerbs_are_felt() -> None:
    car = Vehicle(vx=8.0)
    lifts = []
    for _ in range(30):
        car.drive(frozenset(), 0.04, lambda x, y: 0.14 if y > 4 else 0.0)
        lifts.append((car.lift, car.pitch))
    assert lifts[-1][0] == pytest.approx(0.14, abs=0.03)
    assert max(abs(pitch) for _, pitch in lifts) > 0.01


def test_streets_join_up() -> None:
    for style in STYLES.values():
        plan = Plan(style, 12)
        for i in range(-8, 8):
            for j in range(-8, 8):
                assert sum(plan.arm(i, j, d) for d in range(4)) >= 3
                block = plan.block_at(i, j)
                x = (plan.x(i) + plan.half_x(i) + plan.x(i + 1) - plan.half_x(i + 1)) / 2
                y = (plan.y(j) + plan.half_y(j) + plan.y(j + 1) - plan.half_y(j + 1)) / 2
                assert block.x0 < x < block.x1
                assert block.y0 < y < block.y1


def test_lanes_keep_right_and_turns_join_them() -> None:
    plan = Plan(STYLES["downtown"], 3)
    road = road_piece(plan, 0, 0, 0, 0)
    assert road.points[0][0] > plan.x(0), "going north, right is east"
    for way in range(4):
        if way != 2 and plan.arm(0, 1, way):
            turn = turn_piece(plan, road, way, 0)
            assert turn.points[0] == road.points[2]
            assert turn.points[2] == road_piece(plan, 0, 1, way, 0).points[0]


def test_crossing_roads_are_never_green_together() -> None:
    for time_s in np.arange(0, 40, 0.1):
        assert "red" in (signal(2, 3, 0, time_s), signal(2, 3, 1, time_s))


def test_chunks_are_the_same_every_time_and_lighter_from_afar() -> None:
    plan = Plan(STYLES["oldtown"], 7)
    a, b = build_chunk(plan, 1, 2), build_chunk(plan, 1, 2)
    assert a.boxes == b.boxes
    assert a.near.num_triangles == b.near.num_triangles
    assert 0 < a.far.num_triangles < a.near.num_triangles
    plain = build_chunk(plan, 1, 2, detailed=False)
    assert (plain.boxes, plain.far.num_triangles) == (a.boxes, a.far.num_triangles)


def test_traffic_keeps_moving_and_does_not_pile_up(car: CityWorld) -> None:
    car.reset(4)
    traffic = car._traffic
    gone = np.zeros(len(traffic.cars))
    close = 0
    for _ in range(300):
        before = [(c.x, c.y) for c in traffic.cars]
        traffic.step(0.04, (*before[0], 0.0), np.zeros((0, 2)), 0.0)
        gone += [math.dist(p, (c.x, c.y)) for p, c in zip(before, traffic.cars, strict=True)]
        where = np.array([(c.x, c.y) for c in traffic.cars])
        apart = np.hypot(*(where[:, None] - where[None]).transpose(2, 0, 1)) + 99 * np.eye(len(where))
        close += int((apart.min(1) < 1.5).sum())
    assert np.median(gone) > 20
    assert close / (300 * len(gone)) < 0.03


def test_the_handbrake_holds_the_car(car: CityWorld) -> None:
    car.reset(2)
    for _ in range(40):
        car.step(held("handbrake"))
    assert car._car.speed < 0.01


def test_maps_and_their_splits() -> None:
    assert check_maps(None, False) == tuple(STYLES)
    assert sum(is_heldout(city) for city in range(1000)) == 100
    for names, heldout, text in (
        (("paris",), False, "unknown city 'paris'"),
        (("oldtown/1000",), False, "unknown city"),
        (("oldtown/x",), False, "unknown city"),
        ((), False, "at least one map"),
        (("oldtown/0007",), False, "is a held-out city; say heldout=True"),
        (("oldtown/0008",), True, "is a training city; say heldout=False"),
    ):
        with pytest.raises(WorldError, match=text):
            check_maps(names, heldout)


def test_the_seed_chooses_cities_of_the_split_only() -> None:
    for heldout in (False, True):
        world = CityWorld.__new__(CityWorld)
        world.maps, world.heldout = tuple(STYLES), heldout
        chosen = {world._choose_map(np.random.default_rng(seed)) for seed in range(200)}
        assert {is_heldout(int(name.split("/")[1])) for name in chosen} == {heldout}
        assert {name.split("/")[0] for name in chosen} == set(STYLES)


def test_bad_requests_are_one_clear_line(car: CityWorld) -> None:
    with pytest.raises(WorldError, match="view is car or walk, got 'plane'"):
        CityWorld(view="plane")
    car.reset(0)
    with pytest.raises(ActionError, match="unknown key 'attack'"):
        car.step(held("attack"))
    unopened = CityWorld(("suburb",))
    with pytest.raises(WorldError, match="step before reset"):
        unopened.step(Action())
    unopened.close()
    unopened.close()


def test_a_place_is_one_crossing_under_one_sky_whatever_the_seed() -> None:
    world = CityWorld(maps=("downtown",), view="walk", place=2)
    try:
        seen, starts = [], []
        for seed in range(6):
            world.reset(seed)
            seen.append((world.map, world.episode_info))
            starts.append(world.pose[:2])
        assert all(one == seen[0] for one in seen)
        assert seen[0][1]["place"] == 2
        apart = np.linalg.norm(np.array(starts) - starts[0], axis=1)
        assert 5.0 < apart.max() < 300.0
    finally:
        world.close()
