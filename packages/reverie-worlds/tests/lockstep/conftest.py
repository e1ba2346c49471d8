import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reverie.worlds import guardian
from reverie_worlds.lockstep import LockstepGame

SOURCE = Path(__file__).parent / "toy_game.c"
SIZE = (96, 64)


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


Start = Callable[..., LockstepGame]


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


def descendants(root: int) -> dict[int, str]:
    """The living processes below `root` that are not Python: their ids and names."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
            if rest[0] != "Z":
                parents[int(folder.name)] = (int(rest[1]), name)
    found: dict[int, str] = {}
    grown = True
    while grown:
        grown = False
        for pid, (parent, name) in parents.items():
            if pid not in found and (parent == root or parent in found):
                found[pid] = name
                grown = True
    return {pid: name for pid, name in found.items() if not name.startswith(("python", "pytest"))}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: Iterator[int] | list[int], seconds: float = 15.0) -> list[int]:
    """Those that still live after `seconds`."""
    left = list(pids)
    until = time.monotonic() + seconds
    while left and time.monotonic() < until:
        left = [pid for pid in left if is_alive(pid)]
        time.sleep(0.02)
    return left


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
