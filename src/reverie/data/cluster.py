"""Recording on a Ray cluster: each task is one episode, and comes back as bytes with the content of its video.

No storage has to be shared: an episode is a megabyte or two, and the process that was asked to record writes the
dataset alone, so that shards are merged by adding rows to the episode table.  Ray plays an episode again elsewhere when
its worker or its machine is lost; with the head only the episodes that are being played are lost, and the same command
continues.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reverie.data.episode import Draft, Job, Outcome, Recorder, Rejected
from reverie.errors import WorldError
from reverie.worlds import guardian

MAX_RETRIES = 2
"""Retries by Ray of an episode whose worker or machine was lost."""
AHEAD = 1
"""Tasks beyond one for each core, so that no core waits for the next."""
WAIT_S = 10.0
CONNECT_S = 5.0

_recorder: Recorder | None = None
"""The game of this Ray worker, kept from task to task."""


def on_cluster(address: str, job: Job, seeds: Iterator[int], processes: int) -> Generator[Outcome]:
    """Outcomes of the episodes `seeds`, played on the cluster at `address`, in the order in which they finish.

    address: as Ray takes it (`host:6379`, `ray://host:10001`, `auto`), or `local`: `processes` workers on this machine.
    Raises WorldError if Ray is not installed, for a cluster that cannot be reached, and if it is lost.
    """
    ray = import_ray()
    started_here = not ray.is_initialized()
    if started_here:
        _connect(ray, address, processes)
    try:
        yield from _play(ray, job, seeds)
    except (ray.exceptions.RaySystemError, ConnectionError, ray.exceptions.RayError) as error:
        first = str(error).strip().splitlines()[0]
        raise WorldError(f"the Ray cluster {address} was lost ({first}); run the command again to continue") from error
    finally:
        if started_here:
            with contextlib.suppress(Exception):
                ray.shutdown()


def check_cluster(address: str) -> None:
    """Raise WorldError if Ray is not installed, or `address` does not answer: Ray itself would try for minutes."""
    import_ray()
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), CONNECT_S):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise WorldError(
            f"no Ray cluster at {address!r} ({error}); start one with `ray start --head`, or say --cluster local"
        ) from error


def import_ray() -> Any:
    """Ray, without usage reports and without a terminal.  Raises WorldError if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise WorldError('--cluster needs Ray, which is not installed; pip install "reverie-world[cluster]"') from None
    return ray


def _connect(ray: Any, address: str, processes: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    where: dict[str, Any] = {"num_cpus": processes, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, **quiet, **where)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorldError(
            f"no Ray cluster at {address!r} ({first}); start one with `ray start --head`, or say --cluster local"
        ) from error


def _play(ray: Any, job: Job, seeds: Iterator[int]) -> Generator[Outcome]:
    """Keep a task for each core of the cluster, as many as it has at the time."""
    remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(play_one)
    names = ("RayTaskError", "WorkerCrashedError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError")
    losses = tuple(getattr(ray.exceptions, name) for name in names)
    tasks: dict[Any, int] = {}
    while True:
        cores = int(ray.cluster_resources().get("CPU", 0))
        if not cores and not tasks:
            raise WorldError("the Ray cluster has no cores; add machines with `ray start --address=HOST:6379`")
        while len(tasks) < cores + AHEAD:
            seed = next(seeds)
            tasks[remote.remote(job, seed)] = seed
        done, _ = ray.wait(list(tasks), num_returns=1, timeout=WAIT_S)
        for task in done:
            seed = tasks.pop(task)
            try:
                yield ray.get(task)
            except losses as error:
                yield Rejected(seed, f"lost on the cluster: {_reason(error)}", is_failure=True)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def play_one(job: Job, seed: int) -> Outcome:
    """Play one episode in a Ray worker; the video comes back as bytes."""
    global _recorder
    if _recorder is None or _recorder.job != job:
        if _recorder is not None:
            _recorder.close()
        _recorder = Recorder(job)
    folder = guardian.make_folder("reverie-episode-")
    try:
        outcome = _recorder.episode(seed, folder)
        if isinstance(outcome, Draft) and isinstance(outcome.video, Path):
            outcome = replace(outcome, video=outcome.video.read_bytes())
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        guardian.release(folder)
