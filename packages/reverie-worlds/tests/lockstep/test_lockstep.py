"""The shim with a game of the tests' own: pairing, clock, picture, and what happens when the game goes wrong."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from game_processes import SIZE, Start

from reverie.errors import WorldError
from reverie_worlds.lockstep import LockstepGame

UPPER, MIDDLE, LOWER = (8, 8), (32, 8), (60, 8)


def colour(frame: np.ndarray, spot: tuple[int, int]) -> tuple[int, ...]:
    return tuple(int(c) for c in frame[spot])


def milliseconds(frame: np.ndarray) -> int:
    high, low, _ = colour(frame, MIDDLE)
    return 256 * high + low


def test_frames_are_upright_rgb_of_the_size_asked_for(start: Start) -> None:
    game = start()
    frame = game.step(["w", "Up"])
    assert frame.shape == (SIZE[1], SIZE[0], 3)
    assert frame.dtype == np.uint8
    assert colour(frame, UPPER) == (255, 0, 0)
    assert colour(frame, LOWER)[1] == 255
    assert colour(frame, (32, 90))[2] == 255
    assert colour(frame, MIDDLE)[2] == 0
    assert game.window == SIZE


@pytest.mark.parametrize("scale", [2, 3])
def test_a_larger_picture_is_averaged_down(start: Start, scale: int) -> None:
    game = start(scale=scale)
    frame = game.step(["w"])
    assert frame.shape == (SIZE[1], SIZE[0], 3)
    assert game.window == (SIZE[0] * scale, SIZE[1] * scale)
    assert colour(frame, UPPER) == (255, 0, 0)
    third = SIZE[1] * scale // 3
    edge = third // scale  # the row of the picture in which the upper band ends
    share = (third - edge * scale) / scale
    assert colour(frame, (edge, 8))[0] == pytest.approx(255 * share, abs=2)


@pytest.mark.parametrize("scale", [1, 2])
def test_depth_is_read_of_the_frame_that_is_held(start: Start, scale: int) -> None:
    """Upright, of the size that the game draws, as often as asked for; and the game does not notice."""
    game = start(scale=scale)
    for keys, less in (((), 0.0), (["w"], 0.001), ((), 0.0)):
        frame = game.step(keys)
        time_ns, number = game.time_ns, game.number
        for _ in range(2):
            depth = game.read_depth()
            assert depth.shape == (SIZE[1] * scale, SIZE[0] * scale)
            assert depth.dtype == np.float32
            bands = [depth[row * scale, 8 * scale] for row in (UPPER[0], MIDDLE[0], LOWER[0])]
            np.testing.assert_allclose(bands, np.array([0.25, 0.5, 0.75]) - less, atol=1e-5)
        assert (game.time_ns, game.number) == (time_ns, number)
        np.testing.assert_array_equal(game.frame, frame)
        after = game.step(keys)
        assert milliseconds(after) - milliseconds(frame) == 40
        assert colour(after, UPPER) == colour(frame, UPPER)


def test_depth_of_what_was_not_drawn_is_refused(start: Start) -> None:
    game = start()
    game.step(blind=True)
    with pytest.raises(WorldError, match="did not draw this frame, so it has no depth; step once without blind"):
        game.read_depth()
    game.step()
    assert game.read_depth()[8, 8] == pytest.approx(0.25, abs=1e-5)
    game.close()
    with pytest.raises(WorldError, match="is closed"):
        game.read_depth()


def test_a_game_that_died_is_told_when_its_depth_is_asked_for(start: Start) -> None:
    game = start()
    game.step()
    os.kill(game.pid, signal.SIGKILL)
    with pytest.raises(WorldError, match="was ended by SIGKILL"):
        game.read_depth()


def test_what_is_pressed_shows_in_the_frame_that_step_returns(start: Start) -> None:
    game = start()
    held = [(), ("w",), ("w",), (), ("w", "Up"), ("Up",), ()]
    for keys in held:
        frame = game.step(keys)
        assert colour(frame, UPPER)[0] == 255 * ("w" in keys)
        assert colour(frame, LOWER)[1] == 255 * ("Up" in keys)
    assert colour(game.step(buttons=[1]), UPPER)[1] == 255
    assert colour(game.step(), UPPER)[1] == 0


def test_the_pointer_moves_exactly_and_in_the_same_frame(start: Start) -> None:
    game = start()
    game.step(move_to=(20, 20))
    before = colour(game.step(mouse_px=(1, 0)), UPPER)[2]
    for dx in (3, -2, 17, 0, 1):
        after = colour(game.step(mouse_px=(dx, 0)), UPPER)[2]
        assert (after - before) % 256 == dx % 256
        before = after


def test_no_movement_is_lost_to_a_game_that_puts_the_pointer_back(start: Start) -> None:
    game = start("warp", -1)
    rng = np.random.default_rng(0)
    way = colour(game.step(), UPPER)[2]
    for dx in rng.integers(-45, 45, 300):
        way += int(dx)
        assert colour(game.step(mouse_px=(int(dx), 0)), UPPER)[2] == way % 256


def test_the_clock_goes_on_by_a_step_a_frame_and_stands_between(start: Start) -> None:
    game = start()
    game.step()
    first = milliseconds(game.step())
    seen = [milliseconds(game.step()) - first for _ in range(20)]
    assert seen == [40 * (i + 1) for i in range(20)]
    assert milliseconds(game.step(dt_ns=1_000_000_000)) - first == 800 + 1000
    begun = game.time_ns
    game.step()
    assert game.time_ns - begun == pytest.approx(40_000_000, abs=100_000)


def test_blind_frames_pass_without_a_picture(start: Start) -> None:
    game = start()
    game.step()
    before = game.step()
    for _ in range(5):
        np.testing.assert_array_equal(game.step(["w"], blind=True), before)
    after = game.step(["w"])
    assert colour(after, UPPER) == (255, 0, 0)
    assert milliseconds(after) - milliseconds(before) == 240


def test_other_threads_sleep_in_the_games_time(start: Start) -> None:
    """A thread that sleeps 20 ms at a time comes at most twice a frame, however long the controller takes."""
    game = start()
    for _ in range(3):
        game.step()
    first = colour(game.step(), LOWER)[0]
    for _ in range(50):
        game.step(dt_ns=1_000_000)
    assert colour(game.frame, LOWER)[0] - first <= 4
    for _ in range(100):
        game.step()
    assert 10 < colour(game.frame, LOWER)[0] - first <= 205


def test_the_camera_of_fixed_function_games(start: Start) -> None:
    game = start()
    for _ in range(3):
        game.step()
        assert game.modelview is not None
        assert game.projection is not None
        np.testing.assert_allclose(game.modelview[:3, 3], [1, 2, -game.number])
        assert game.projection[3].tolist() == [0, 0, -1, 0]
    without = start(matrices=False)
    without.step()
    assert without.modelview is None


def test_a_smaller_window_is_surrounded_by_black(toy: str) -> None:
    with LockstepGame([toy, "48", "32"], SIZE, screen=(96, 64)) as game:
        frame = game.step(["w"])
        assert game.window == (48, 32)
        assert colour(frame, (4, 4)) == (255, 0, 0)
        assert not frame[32:].any()
        assert not frame[:, 48:].any()


def test_frames_are_the_callers_to_keep(start: Start) -> None:
    game = start()
    first = game.step(["w"])
    kept = first.copy()
    game.step()
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("mode", "says"), [("exit", "ended with status 7"), ("crash", "ended by SIGABRT"), ("hang", "no frame for 1 s")]
)
def test_a_game_that_goes_wrong_is_an_error_with_the_end_of_its_log(start: Start, mode: str, says: str) -> None:
    game = start(mode, 5, step_timeout_s=1.0)
    for _ in range(4):
        game.step()
    with pytest.raises(WorldError, match=f"{says}.*about to {mode}") as caught:
        game.step()
    assert "\n" not in str(caught.value)
    assert not game.home.exists()
    with pytest.raises(WorldError, match="closed"):
        game.step()


def test_a_game_that_ends_before_its_first_frame(toy: str) -> None:
    with pytest.raises(WorldError, match="ended with status 3; it wrote nothing"):
        LockstepGame(["sh", "-c", "exit 3"], SIZE)
    with pytest.raises(WorldError, match=r"status 3; first \| last$"):
        LockstepGame(["sh", "-c", "echo first; echo NOW 1; echo last; echo NOW 2; exit 3"], SIZE, log_chatter="NOW ")
    with pytest.raises(WorldError, match=r"sh hangs: no frame for 0\.5 s; waiting"):
        LockstepGame(["sh", "-c", "echo waiting; sleep 100"], SIZE, start_timeout_s=0.5)


def test_a_wrapper_script_may_start_the_game(toy: str) -> None:
    with LockstepGame(["sh", "-c", f"{toy} 96 64; exit 0"], SIZE) as game:
        assert colour(game.step(["w"]), UPPER) == (255, 0, 0)
        pid = game.pid
    assert not Path(f"/proc/{pid}").exists()


def test_wrong_requests_say_what_is_wrong(start: Start) -> None:
    with pytest.raises(WorldError, match="the game no-such-game is not installed"):
        LockstepGame(["no-such-game"])
    with pytest.raises(WorldError, match="positive size"):
        LockstepGame(["sh"], (0, 5))
    game = start()
    with pytest.raises(WorldError, match="unknown X11 key name 'jumpp'"):
        game.step(["jumpp"])
    with pytest.raises(WorldError, match="at most 32 keys"):
        game.step(buttons=range(1, 40))
    assert colour(game.step(["w"]), UPPER) == (255, 0, 0)
