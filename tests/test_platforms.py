"""Windows and macOS, checked on this machine: modules and functions that they lack are taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import reverie
from reverie.engine.engine import pick_mode
from reverie.engine.loading import device
from reverie.errors import DeviceError
from reverie.nn import precision
from reverie.nn.rope import rotary_table

LACKING = {
    "win32": ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"),
    "darwin": ("msvcrt", "winreg", "spwd"),
}
LACKING_FUNCTIONS = {
    "win32": ("setsid", "killpg", "getpgid", "fork", "uname", "sysconf", "sched_getaffinity", "register_at_fork"),
    "darwin": ("sched_getaffinity", "sched_setaffinity", "memfd_create"),
}
LINUX_ONLY = ("reverie.data.screen.x11",)
"""Modules of X11's window recorder, which needs packages that exist for Linux alone."""
SCRIPT = """
import os, pkgutil, signal, sys, types
from importlib import import_module
from pathlib import Path

platform, modules, functions, skipped = sys.argv[1], *(x.split(",") for x in sys.argv[2:5])

def import_everything():
    import reverie
    for module in pkgutil.walk_packages(reverie.__path__, "reverie."):
        if module.name not in skipped and not module.name.endswith("__main__"):
            import_module(module.name)

import_everything()  # so that the packages of others are there, as they are on this system
for name in [name for name in sys.modules if name.split(".")[0] == "reverie"]:
    del sys.modules[name]
sys.platform = platform
for name in modules:
    sys.modules[name] = None
for name in functions:
    if hasattr(os, name):
        delattr(os, name)
if platform == "win32":
    del signal.SIGKILL, signal.alarm
    locked = []
    sys.modules["msvcrt"] = types.SimpleNamespace(
        LK_NBLCK=2, locking=lambda handle, mode, count: locked.append((os.lseek(handle, 0, os.SEEK_CUR), mode, count))
    )
import_everything()
from reverie.train.checkpoints import FolderLock
with FolderLock(Path("run")):
    assert Path("run/.lock").read_text() == str(os.getpid())
if platform == "win32":
    assert locked == [(2**30, 2, 1)], locked
from reverie import cli
assert cli.main(["doctor"]) == 0
assert cli.main(["generate", "--actions", "idle 0.2s", "-o", "out.mp4"]) == 0
"""


@pytest.mark.parametrize("platform", LACKING)
def test_everything_imports_and_the_bundled_model_plays(platform: str, tmp_path: Path) -> None:
    lists = (LACKING[platform], LACKING_FUNCTIONS[platform], LINUX_ONLY)
    words = [sys.executable, "-c", SCRIPT, platform, *(",".join(names) for names in lists)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "120"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out.mp4").stat().st_size > 1000


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Mac with macOS 14: no CUDA, an Apple GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (14, 0))
    return monkeypatch


def test_apples_gpu_is_chosen_with_bfloat16(apple: pytest.MonkeyPatch) -> None:
    mps = torch.device("mps")
    assert device.pick_device("auto") == device.pick_device("mps") == mps
    assert device.pick_dtype("auto", mps) == device.pick_dtype("bfloat16", mps) == torch.bfloat16
    assert device.pick_dtype("float16", mps) == torch.float16
    assert pick_mode("auto", mps) == "eager"


def test_apples_gpu_has_no_bfloat16_before_macos_14(apple: pytest.MonkeyPatch) -> None:
    apple.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (13, 3))
    assert device.pick_dtype("auto", torch.device("mps")) == torch.float32
    with pytest.raises(DeviceError, match="needs macOS 14 or newer; use --dtype float32"):
        device.pick_dtype("bfloat16", torch.device("mps"))


def test_a_machine_without_apples_gpu_says_so() -> None:
    with pytest.raises(DeviceError, match="torch finds no Apple GPU; use --device cpu"):
        device.pick_device("mps")


class NoFloat64(TorchDispatchMode):
    """Fails on an operation that makes a float64 tensor, as Apple's GPU does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, f"{func} makes float64"
        return out


@pytest.mark.parametrize("opening", [{"scene": "temple-run"}, {}])
def test_nano_plays_without_float64(opening: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("cpu",))
    engine = reverie.load("nano", device="cpu", dtype="float32")
    image = None if opening else engine.start_images()[0][1]
    with NoFloat64():
        frames = engine.open(image, seed=0, **opening).step(reverie.Action(frozenset({"forward"}), (0.0, 2.0)))
    assert frames.shape[1:] == (128, 224, 3)


def test_rotary_tables_without_float64_stay_close(monkeypatch: pytest.MonkeyPatch) -> None:
    hour = torch.tensor([[25 * 3600 / 4.0]])
    exact = rotary_table(hour, [16], 10_000)
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("cpu",))
    torch.testing.assert_close(rotary_table(hour, [16], 10_000), exact, atol=2e-3, rtol=0)
