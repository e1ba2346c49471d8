"""Worker processes that never outlive the process that wanted them, nor leave the games that they started."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

Cleanup = Callable[[], object]


def worker_pool(processes: int, start: Callable[..., Cleanup | None], args: tuple[Any, ...]) -> ProcessPoolExecutor:
    """A pool whose workers each call `start(*args)` first; what it returns is called if the parent is killed.

    Ctrl-C reaches the parent alone: each worker, with the game it may start, is a session of its own.  `start` and
    `args` must pickle: workers are fresh interpreters.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, _begin, (os.getpid(), start, args))


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task whose worker died or was stopped because it took too long."""

    task: Any
    reason: str


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Any = None
    is_busy: bool = False
    deadline: float = 0.0


class WorkerPool:
    """Workers that may die: a task is lost with its worker, and the rest goes on with a new one.

    make: called in each worker with `args`; returns what answers a task, and what cleans up.  limit_s: a worker that
    takes longer over a task is killed, with everything that it started.
    """

    def __init__(
        self,
        processes: int,
        make: Callable[..., tuple[Callable[[Any], Any], Cleanup]],
        args: tuple[Any, ...],
        limit_s: float,
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._make, self._args, self._limit_s = make, args, limit_s
        self._workers: list[_Worker] = []
        try:
            for _ in range(processes):
                self._workers.append(self._spawn())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def results(self, tasks: Iterator[Any]) -> Iterator[Any]:
        """Yields results, or TaskFailures, in the order in which workers finish; each worker always has a task."""
        while True:
            for worker in self._workers:
                if not worker.is_busy:
                    self._give(worker, next(tasks))
            yield from self._wait()

    def close(self) -> None:
        """Ask the workers to clean up and end, then end those that do not."""
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.pipe.close()  # an idle worker reads the end of its tasks; a busy one is ended below
        deadline = time.monotonic() + 5.0
        for worker in self._workers:
            if worker.is_busy:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            _kill_group(worker.process)
        self._workers = []

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(os.getpid(), theirs, self._make, self._args), daemon=True, name="reverie-recorder"
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _give(self, worker: _Worker, task: Any) -> None:
        worker.task, worker.is_busy = task, True
        worker.deadline = time.monotonic() + self._limit_s
        with contextlib.suppress(OSError):  # one that is dead already is noticed when waited for
            worker.pipe.send(task)

    def _wait(self) -> list[Any]:
        """At least one answer, unless a minute passes without."""
        now = time.monotonic()
        timeout = max(0.0, min(min(w.deadline for w in self._workers) - now, 60.0))
        ready = wait([w.pipe for w in self._workers], timeout)
        answers: deque[Any] = deque()
        for place, worker in enumerate(self._workers):
            if worker.pipe in ready:
                try:
                    answers.append(worker.pipe.recv())
                    worker.is_busy = False
                    continue
                except (EOFError, OSError):
                    worker.process.join(5.0)
                    reason = f"the recording process died ({_how(worker.process.exitcode)})"
            elif worker.deadline <= time.monotonic():
                reason = f"no answer in {self._limit_s:.0f} s: the game hangs"
            else:
                continue
            _kill_group(worker.process)
            worker.pipe.close()
            self._workers[place] = self._spawn()
            answers.append(TaskFailure(worker.task, reason))
        return list(answers)


def _how(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _kill_group(process: BaseProcess) -> None:
    """End a worker and all that it started; its process group has its own number."""
    if process.pid is not None and sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join(5.0)


def _serve(
    parent: int, pipe: Connection, make: Callable[..., tuple[Callable[[Any], Any], Cleanup]], args: tuple[Any, ...]
) -> None:
    """A worker: answers tasks until the pipe is closed."""
    _lead_group()
    cleanups: list[Cleanup] = []
    signal.signal(signal.SIGTERM, lambda *_: _leave(cleanups))
    threading.Thread(target=_follow, args=(parent, cleanups), daemon=True).start()  # now: `make` may take long
    answer, cleanup = make(*args)
    cleanups.append(cleanup)
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(answer(pipe.recv()))
    _leave(cleanups)


def _begin(parent: int, start: Callable[..., Cleanup | None], args: tuple[Any, ...]) -> None:
    _lead_group()
    cleanups: list[Cleanup] = []
    threading.Thread(target=_follow, args=(parent, cleanups), daemon=True).start()
    if (cleanup := start(*args)) is not None:
        cleanups.append(cleanup)


def _lead_group() -> None:
    """Make this process the leader of a group of its own, so that what it starts can be ended with it."""
    if sys.platform != "win32":
        os.setsid()


def _follow(parent: int, cleanups: list[Cleanup]) -> None:
    """End this process, and all that it started, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    _leave(cleanups)


def _leave(cleanups: list[Cleanup]) -> None:
    for cleanup in cleanups:
        tidying = threading.Thread(target=cleanup, daemon=True)
        tidying.start()
        tidying.join(3.0)  # a game that hangs may never close
    if sys.platform == "win32":
        os._exit(1)
    os.killpg(0, signal.SIGKILL)  # games and displays that are still there, and this process
