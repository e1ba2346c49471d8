"""Worker processes that never outlive the process that wanted them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Cleanup = Callable[[], object]


def worker_pool(processes: int, start: Callable[..., Cleanup | None], args: tuple[Any, ...]) -> ProcessPoolExecutor:
    """A pool whose workers each call `start(*args)` first; what it returns is called if the parent is killed.

    Ctrl-C reaches the parent alone: each worker, with the game it may start, is a session of its own.  `start` and
    `args` must pickle: workers are fresh interpreters.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, _begin, (os.getpid(), start, args))


def _begin(parent: int, start: Callable[..., Cleanup | None], args: tuple[Any, ...]) -> None:
    os.setsid()
    cleanup = start(*args)
    threading.Thread(target=_follow, args=(parent, cleanup), daemon=True).start()


def _follow(parent: int, cleanup: Cleanup | None) -> None:
    """End this process once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    with contextlib.suppress(Exception):
        if cleanup is not None:
            cleanup()
    os._exit(1)
