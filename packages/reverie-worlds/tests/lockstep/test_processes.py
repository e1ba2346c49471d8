"""Nothing is left of a game: no process, no X display, no folder, no descriptor, whichever way it ended."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from game_processes import SIZE, Start, descendants, is_alive, open_fds, wait_until_gone

from reverie.errors import WorldError
from reverie_worlds.lockstep import LockstepGame

PARENT = """
import os, sys, threading
from reverie_worlds.lockstep import LockstepGame

command, mode = sys.argv[1:-1], sys.argv[-1]
games = []
def start():
    games.append(LockstepGame(command, (96, 64)))
thread = threading.Thread(target=start)
thread.start()
thread.join()
for _ in range(3):
    games[0].step()
print(games[0].home, flush=True)
if mode == "hang":
    games[0].step()
if mode == "leave":
    sys.exit(0)
if mode == "raise":
    raise RuntimeError("as planned")
sys.stdin.read()
"""
"""A program with a game, started from a thread that has ended: that must not end the game."""


def running_displays() -> set[str]:
    return {path.name for path in Path("/tmp/.X11-unix").glob("X*")} | {p.name for p in Path("/tmp").glob(".X*-lock")}


def family(game: LockstepGame) -> list[int]:
    """The processes of a game of this process: two keepers, the display, the game."""
    found = descendants(os.getpid())
    assert game.pid in found
    assert "Xvfb" in found.values()
    assert list(found.values()).count("keeper") == 2
    return list(found)


@pytest.mark.parametrize("how", ["close", "collect", "with", "interrupt"])
def test_a_game_that_is_no_longer_wanted(start: Start, toy: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fds, displays = open_fds(), running_displays()
    game: LockstepGame | None = LockstepGame([toy, "96", "64"], SIZE)
    pids, home = family(game), game.home
    if how == "close":
        game.close()
        game.close()
    elif how == "collect":
        game = None
        gc.collect()
    elif how == "with":
        with contextlib.suppress(RuntimeError), game:
            raise RuntimeError("as planned")
    else:

        def interrupted() -> bytes:
            raise KeyboardInterrupt

        monkeypatch.setattr(game, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            game.step()
    assert [pid for pid in pids if is_alive(pid)] == []
    assert not home.exists()
    assert running_displays() <= displays
    game = None
    gc.collect()
    assert open_fds() <= fds


def parent(toy: str, mode: str) -> tuple[subprocess.Popen[str], Path, dict[int, str]]:
    game = [toy, "96", "64", "hang", "4"] if mode == "hang" else [toy, "96", "64"]
    program = subprocess.Popen(
        [sys.executable, "-c", PARENT, *game, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert program.stdout is not None
    home = Path(program.stdout.readline().strip())
    return program, home, descendants(program.pid)


@pytest.mark.parametrize("mode", ["wait", "hang"])
def test_a_killed_controller_takes_everything_with_it(toy: str, mode: str) -> None:
    displays = running_displays()
    program, home, found = parent(toy, mode)
    with program:
        assert sorted(found.values()) == ["Xvfb", "keeper", "keeper", "reverie-toy-gam"]
        assert home.is_dir()
        program.send_signal(signal.SIGKILL)
    assert wait_until_gone(list(found)) == []
    assert not home.exists()
    assert running_displays() <= displays


@pytest.mark.parametrize("mode", ["leave", "raise"])
def test_a_controller_that_ends_without_closing(toy: str, mode: str) -> None:
    program, home, found = parent(toy, mode)
    with program:
        program.wait(20)
    assert wait_until_gone(list(found)) == []
    assert not home.exists()


def test_a_killed_keeper_takes_its_process_with_it(start: Start) -> None:
    game = start()
    found = descendants(os.getpid())
    for pid, name in found.items():
        if name == "keeper":
            os.kill(pid, signal.SIGKILL)
    assert wait_until_gone([pid for pid, name in found.items() if name != "keeper"]) == []
    with pytest.raises(WorldError, match="SIGKILL"):
        game.step()


def test_what_a_game_started_ends_with_it(start: Start) -> None:
    game = start("fork", 2)
    for _ in range(5):
        game.step()
    sleepers = [pid for pid, name in descendants(os.getpid()).items() if name == "sleep"]
    assert len(sleepers) == 1
    game.close()
    assert not is_alive(sleepers[0])


def test_a_game_that_does_not_start_leaves_nothing(toy: str) -> None:
    fds, before = open_fds(), set(descendants(os.getpid()))
    with pytest.raises(WorldError):
        LockstepGame(["false"], SIZE)
    with pytest.raises(WorldError, match="sh cannot be started"):
        LockstepGame(["sh"], SIZE, cwd=Path("/no/such/folder"))
    gc.collect()
    assert set(descendants(os.getpid())) == before
    assert open_fds() <= fds


def test_displays_do_not_collide(start: Start) -> None:
    """The first free display is taken each time; a number in use, by whomever, is never an error."""
    games = [start() for _ in range(3)]
    for count, game in enumerate(games):
        frame = game.step(["w"] if count == 1 else [])
        assert frame[8, 8, 0] == 255 * (count == 1)
