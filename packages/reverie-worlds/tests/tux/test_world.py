import numpy as np
import pytest

from reverie.errors import ActionError, WorldError
from reverie.types import Action, World
from reverie.worlds import WORLDS, missing, open_world

if lacks := missing(WORLDS["tux-racer"]):
    pytest.skip(f"tux-racer needs {', '.join(lacks)}", allow_module_level=True)

import warp

from reverie_worlds.tux import courses as tux_courses
from reverie_worlds.tux import world as tux_racer
from reverie_worlds.tux.courses import read_courses
from reverie_worlds.tux.world import HELDOUT_MAPS, TuxRacerWorld, choose_maps

MAP = "default/bunny_hill"
IDLE = Action()


def run(game: TuxRacerWorld, seed: int, actions: list[Action]) -> np.ndarray:
    return np.concatenate([game.reset(seed), *(game.step(action) for action in actions)])


def holding(*keys: str) -> Action:
    return Action(frozenset(keys))


def first_difference(one: np.ndarray, other: np.ndarray) -> int:
    differs = (one != other).reshape(len(one), -1).any(axis=1)
    return int(np.argmax(differs)) if differs.any() else -1


@pytest.fixture(scope="module")
def world():
    game = TuxRacerWorld((MAP,))
    yield game
    game.close()


@pytest.fixture(scope="module")
def plain(world: TuxRacerWorld) -> np.ndarray:
    return run(world, 1, [IDLE] * 12)


def test_it_is_a_world_that_shows_a_ride(world: TuxRacerWorld, plain: np.ndarray) -> None:
    assert isinstance(world, World)
    assert plain.shape == (13, 128, 224, 3)
    assert plain.dtype == np.uint8
    assert all(frame.std() > 15 for frame in plain)
    assert world.map == MAP
    assert set(world.episode_info) == {"light", "snow", "wind", "mirrored"}
    assert not world.finished


def test_reset_is_decided_by_the_seed_bit_for_bit(world: TuxRacerWorld, plain: np.ndarray) -> None:
    np.testing.assert_array_equal(run(world, 1, [IDLE] * 12), plain)
    assert first_difference(run(world, 2, [IDLE] * 12), plain) == 0


def test_depth_and_poses_warp_a_frame_onto_a_later_one(world: TuxRacerWorld) -> None:
    clip = warp.play(world, 1, lambda i: holding("forward", "right" if i // 6 % 2 else "left"), 48)
    warp.check(world, clip, gain_db=2.0)
    assert clip.depth is not None
    assert 0.002 < clip.depth.body.mean() < 0.05, "the penguin"
    assert np.isinf(clip.depth.depth[:, 0]).mean() > 0.5, "the sky"


def test_the_body_is_the_penguin_with_its_feet_and_without_the_snow(world: TuxRacerWorld) -> None:
    feet, snow = [], []
    frame = world.reset(1)
    for i in range(80):
        frame = world.step(holding("forward", *(["left"] if i % 20 < 6 else [])))
        if i % 8:
            continue
        body, small = world.geometry().body, frame[0].reshape(64, 2, 112, 2, 3).mean((1, 3))
        yellow = (small[..., 0] > 170) & (small[..., 1] > 140) & (small[..., 2] < 110)
        middle = np.zeros_like(yellow)
        middle[36:60, 44:68] = True
        feet.append((yellow & middle & body).sum() / max(1, (yellow & middle).sum()))
        snow.append(body.sum())
    assert np.mean(feet) > 0.85
    assert 40 < np.median(snow) < 140


def test_geometry_leaves_the_frames_that_follow_as_they_are(world: TuxRacerWorld, plain: np.ndarray) -> None:
    world.reset(1)
    for frame in plain[1:]:
        world.geometry()
        np.testing.assert_array_equal(world.step(IDLE)[0], frame)


@pytest.mark.parametrize("key", ["forward", "left", "right"])
def test_a_key_shows_first_in_the_next_frame(world: TuxRacerWorld, plain: np.ndarray, key: str) -> None:
    actions = [IDLE] * 12
    actions[5] = holding(key)
    assert first_difference(run(world, 1, actions), plain) == 6


def test_brakes_show_first_in_the_next_frame(world: TuxRacerWorld, plain: np.ndarray) -> None:
    actions = [IDLE] * 9 + [holding("back")] * 3
    assert first_difference(run(world, 1, actions), plain) == 10


def test_a_jump_shows_in_the_frame_after_the_key_is_let_go(world: TuxRacerWorld, plain: np.ndarray) -> None:
    actions = [IDLE] * 3 + [holding("jump")] * 5 + [IDLE] * 4
    shown = first_difference(run(world, 1, actions), plain)
    assert shown == 9


def test_a_trick_shows_in_the_next_frame_in_the_air(world: TuxRacerWorld) -> None:
    leap = [holding("jump")] * 25 + [IDLE] * 8
    flown = run(world, 1, [*leap, holding("right"), IDLE])
    assert world.hints["above"] > 0.4
    rolled = run(world, 1, [*leap, holding("right", "trick"), IDLE])
    assert first_difference(flown, rolled) == len(leap) + 1


def test_pose_and_hints_follow_the_ride(world: TuxRacerWorld) -> None:
    world.reset(1)
    poses, hints = [world.pose], [world.hints]
    for _ in range(30):
        world.step(holding("right"))
        poses.append(world.pose)
        hints.append(world.hints)
    track = np.stack(poses)
    assert track.dtype == np.float32
    assert (np.diff(track[:, 0]) > 0).all()  # down the course
    assert track[-1, 2] < track[0, 2]
    assert track[-1, 3] > 90 + 10  # the view turns right with the penguin
    assert track[-1, 1] < track[0, 1]  # y is to the left
    assert hints[-1]["heading"] > 10
    moved = np.linalg.norm(np.diff(track[:, :3], axis=0), axis=1)
    assert 2 < np.median(moved) * 25 < 20
    assert 2 < hints[-1]["speed"] < 20
    assert abs(hints[-1]["above"]) < 1
    assert hints[0]["snow"].shape == (len(tux_racer.SENSE_AHEAD), len(tux_racer.SENSE_ASIDE))
    assert hints[0]["way"].shape == hints[0]["snow"].shape
    assert hints[0]["way"][-1].min() < hints[0]["way"][0].min()
    assert hints[0]["trees"].shape[1] == 3
    assert hints[0]["fish"].shape[1] == 2


def test_the_course_ends_before_the_game_takes_the_controls(
    world: TuxRacerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.reset(1)
    monkeypatch.setattr(tux_racer, "FINISH_MARGIN", world.hints["left_to_go"] - 1.0)
    frames = [first]
    while not world.finished and len(frames) < 20:
        frames.append(world.step(IDLE))
    assert world.finished
    np.testing.assert_array_equal(frames[-1], first)
    world.step(IDLE)
    world.close()


def test_a_ride_that_begins_elsewhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    game = TuxRacerWorld((MAP,))
    monkeypatch.setattr(tux_racer, "START_TOLERANCE", 1e-3)
    with pytest.raises(WorldError, match="from the start of default/bunny_hill; is it another version"):
        game.reset(0)
    game.close()


def test_a_menu_is_an_error_not_a_recording(world: TuxRacerWorld) -> None:
    world.reset(1)
    assert world._game is not None
    for _ in range(2):  # to the end of the race, then out of it
        world._game.step(["Escape"])
        world._game.step()
    with pytest.raises(WorldError, match="shows no ride on default/bunny_hill but a menu; reset to start again"):
        world.step(IDLE)
    assert world.reset(1).std() > 15


def test_a_game_that_died_is_one_clear_line_and_starts_again_at_reset(world: TuxRacerWorld) -> None:
    world.reset(1)
    assert world._game is not None
    world._game.close()
    with pytest.raises(WorldError, match="closed; start it again"):
        world.step(IDLE)
    assert world.reset(1).shape == (1, 128, 224, 3)


def test_courses_are_read_as_the_game_reads_them() -> None:
    courses = read_courses()
    assert len(courses) == 44
    hill = courses[MAP]
    assert (hill.length, hill.width, hill.play_length, hill.start) == (520.0, 90.0, 470.0, (45.0, 3.5))
    assert hill.heights.shape == (260, 90)
    assert len(hill.obstacles) > 700
    assert len(hill.herrings) == 23
    assert hill.height(45.0, 400.0) < hill.height(45.0, 100.0)
    drawn = courses["extras/wild_ride"]
    assert len(drawn.obstacles) > 1000  # from its picture of trees


def test_the_way_of_a_course_leads_around_what_stands_in_it() -> None:
    hill = read_courses()[MAP]
    way = hill.way
    assert way.shape == (int(hill.play_length / tux_courses.WAY_ROW) + 1, 91)
    assert way[-1].max() == 0
    assert 0.9 * len(way) < way[0].min() < 2 * len(way)
    column, cost = int(np.argmin(way[0])), 0.0
    for row in range(len(way) - 1):
        reach = np.arange(max(column - 4, 0), min(column + 5, 91))
        cost += 4.0 * bool(
            (
                (np.abs(hill.obstacles[:, 1] - row * tux_courses.WAY_ROW) < 1)
                & (np.abs(hill.obstacles[:, 0] - column) < hill.obstacles[:, 2] / 2)
            ).any()
        )
        column = int(reach[np.argmin(way[row + 1, reach] + 0.1 * np.abs(reach - column))])
    assert cost <= 4.0  # 769 trees, and at most one of them is touched


def test_missing_data_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(tux_courses, "DATA", tmp_path)
    with pytest.raises(WorldError, match="sudo apt install extremetuxracer"):
        TuxRacerWorld()


def test_heldout_courses_are_never_played_for_training() -> None:
    known = tuple(read_courses())
    training, heldout = choose_maps(None, False, known), choose_maps(None, True, known)
    assert set(heldout) == set(HELDOUT_MAPS)
    assert not set(training) & set(heldout)
    assert len(training) + len(heldout) == 44
    with pytest.raises(WorldError, match="default/bumpy_ride is a held-out course; say heldout=True"):
        TuxRacerWorld(("default/bumpy_ride",))
    with pytest.raises(WorldError, match="default/bunny_hill is a training course; say heldout=False"):
        TuxRacerWorld((MAP,), heldout=True)


def test_bad_requests_are_one_clear_line(world: TuxRacerWorld) -> None:
    with pytest.raises(WorldError, match="unknown course 'bunny_hill'; courses are named like default/bunny_hill"):
        open_world("tux-racer", maps=("bunny_hill",))
    with pytest.raises(WorldError, match="at least one course"):
        open_world("tux-racer", maps=())
    with pytest.raises(ActionError, match="unknown key 'attack'"):
        world.step(holding("attack"))
    with pytest.raises(ActionError, match="no mouse"):
        world.step(Action(frozenset(), (0.0, 1.0)))
    unopened = TuxRacerWorld((MAP,))
    with pytest.raises(WorldError, match="step before reset"):
        unopened.step(IDLE)
    unopened.close()
    unopened.close()
