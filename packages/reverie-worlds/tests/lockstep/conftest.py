import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from game_processes import SIZE, Start

from reverie.worlds import guardian
from reverie_worlds.lockstep import LockstepGame

SOURCE = Path(__file__).parent / "toy_game.c"


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy game, compiled."""
    if shutil.which("gcc") is None or shutil.which("Xvfb") is None:
        pytest.skip("needs gcc and Xvfb: sudo apt install gcc xvfb libgl1-mesa-dri libx11-dev libxtst-dev")
    program = tmp_path_factory.mktemp("toy") / "reverie-toy-game"
    guardian.guard(program.parent / "none")  # the guardian's pipes are there before descriptors are counted
    command = ["gcc", "-O1", "-pthread", str(SOURCE), "-o", str(program), "-lX11", "-l:libGL.so.1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the toy game does not compile here: {done.stderr.splitlines()[0]}")
    return str(program)


@pytest.fixture
def start(toy: str) -> Iterator[Start]:
    """Starts toy games, `start(mode, frame, scale=1, **options)`; all are closed after the test."""
    games: list[LockstepGame] = []

    def begin(mode: str = "", frame: int = 0, *, scale: int = 1, **options: object) -> LockstepGame:
        command = [toy, str(SIZE[0] * scale), str(SIZE[1] * scale), *([mode, str(frame)] if mode else [])]
        games.append(LockstepGame(command, SIZE, render_scale=scale, **options))  # type: ignore[arg-type]
        return games[-1]

    yield begin
    for game in games:
        game.close()
