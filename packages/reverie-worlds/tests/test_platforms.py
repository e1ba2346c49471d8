"""Windows and macOS, checked on this machine: every module imports where what they lack is taken away."""

from __future__ import annotations

import subprocess
import sys

import pytest

LACKING = {"win32": "fcntl resource pwd grp termios tty pty syslog", "darwin": "msvcrt winreg spwd"}
SCRIPT = """
import os, pkgutil, signal, sys
from importlib import import_module
import reverie_worlds

def import_everything():
    for module in pkgutil.walk_packages(import_module("reverie_worlds").__path__, "reverie_worlds."):
        import_module(module.name)

import_everything()  # so that the packages of others are there, as they are on this system
for name in [name for name in sys.modules if name.split(".")[0] in ("reverie", "reverie_worlds")]:
    del sys.modules[name]
sys.platform = sys.argv[1]
for name in sys.argv[2].split():
    sys.modules[name] = None
if sys.platform == "win32":
    del signal.SIGKILL, os.fork, os.setsid, os.killpg, os.uname
import_everything()
assert {"reverie_worlds.lockstep.game", "reverie_worlds.doom.world", "reverie_worlds.city.player"} <= set(sys.modules)
"""


@pytest.mark.parametrize("platform", LACKING)
def test_everything_imports(platform: str) -> None:
    words = [sys.executable, "-c", SCRIPT, platform, LACKING[platform]]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
