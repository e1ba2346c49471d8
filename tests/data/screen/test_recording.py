"""A real X server, a window that lights up while a key is held, and keys pressed through XTest."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reverie.data.dataset import Dataset
from reverie.data.screen.recording import RecordScreenConfig, ScreenReport, record_screen
from reverie.data.screen.x11 import open_display
from reverie.errors import DataError, WorldError

pytest.importorskip("Xlib", reason='python-xlib is not installed: pip install "reverie-world[screen]"')
pytest.importorskip("mss", reason='mss is not installed: pip install "reverie-world[screen]"')
pytestmark = pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not installed: apt install xvfb")


@pytest.fixture
def lamp() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A display of its own with the lamp on it: its name, and the lamp's process."""
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "640x400x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    display = f":{server.stdout.readline().strip()}"
    script = Path(__file__).parents[2] / "helpers/lamp_window.py"
    window = subprocess.Popen([sys.executable, str(script), display], stdout=subprocess.PIPE, text=True)
    try:
        assert window.stdout is not None
        assert window.stdout.readline().strip() == "ready"
        yield display, window
    finally:
        for process in (window, server):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


class Hand(threading.Thread):
    """Holds and releases `w`, presses a button, and moves the mouse by a known number of counts."""

    def __init__(self, display: str) -> None:
        super().__init__()
        self._display = display

    def run(self) -> None:
        from Xlib import XK, X
        from Xlib.ext import xtest

        connection = open_display(self._display)
        key = connection.keysym_to_keycode(XK.string_to_keysym("w"))

        def do(kind: int, detail: int, **where: int) -> None:
            xtest.fake_input(connection, kind, detail, **where)
            connection.sync()

        time.sleep(0.4)
        for held_s in (0.2, 0.3, 0.17, 0.25):
            do(X.KeyPress, key)
            time.sleep(held_s)
            do(X.KeyRelease, key)
            time.sleep(0.21)
        for _ in range(30):
            do(X.MotionNotify, 1, x=3, y=-1)
            time.sleep(0.01)
        do(X.ButtonPress, 1)
        time.sleep(0.3)
        do(X.ButtonRelease, 1)
        time.sleep(0.2)
        connection.close()


def record(tmp_path: Path, display: str, seconds: float = 4.0) -> ScreenReport:
    config = RecordScreenConfig(window="lamp", out=tmp_path / "set", counts_per_turn=3600, seconds=seconds)
    return record_screen(config, display=display)


def test_what_the_hands_did_is_paired_with_what_was_seen(tmp_path: Path, lamp) -> None:
    display, _ = lamp
    for attempt in range(5):  # a busy machine falls behind, and cuts what it captured
        hand = Hand(display)
        hand.start()
        try:
            report = record(tmp_path / str(attempt), display)
        except DataError as error:
            if "too slow to record" not in str(error):
                raise
            continue
        finally:
            hand.join()
        if report.num_frames > 60 or not report.cuts:
            break
    else:
        pytest.skip("this machine was five times too busy to record a window")
    assert report.num_frames > 60
    dataset = Dataset(tmp_path / str(attempt) / "set")
    assert dataset.action_space.keys == ("forward", "back", "left", "right", "jump", "crouch", "attack", "use")
    presses = 0
    turned = 0.0
    for index in range(dataset.num_episodes):
        clip = dataset.clip(index)
        bright = clip.frames.mean(axis=(1, 2, 3)) > 128
        held = (clip.actions[:, 0] + clip.actions[:, 6]) > 0
        turned += float(clip.actions[:, 9].sum())
        for row in np.flatnonzero(np.diff(held.astype(int)) == 1) + 1:
            lit = np.flatnonzero(bright[row:])
            assert lit.size, "a key that was pressed is seen"
            assert 0 <= lit[0] <= 2, f"row {row} shows in frame {row + lit[0]}, promised {row + 1}, within one frame"
            presses += 1
    if not report.cuts:
        assert presses == 5
        assert turned == pytest.approx(9.0, abs=0.11), "90 counts of 3600"


def test_a_closed_window_ends_the_recording_and_keeps_it(tmp_path: Path, lamp) -> None:
    display, window = lamp
    threading.Timer(3.0, window.kill).start()
    report = record(tmp_path, display, seconds=20.0)
    assert report.cuts.get("the window was closed") == 1
    assert Dataset(tmp_path / "set").num_frames >= 50


def test_a_window_that_is_not_there(tmp_path: Path, lamp) -> None:
    config = RecordScreenConfig(window="Doom", out=tmp_path / "set")
    with pytest.raises(WorldError, match="no window has 'Doom' in its title; the windows are: 'The Lamp'"):
        record_screen(config, display=lamp[0])
    assert not (tmp_path / "set").exists(), "nothing is left behind"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_display(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="no X11 display"):
        record_screen(RecordScreenConfig(window="x", out=tmp_path / "set"), display=":991")
    gc.collect()  # python-xlib leaves the sockets of a failed connection to the collector, which warns
