"""The stages of a recipe in its folder: finished ones are recognised by the next start.

stages.json     given: the recipe, data and model that the folder was begun with; done: seconds of each finished
                stage; kept: numbers that a resume needs again; used_s: seconds of the budget that are used, those of
                killed starts among them; now: what is done and what remains, written every few seconds
"""

from __future__ import annotations

import errno
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reverie.errors import TrainError
from reverie.models.checkpoint import write_json_atomic
from reverie.train.guards import device_failures

BEAT_S = 5.0
"""Between notes of the time that is used: a kill loses no more of the count."""

MIN_REMINDER_S = 60.0
"""Between lines about the remaining time; else a hundredth of the budget."""


DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Error numbers of a disk that is full, limited, read-only or broken."""


class Stages:
    """Runs named stages in order, reports those done and those remaining, and records them on disk."""

    def __init__(
        self, folder: Path, names: Sequence[str], given: Mapping[str, Any], seconds: float, say: Callable[[str], None]
    ) -> None:
        """given: what a resume must agree with, of JSON; seconds: the budget of all stages.

        Raises TrainError where the folder was begun with another recipe, data or model.
        """
        self.folder, self.names, self.seconds, self.say = folder, tuple(names), seconds, say
        self.current = ""
        self._begun = time.monotonic()
        self._file = folder / "stages.json"
        self._state: dict[str, Any] = {"given": json.loads(json.dumps(given)), "done": {}, "kept": {}, "used_s": 0.0}
        self._lock = threading.Lock()
        if self._file.is_file():
            self._resume()
        self._used_before = float(self._state["used_s"])
        self._write()

    def _resume(self) -> None:
        try:
            before = json.loads(self._file.read_text(encoding="utf-8"))
            given, done, _ = dict(before["given"]), dict(before["done"]), dict(before["kept"])
            before["used_s"] = float(before.get("used_s", sum(done.values())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainError(
                f"{self._file} is damaged ({error!r}); delete it, or give another folder with -o"
            ) from error
        now = self._state["given"]
        for name in now.keys() | given.keys():
            if now.get(name) != given.get(name):
                old, new = _difference(name, given.get(name), now.get(name))
                raise TrainError(
                    f"{self.folder} was begun with {old}, got {new}; run it as it was begun, or give another folder "
                    "with -o"
                )
        self._state = before

    def _write(self, part: str | None = None, name: str = "", value: Any = None) -> None:
        """Puts the state on disk, with a new value under a name of one of its parts."""
        try:
            with self._lock:
                if part is not None:
                    self._state[part][name] = value
                self._state["used_s"] = round(self.used_s, 2)
                self._state["now"] = self._now()
                write_json_atomic(self._file, self._state)
        except OSError as error:
            raise TrainError(
                f"cannot write to {self.folder}: {error.strerror}; free some space and run again"
            ) from error

    def _now(self) -> str:
        if all(map(self.is_done, self.names)):
            return "done"
        return self.describe(self.current) if self.current else "begun"

    def is_done(self, name: str) -> bool:
        """Tests whether a stage was finished, in this start or an earlier one."""
        return name in self._state["done"]

    @property
    def used_s(self) -> float:
        """Seconds of the budget that are used: by earlier starts, killed ones too, and since this one."""
        return self._used_before + time.monotonic() - self._begun

    @property
    def left_s(self) -> float:
        return self.seconds - self.used_s

    def kept(self, name: str) -> float | None:
        """A number that `keep` was given, in this start or an earlier one."""
        return self._state["kept"].get(name)

    def keep(self, name: str, value: float) -> None:
        """Keeps a number for later starts."""
        self._write("kept", name, value)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage; it is done when the block ends.  One that was done already is run again for what is not on disk."""
        began = time.monotonic()
        self.current = name
        self.say(self.describe(name))
        with self._beating(name), self.device_failures(), self._disk_failures():
            yield
        if not self.is_done(name):
            self._write("done", name, round(time.monotonic() - began, 2))

    @contextmanager
    def _beating(self, name: str) -> Iterator[None]:
        """While it lasts, a thread notes the time that is used, and reports from time to time what remains."""
        ended = threading.Event()

        def beat() -> None:
            reminded = time.monotonic()
            while not ended.wait(BEAT_S):
                with suppress(TrainError):  # a full disk is the stage's to report
                    self._write()
                if time.monotonic() - reminded >= max(MIN_REMINDER_S, self.seconds / 100):
                    reminded = time.monotonic()
                    self.say(self.describe(name))

        thread = threading.Thread(target=beat, name="stages", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _disk_failures(self) -> Iterator[None]:
        """Raises TrainError, in one line, where the disk is full or fails."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if isinstance(error, OSError) and error.errno not in DISK_FAILURES:
                raise
            raise TrainError(
                f"the disk failed in the stage {self.current} ({reason}); finished stages and checkpoints are kept in "
                f"{self.folder}: free some space and run the same command to go on"
            ) from error

    def device_failures(self) -> AbstractContextManager[None]:
        """Raises TrainError, in one line that states that nothing is lost, if a GPU fails."""
        kept = f"finished stages and checkpoints are kept in {self.folder}"
        return device_failures(f"in the stage {self.current}", kept)

    def describe(self, name: str) -> str:
        """A line on what is done and what remains."""
        at = self.names.index(name)
        done = ", ".join(self.names[:at]) or "nothing yet"
        after = ", ".join(self.names[at + 1 :]) or "nothing"
        again = " (again: done before)" if self.is_done(name) else ""
        left = f"{max(0.0, self.left_s) / 60:.1f} of {self.seconds / 60:g} minutes left"
        return f"stage {at + 1} of {len(self.names)}: {name}{again}; done: {done}; then: {after}; {left}"


def training_seconds(stages: Stages, tail_s: float, trained_s: float) -> float:
    """The training's share of the budget: what was left for it when it first began, less what was lost since.

    tail_s: kept for what comes after; trained_s: that its newest checkpoint holds; less is never returned.  Raises
    TrainError where nothing worth it is left to a training that has not begun.
    """
    left = trained_s + stages.left_s - tail_s
    seconds = min(stages.kept("training_seconds") or left, left)
    if trained_s == 0 and seconds < min(5.0, 0.5 * stages.seconds):
        raise TrainError(
            f"a budget of {stages.seconds:.0f} s leaves {seconds:.0f} s for training; give more minutes, and another "
            "folder with -o"
        )
    return max(seconds, trained_s)


def _difference(name: str, old: Any, new: Any) -> tuple[str, str]:
    """The first thing in which two values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            if old.get(key) != new.get(key):
                return _difference(f"{name} {key}" if name != "recipe" else key, old.get(key), new.get(key))
    return f"{name} {_words(old)}", f"{_words(new)}"


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    text = json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text if len(text) < 200 else text[:197] + "..."
