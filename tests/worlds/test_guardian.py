"""A process that is killed leaves nothing behind."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from reverie.worlds import guardian

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")

OWNER = """
import subprocess, sys, time
from pathlib import Path
from reverie.worlds import guardian
folder = Path(sys.argv[1])
guardian.guard(folder)
game = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{folder}/game.ini",
                         "+viz_instance_id", sys.argv[2], "+end"], start_new_session=True)
while b"viz_instance_id" not in Path(f"/proc/{game.pid}/cmdline").read_bytes():
    time.sleep(0.01)  # exec has closed its pipe before the kernel has set the new command line
guardian.guard(folder)
if sys.argv[3] == "release":
    game.kill(); game.wait()
    guardian.release(folder)
print(game.pid, flush=True)
if sys.argv[3] == "stay":
    time.sleep(600)
"""

STARTING = """
import mmap, os, sys, time
from pathlib import Path
from reverie.worlds import guardian
folder = guardian.make_folder("reverie-test-")
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.truncate(file, 4096)
memory = mmap.mmap(file, 4096)
print(folder, flush=True)
time.sleep(600)
"""
"""An owner in the midst of starting a game: the game's shared memory is there, and no process is named by it yet."""

WORKER = """
import os, sys, time
from reverie.data.workers import WorkerPool

def start_a_game(said):
    os.write(said, b"%d" % os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    with WorkerPool(1, start_a_game, (1,), 600.0):
        time.sleep(600)
"""
"""Its worker hangs while its game starts."""


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def mentioned(text: str) -> list[int]:
    """Processes with `text` on their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def start_owner(folder: Path, instance: str, how: str) -> tuple[subprocess.Popen[str], int]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), instance, how], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline())


@pytest.mark.parametrize("ending", ["kill -9", "kill -9 of both", "returns"])
def test_nothing_outlives_its_owner(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "game"
    folder.mkdir()
    instance = f"test{os.getpid()}{len(ending)}"
    memory = Path(f"/dev/shm/ViZDoomSM{instance}")
    memory.write_bytes(b"x")
    other = Path(f"/dev/shm/ViZDoomSM{instance}y")
    other.write_bytes(b"x")
    try:
        owner, game = start_owner(folder, instance, "go" if ending == "returns" else "stay")
        if ending == "kill -9 of both":
            os.kill(game, signal.SIGKILL)
        if ending != "returns":
            owner.kill()
        owner.communicate(timeout=60)
        until(lambda: not is_running(game), "the game to end")
        until(lambda: not folder.exists(), "its folder to go")
        until(lambda: not memory.exists(), "its shared memory to go")
        assert other.exists()
    finally:
        memory.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def test_a_game_that_was_being_started_leaves_nothing() -> None:
    """VizDoom makes its shared memory, under a name of its own choice, before it starts the game."""
    made, used = (Path(f"/dev/shm/ViZDoomMQCtr{name}{os.getpid()}") for name in ("made", "used"))
    owner = subprocess.Popen([sys.executable, "-c", STARTING, str(made)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert folder.is_dir()
        with used.open("w+b") as file:
            file.truncate(4096)
            with mmap.mmap(file.fileno(), 4096):  # of a game of somebody else, which runs
                owner.kill()
                owner.communicate(timeout=60)
                until(lambda: not made.exists(), "its shared memory to go")
                until(lambda: mentioned(f"guardian.py\0{owner.pid}") == [], "the guardian to end")
                assert not folder.exists()
                assert used.exists()
    finally:
        made.unlink(missing_ok=True)
        used.unlink(missing_ok=True)


def test_a_worker_that_starts_its_game_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(WORKER)
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    worker = int(os.read(owner.stdout.fileno(), 20))
    owner.kill()
    owner.communicate(timeout=60)
    until(lambda: not is_running(worker), "the worker to end")


def test_every_folder_of_a_game_is_guarded() -> None:
    """A game's temporary folder is made by `guardian.make_folder` alone, which guards it from before it is there."""
    games = find_spec("reverie_worlds")
    if games is None:
        pytest.skip("the games are not installed")
    folders = [Path(guardian.__file__).parent, *map(Path, games.submodule_search_locations or ())]
    texts = {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    assert [path for path, text in texts.items() if "mkdtemp" in text] == []
    assert len([path for path, text in texts.items() if "= guardian.make_folder(" in text]) == 5


def test_what_was_released_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "game"
    folder.mkdir()
    owner, _ = start_owner(folder, "none0000", "release")
    owner.communicate(timeout=60)
    until(lambda: mentioned(f"guardian.py\0{owner.pid}") == [], "the guardian to end")
    assert folder.exists()
