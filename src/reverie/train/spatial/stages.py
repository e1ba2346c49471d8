"""The stages of a recipe in its folder: finished ones are recognised by the next start.

stages.json     given: the recipe, data and model that the folder was begun with; done: seconds of each finished
                stage; kept: numbers that a resume needs again
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from reverie.errors import TrainError
from reverie.models.checkpoint import write_json_atomic

DEVICE_FAILURES = ("CUDA error", "CUDA out of memory", "cuDNN error", "CUBLAS_STATUS", "NCCL error")
"""Beginnings of what torch says when a GPU fails."""


class Stages:
    """Runs named stages in order, says which are done and which remain, and keeps that on disk."""

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
        self._state: dict[str, Any] = {"given": json.loads(json.dumps(given)), "done": {}, "kept": {}}
        if self._file.is_file():
            self._resume()
        self._used_before = float(sum(self._state["done"].values()))
        self._write()

    def _resume(self) -> None:
        try:
            before = json.loads(self._file.read_text(encoding="utf-8"))
            given, _, _ = dict(before["given"]), dict(before["done"]), dict(before["kept"])
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

    def _write(self) -> None:
        try:
            write_json_atomic(self._file, self._state)
        except OSError as error:
            raise TrainError(
                f"cannot write to {self.folder}: {error.strerror}; free some space and run again"
            ) from error

    def is_done(self, name: str) -> bool:
        """Whether a stage was finished, in this start or an earlier one."""
        return name in self._state["done"]

    @property
    def used_s(self) -> float:
        """Seconds of the budget that are used: of finished stages of earlier starts, and since this one."""
        return self._used_before + time.monotonic() - self._begun

    @property
    def left_s(self) -> float:
        return self.seconds - self.used_s

    def kept(self, name: str) -> float | None:
        """A number that `keep` was given, in this start or an earlier one."""
        return self._state["kept"].get(name)

    def keep(self, name: str, value: float) -> None:
        """Keeps a number for later starts."""
        self._state["kept"][name] = value
        self._write()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage; it is done when the block ends.  One that was done already is run again for what is not on disk."""
        began = time.monotonic()
        self.current = name
        self.say(self.describe(name))
        with device_failures(self):
            yield
        if not self.is_done(name):
            self._state["done"][name] = round(time.monotonic() - began, 2)
            self._write()

    def describe(self, name: str) -> str:
        """A line that says what is done and what remains."""
        at = self.names.index(name)
        done = ", ".join(self.names[:at]) or "nothing yet"
        after = ", ".join(self.names[at + 1 :]) or "nothing"
        again = " (again: done before)" if self.is_done(name) else ""
        left = f"{max(0.0, self.left_s) / 60:.1f} of {self.seconds / 60:g} minutes left"
        return f"stage {at + 1} of {len(self.names)}: {name}{again}; done: {done}; then: {after}; {left}"


@contextmanager
def device_failures(stages: Stages) -> Iterator[None]:
    """Says in one line that a GPU failed, and that nothing is lost.  Raises TrainError for it."""
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0]
        is_device = isinstance(error, torch.AcceleratorError | torch.OutOfMemoryError)
        if not is_device and not first.startswith(DEVICE_FAILURES):
            raise
        raise TrainError(
            f"the GPU failed in the stage {stages.current} ({first}); finished stages and checkpoints are kept in "
            f"{stages.folder}: run the same command to go on"
        ) from error


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
