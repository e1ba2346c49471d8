"""Counts the files of `src/reverie` that an action passes on its way to a frame, and a clip on its way to a loss.

    python tools/files_passed.py action   # a served session of a tiny model with a spatial memory, on the CPU
    python tools/files_passed.py clip     # a recording of a toy game, encoded, drawn, and put through the loss

A file counts where one of its functions runs meanwhile, in any thread.  Prints the files in order, each with the
functions that ran most often; then their number.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = str(ROOT / "src/reverie") + "/"


class Trace:
    """Functions of the package that are called while `on`, by file."""

    def __init__(self) -> None:
        self.files: dict[str, Counter[str]] = {}
        self._is_on = False
        threading.setprofile(self._called)  # of threads that start from now on
        sys.setprofile(self._called)

    @contextmanager
    def on(self) -> Iterator[None]:
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    def _called(self, frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if self._is_on and event == "call" and code.co_filename.startswith(SOURCE):
            file = code.co_filename.removeprefix(SOURCE)
            self.files.setdefault(file, Counter())[code.co_name] += 1


def follow_action(trace: Trace, folder: Path) -> None:
    from starlette.testclient import TestClient
    from tests.helpers.server_client import OPEN, connected
    from tests.helpers.small_model import small_engine

    from reverie.models.presets import tiny_memory
    from reverie.serve.app import create_app
    from reverie.serve.sources import ModelSource

    small_engine(folder / "model", tiny_memory())
    source = ModelSource(str(folder / "model"), device="cpu")
    with TestClient(create_app(source, access=OPEN)) as http, connected(http) as client:
        client.hello()
        client.play(seed=1)
        for _ in range(24):  # the window is full, and the page's pace has settled
            client.frame()
        with trace.on():
            client.input(["KeyW"], mouse=(8, 2))
            while client.frame().action < 1:
                pass


def follow_clip(trace: Trace, folder: Path) -> None:
    import numpy as np
    import torch
    from tests.helpers.lighthouse import Lighthouse
    from tests.helpers.small_model import small_engine

    from reverie.data.record import RecordConfig, record
    from reverie.models.presets import tiny
    from reverie.train.batches import move
    from reverie.train.world import new_task
    from reverie.train.world_options import TrainWorldConfig
    from reverie.worlds import WORLDS, WorldInfo

    WORLDS["lighthouse"] = WorldInfo("lighthouse", "a test", Lighthouse)
    record(RecordConfig(world="lighthouse", out=folder / "rec", hours=300 / 90000, processes=0, episode_seconds=4))
    small_engine(folder / "model", tiny())
    config = TrainWorldConfig(
        data=(folder / "rec",), tokenizer=folder / "model", output=folder / "run", preset="tiny", batch=2, clip_steps=5
    )
    with trace.on():
        task = new_task(config, torch.device("cpu"))
        task.device = torch.device("cpu")
        batch = move(task.batch(np.random.default_rng(0)), task.device)
        task.loss(batch, torch.Generator().manual_seed(0))


WAYS: dict[str, Callable[[Trace, Path], None]] = {"action": follow_action, "clip": follow_clip}


def main(way: str) -> None:
    sys.path.insert(0, str(ROOT))
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        WAYS[way](trace, Path(folder))
    sys.setprofile(None)
    for file, functions in trace.files.items():
        print(f"{file:48} {', '.join(name for name, _ in functions.most_common(6) if not name.startswith('<'))}")
    print(len(trace.files), "files")


if __name__ == "__main__":
    main(*sys.argv[1:])
