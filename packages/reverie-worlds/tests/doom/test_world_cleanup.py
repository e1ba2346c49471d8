"""A process that is killed while it plays Doom leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vizdoom")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")

DOOM = """
import time
from reverie_worlds.doom.world import VizDoomWorld
world = VizDoomWorld(maps=("freedoom2/MAP01",))
world.reset(0)
print(world._folder, flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


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


def test_a_killed_doom_leaves_nothing() -> None:
    owner = subprocess.Popen([sys.executable, "-c", DOOM], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    games = mentioned(f"{folder}/")
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in games]
    instances = [line[line.index(b"+viz_instance_id") + 1].decode() for line in lines]
    assert games
    assert all(list(Path("/dev/shm").glob(f"ViZDoom*{name}")) for name in instances)
    owner.kill()
    owner.communicate(timeout=60)
    until(lambda: mentioned(f"{folder}/") == [], "the game to end")
    until(lambda: not folder.exists(), "its folder to go")
    for name in instances:
        until(lambda name=name: not list(Path("/dev/shm").glob(f"ViZDoom*{name}")), "its shared memory to go")
