"""A game and the dream of it: where each begins when they are swapped, what both play, and how a dream is judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.helpers.fake_source import RESOLUTION, FakeSource
from tests.helpers.server_client import OPEN, Client
from tests.helpers.swap_worlds import DREAM_TINT, GAME_TINT, WALL_YAW, PlaceableGame, SwapToys, ToyGame, draw

from reverie.engine.sessions.session_file import SessionFile
from reverie.evaluate.collapse import KINDS, MIN_SECONDS
from reverie.serve.app import create_app
from reverie.serve.drift import DriftMeter
from reverie.serve.protocol import FrameMessage
from reverie.serve.swap import SwapWorld
from reverie.types import Action

HEIGHT, WIDTH = RESOLUTION
RIGHT = Action(mouse=(0.0, 2.0))


@pytest.fixture
def toys() -> SwapToys:
    return SwapToys()


def opened(toys: SwapToys) -> SwapWorld:
    world = toys.open(None, 7)
    world.reset(7)
    return world


def test_the_dream_begins_in_the_frame_on_the_screen(toys: SwapToys) -> None:
    world = opened(toys)
    frames = [world.step(RIGHT) for _ in range(3)]
    assert frames[-1].shape == (4, HEIGHT, WIDTH, 3), "the game is played in the dream's blocks"
    first, notices = world.show("dream", back=3)
    began = toys.dreams[0].began
    np.testing.assert_array_equal(began.frame, frames[-1][0])
    assert began.pose is not None
    assert began.pose[3] == 2.0 * 9
    assert notices == []
    np.testing.assert_array_equal(first[0], draw(18.0, DREAM_TINT))
    np.testing.assert_array_equal(world.step(RIGHT)[0], draw(20.0, DREAM_TINT))
    assert len(toys.games[0].actions) == 12, "the game stands still meanwhile"
    world.close()


def test_the_game_stands_where_the_dream_was(toys: SwapToys) -> None:
    world = opened(toys)
    world.show("dream", 0)
    for _ in range(3):
        world.step(RIGHT)
    first, notices = world.show("game", 1)  # a frame before the latest, between two poses that are known
    np.testing.assert_array_equal(first[0], draw(22.0, GAME_TINT))
    assert notices == []
    assert toys.dreams[0].is_closed
    np.testing.assert_array_equal(world.step(RIGHT)[-1], draw(30.0, GAME_TINT))
    world.close()


@pytest.mark.parametrize(
    ("game", "line"),
    [(ToyGame, "wall cannot be asked to stand somewhere"), (PlaceableGame, "nobody can stand behind the wall")],
)
def test_a_game_that_cannot_be_placed_goes_on_where_it_was_left(game: type[ToyGame], line: str) -> None:
    toys = SwapToys(game)
    world = opened(toys)
    world.step(RIGHT)
    world.show("dream", 0)
    for _ in range(int(WALL_YAW) // 8 + 1):
        world.step(RIGHT)
    first, notices = world.show("game", 0)
    np.testing.assert_array_equal(first[0], draw(8.0, GAME_TINT))
    assert len(notices) == 1
    assert line in notices[0]
    assert "it was left" in notices[0]
    world.close()


def test_both_obey_the_same_actions_side_by_side(toys: SwapToys) -> None:
    world = opened(toys)
    world.step(RIGHT)
    first, _ = world.show("both", 3)
    np.testing.assert_array_equal(first[0], np.concatenate([draw(8.0, GAME_TINT), draw(8.0, DREAM_TINT)], 1))
    block = world.step(RIGHT)
    assert block.shape == (4, HEIGHT, 2 * WIDTH, 3)
    np.testing.assert_array_equal(block[2], np.concatenate([draw(14.0, GAME_TINT), draw(14.0, DREAM_TINT)], 1))
    world.show("dream", 0)
    assert len(toys.dreams) == 1, "the dream goes on"
    world.step(RIGHT)
    first, notices = world.show("both", 0)
    assert notices == []
    np.testing.assert_array_equal(first[0], np.concatenate([draw(24.0, GAME_TINT), draw(24.0, DREAM_TINT)], 1))
    world.close()


def test_both_begin_together_where_the_game_cannot_follow(toys: SwapToys) -> None:
    toys = SwapToys(ToyGame)
    world = opened(toys)
    world.show("dream", 0)
    world.step(RIGHT)
    first, notices = world.show("both", 0)
    assert len(notices) == 1
    np.testing.assert_array_equal(first[0], np.concatenate([draw(0.0, GAME_TINT), draw(0.0, DREAM_TINT)], 1))
    world.close()


def test_a_restart_shows_the_game(toys: SwapToys) -> None:
    world = opened(toys)
    world.show("both", 0)
    assert world.reset(3).shape == (1, HEIGHT, WIDTH, 3)
    assert world.view == "game"
    assert toys.dreams[0].is_closed
    world.close()
    assert toys.games[0].is_closed


# ------------------------------------------------------------------------------------------------------ saving


def saved(world: SwapWorld) -> SessionFile:
    """The file of a world, through its bytes."""
    return SessionFile.from_bytes(world.describe("a walk").to_bytes())


def loaded(toys: SwapToys, file: SessionFile) -> tuple[SwapWorld, list[str]]:
    dream, blocks, _ = toys.open_file(file)
    for block in blocks:
        dream.step(block)
    return toys.open_beside(file, dream)


def test_one_goes_back_in_the_dream_and_the_game_follows(toys: SwapToys) -> None:
    world = opened(toys)
    assert (world.frame, world.earliest, world.last) == (1, 1, 1)
    world.show("dream", 0)
    for _ in range(3):
        world.step(RIGHT)
    assert (world.frame, world.earliest, world.last) == (13, 1, 13)
    np.testing.assert_array_equal(world.seek(5)[0], draw(8.0, DREAM_TINT))
    assert (world.frame, world.last) == (5, 13)
    first, _ = world.show("both", 0)
    np.testing.assert_array_equal(first[0], np.concatenate([draw(8.0, GAME_TINT), draw(8.0, DREAM_TINT)], 1))
    assert (world.frame, world.earliest, world.last) == (5, 5, 5)
    world.step(RIGHT)
    shown = world.seek(1)
    np.testing.assert_array_equal(shown[0], np.concatenate([draw(16.0, GAME_TINT), draw(16.0, DREAM_TINT)], 1))
    assert world.frame == 9, "the game has no past"
    world.close()


@pytest.mark.parametrize("view", ["game", "dream", "both"])
def test_a_saved_session_shows_what_was_shown(toys: SwapToys, view: str) -> None:
    world = opened(toys)
    world.step(RIGHT)
    if view != "game":
        world.show(view, 0)
        world.step(RIGHT)
    file = saved(world)
    assert file.game is not None
    assert (file.game.name, file.game.view, file.game.seed) == ("wall", view, 7)
    assert file.num_frames == (1 if view == "game" else 5)
    shown = world.shown
    world.close()
    again, notices = loaded(toys, file)
    assert (notices, again.view) == ([], view)
    np.testing.assert_array_equal(again.shown, shown)
    assert again.step(RIGHT).shape == (4, HEIGHT, WIDTH * (1 + (view == "both")), 3)
    again.close()
    assert all(game.is_closed for game in toys.games)
    assert all(dream.is_closed for dream in toys.dreams)


def test_a_game_that_cannot_be_asked_leaves_the_dream() -> None:
    toys = SwapToys(ToyGame)
    world = opened(toys)
    world.step(RIGHT)
    file = saved(world)
    world.close()
    again, notices = loaded(toys, file)
    assert notices == ["wall cannot be asked to stand somewhere; the dream goes on"]
    assert again.view == "dream"
    np.testing.assert_array_equal(again.shown[0], draw(8.0, DREAM_TINT))
    again.close()


def test_another_game_is_named(toys: SwapToys) -> None:
    world = opened(toys)
    file = saved(world)
    world.close()
    assert file.game is not None
    other = replace(file, game=replace(file.game, name="door", options="place=2"))
    again, notices = loaded(toys, other)
    assert notices == ["saved beside door place=2, and wall is played here; the dream goes on"]
    again.close()
    alone, notices = loaded(toys, replace(file, game=None))
    assert (notices, alone.view) == ([], "dream")
    alone.close()


# ------------------------------------------------------------------------------------------------------ drift


def noise(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Frames with detail at every scale, all different."""
    coarse = rng.integers(40, 216, (num_frames, 4, 7, 3)).repeat(16, 1).repeat(16, 2)
    return (coarse + rng.integers(-30, 30, (num_frames, 64, 112, 3))).clip(0, 255).astype(np.uint8)


def moving(second: int) -> np.ndarray:
    return np.array([float(second), 0, 0, 0, 0, 0], np.float32)


def test_drift_is_judged_by_the_game_once_it_has_been_played_for_long_enough() -> None:
    rng, meter = np.random.default_rng(0), DriftMeter()
    start = noise(rng, 1)[0]
    meter.begin_game(start, moving(0))
    meter.begin_dream(start, start, moving(0))

    def dream(second: int, frames: np.ndarray, real: np.ndarray | None = None) -> None:
        for at in range(0, 25, 5):
            meter.add_dream(frames[at : at + 5], moving(second), None if real is None else real[at : at + 5])
        meter.settle()

    real = noise(rng, 25)
    dream(1, real, real)
    figures = meter.latest
    assert figures.psnr_db == 60.0
    assert figures.seconds == 1
    assert figures.shares["look"] is None, "nothing is known of the game's looks"
    assert figures.shares["fold"] is not None
    assert figures.collapsed is None
    for second in range(1, MIN_SECONDS + 1):
        for part in np.split(noise(rng, 25), 5):
            meter.add_game(part, moving(second))
    for part in np.split(noise(rng, 25), 5):
        meter.add_game(part, moving(MIN_SECONDS))  # a second in which nothing moves tells nothing
    meter.settle()
    assert meter.latest.real_s == MIN_SECONDS
    dream(2, noise(rng, 25))
    share = meter.latest.shares["look"]
    assert share is not None
    assert share < 1
    assert meter.latest.psnr_db is None
    grey = np.full((25, 64, 112, 3), 128, np.uint8)
    for second in range(3, 8):
        dream(second, grey)
    figures = meter.latest
    assert set(figures.shares) == set(KINDS)
    assert (figures.shares["look"] or 0) > 1
    assert figures.collapsed == "look"
    assert figures.collapsed_s == 2
    meter.begin_dream(start, start, moving(8))
    meter.settle()
    assert meter.latest.collapsed is None, "another dream has its own figures"
    meter.close()


# ------------------------------------------------------------------------------------------------ over the wire


def frame_after(client: Client, message: str) -> tuple[dict, FrameMessage]:
    told = client.expect(message)
    frame = client.frame()
    while frame.epoch != told["epoch"]:
        frame = client.frame()
    return told, frame


def test_views_over_the_wire(toys: SwapToys) -> None:
    with TestClient(create_app(toys, access=OPEN)) as http, http.websocket_connect("/ws") as socket:
        client = Client(socket)
        welcome = client.hello()
        assert welcome["views"] == ["game", "dream", "both"]
        assert welcome["kind"] == "game"
        first = client.play()
        assert first.width == WIDTH
        client.say("view", view="both", epoch=first.epoch, index=0)
        told, frame = frame_after(client, "view")
        assert (told["epoch"], told["view"]) == (first.epoch + 1, "both")
        assert (frame.width, frame.height) == (2 * WIDTH, HEIGHT)
        assert len(frame.payload) == 2 * WIDTH * HEIGHT * 3
        drift = client.expect("drift")
        assert drift["psnr_db"] > 0
        assert set(drift["shares"]) == set(KINDS)
        client.say("view", view="game")
        _, frame = frame_after(client, "view")
        assert frame.width == WIDTH


def test_a_world_without_a_game_has_no_views() -> None:
    with TestClient(create_app(FakeSource(), access=OPEN)) as http, http.websocket_connect("/ws") as socket:
        client = Client(socket)
        assert client.hello()["views"] == []
        client.play()
        client.say("view", view="game")
        error = client.expect("error")
        assert (error["code"], error["fatal"]) == ("unavailable", False)
        assert "no game beside it" in error["message"]
