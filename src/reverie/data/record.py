"""`reverie record`: an exploring policy plays a game in lock-step and every complete episode is added to a dataset.

    reverie record vizdoom --hours 2 -o recordings/vizdoom --processes 2
    python -m reverie.data.record vizdoom --hours 0.1 -o /tmp/walk

Running it again on the same folder continues to the hours asked for.  An episode depends only on its own seed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reverie.data.checks import good_length
from reverie.data.policies import Policy, policy_for, seen_now
from reverie.data.policies.explore import Clearance
from reverie.data.video import write_video
from reverie.data.workers import worker_pool
from reverie.data.writer import POSE_NAMES, DatasetWriter, picture_statistics
from reverie.errors import DataError, WorldError
from reverie.types import FPS, World
from reverie.worlds import WORLDS, open_world

MAX_BARREN_EPISODES = 50
"""Recording gives up when so many episodes in a row had to be thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordConfig:
    """Record a game with an exploring player, as a LeRobot v3 dataset.  Run it again to continue.

    Example: reverie record vizdoom --hours 2 -o recordings/vizdoom --processes 2
    """

    world: Annotated[str, tyro.conf.Positional]
    """The game, such as vizdoom."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The dataset's folder; made, or continued."""
    hours: float = 1.0
    """Length of the whole dataset."""
    processes: int = 1
    """Games that play at once; 0 plays in this process."""
    seed: int = 0
    """Episodes have the seeds seed * 1000000, and on."""
    heldout: bool = False
    """Play the held-out levels, and only those."""
    maps: tuple[str, ...] = ()
    """Levels to play, such as freedoom2/MAP01; all of the split if none are named."""
    episode_seconds: float = 40.0
    """Length of an episode; one that goes wrong is cut shorter."""
    min_episode_seconds: float = 8.0
    """A shorter one is thrown away."""

    def __post_init__(self) -> None:
        for name in ("hours", "episode_seconds", "min_episode_seconds"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name} must be positive, got {getattr(self, name)}")
        if self.processes < 0 or self.seed < 0:
            raise DataError(f"processes and seed must not be negative, got {self.processes} and {self.seed}")

    def run(self) -> None:
        """Record with a progress bar on the terminal."""
        record(self, show_progress=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """A complete episode that is not yet in the dataset; `video` lies in the writer's `partial` folder."""

    video: Path
    actions: npt.NDArray[np.float32]
    poses: npt.NDArray[np.float32] | None
    picture_stats: dict[str, list[Any]]
    meta: dict[str, Any]


def record(config: RecordConfig, *, show_progress: bool = False) -> int:
    """Record until the dataset at `config.out` has the hours asked for; returns its number of frames.

    Raises WorldError for an unknown game or map, DataError for a folder in use or holding something else.
    """
    world = _open(config)
    try:
        writer = DatasetWriter(
            config.out,
            world.action_space,
            world.resolution,
            FPS,
            pose_names=POSE_NAMES if hasattr(type(world), "pose") else (),
            task=f"explore {config.world}",
            notes=_notes(config, world),
        )
        with writer, _progress(config, writer, show_progress) as report:
            _check_split(config, writer)
            if config.processes == 0:
                _fill(writer, config, _here(config, world, writer), report)
            else:
                world.close()
                with contextlib.closing(_elsewhere(config, writer)) as drafts:
                    _fill(writer, config, drafts, report)
            return writer.num_frames
    finally:
        world.close()


def play_episode(
    world: World, policy: Policy, seed: int, num_frames: int
) -> tuple[npt.NDArray[np.uint8], Any, Any, Any]:
    """Let `policy` play `num_frames` frames from `reset(seed)`, or until the level ends.

    Returns frames `(f, H, W, 3)`, actions `(f, size)`, poses `(f, 5)` or None, and how far the middle of the view is,
    `(f,)` or None.
    Action i is chosen on seeing frame i, and shows in frame i + 1.
    """
    pictures, actions, poses, depths = [world.reset(seed)[0]], [], [], []
    while True:
        seen = seen_now(world, pictures[-1])
        poses.append(seen.pose)
        depths.append(None if seen.depth is None else Clearance.of(seen.depth).middle)
        actions.append(world.action_space.restrict(policy.act(seen)))
        if len(actions) == num_frames:
            break
        picture = world.step(actions[-1])[0]
        if getattr(world, "finished", False):
            break
        pictures.append(picture)
    return (
        np.stack(pictures),
        world.action_space.encode(actions),
        None if poses[0] is None else np.stack(poses),
        None if depths[0] is None else np.array(depths, np.float32),
    )


def make_draft(world: World, config: RecordConfig, seed: int, partial: Path) -> Draft | None:
    """Play, cut where it goes wrong, and encode one episode; None if too little of it is good."""
    frames, actions, poses, depths = play_episode(
        world, policy_for(config.world, seed), seed, round(config.episode_seconds * FPS)
    )
    length = good_length(actions, poses, depths, world.action_space)
    if length < config.min_episode_seconds * FPS:
        return None
    video = partial / f"{seed}-{os.getpid()}.mp4"
    write_video(video, frames[:length], FPS)
    meta = {"seed": seed, "map": str(getattr(world, "map", "")), "heldout": config.heldout}
    meta |= getattr(world, "episode_info", {})
    stats = picture_statistics(frames[:length])
    return Draft(video, actions[:length], None if poses is None else poses[:length], stats, meta)


def _open(config: RecordConfig) -> World:
    options: dict[str, Any] = {}
    if config.maps:
        options["maps"] = config.maps
    if config.heldout:
        options["heldout"] = True
    return open_world(config.world, **options)


def _notes(config: RecordConfig, world: World) -> dict[str, Any]:
    described = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    about = {"summary": WORLDS[config.world].summary, "fov_deg": getattr(world, "fov_deg", None)}
    return {"recorder": described, "world": about, "maps": list(getattr(world, "maps", ()))}


def _check_split(config: RecordConfig, writer: DatasetWriter) -> None:
    if any(row.get("heldout", False) != config.heldout for row in writer.rows):
        kinds = ("training", "held-out")
        raise DataError(
            f"{config.out}: holds {kinds[not config.heldout]} episodes, asked for {kinds[config.heldout]} ones;"
            " choose another folder"
        )


def _seeds(config: RecordConfig, done: set[int]) -> Iterator[int]:
    """The episodes' seeds, without those that the dataset has."""
    return (seed for seed in itertools.count(config.seed * 1_000_000) if seed not in done)


def _fill(writer: DatasetWriter, config: RecordConfig, drafts: Iterator[Draft | None], report: Any) -> None:
    goal, barren = config.hours * 3600 * FPS, 0
    while writer.num_frames < goal:
        draft = next(drafts)
        barren = barren + 1 if draft is None else 0
        if barren >= MAX_BARREN_EPISODES:
            raise WorldError(f"{barren} episodes of {config.world} in a row were stuck; choose other maps")
        if draft is not None:
            writer.add(draft.video, draft.actions, draft.poses, draft.picture_stats, draft.meta)
        report(writer, draft)


def _here(config: RecordConfig, world: World, writer: DatasetWriter) -> Iterator[Draft | None]:
    for seed in _seeds(config, {row["seed"] for row in writer.rows}):
        yield make_draft(world, config, seed, writer.partial)


def _elsewhere(config: RecordConfig, writer: DatasetWriter) -> Generator[Draft | None]:
    """Drafts from worker processes in the order of their seeds: the dataset does not depend on who was first."""
    seeds = _seeds(config, {row["seed"] for row in writer.rows})
    pool = worker_pool(config.processes, _start_worker, (config,))
    try:
        waiting: list[Future[Draft | None]] = []
        while True:
            while len(waiting) < config.processes + 2:
                waiting.append(pool.submit(_work, next(seeds), writer.partial))
            yield waiting.pop(0).result()
    except BrokenProcessPool as error:
        raise WorldError(f"a recording process of {config.world} died; run the command again to continue") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[RecordConfig, World] | None = None


def _start_worker(config: RecordConfig) -> Callable[[], None]:
    global _worker
    _worker = (config, _open(config))
    return _close_worker


def _close_worker() -> None:
    if _worker is not None:
        _worker[1].close()


def _work(seed: int, partial: Path) -> Draft | None:
    assert _worker is not None
    config, world = _worker
    try:
        return make_draft(world, config, seed, partial)
    except WorldError:
        world.close()
        _start_worker(config)
        return None


@contextlib.contextmanager
def _progress(config: RecordConfig, writer: DatasetWriter, shown: bool) -> Iterator[Any]:
    goal = round(config.hours * 3600 * FPS)
    columns = (
        TextColumn("recording {task.fields[map]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames, {task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        begun, at_start = time.monotonic(), writer.num_frames
        task = bar.add_task("", total=goal, completed=min(at_start, goal), map=config.world, rate=0.0)

        def report(writer: DatasetWriter, draft: Draft | None) -> None:
            rate = (writer.num_frames - at_start) / max(time.monotonic() - begun, 1e-6)
            name = draft.meta["map"] if draft is not None and draft.meta["map"] else config.world
            bar.update(task, completed=min(writer.num_frames, goal), rate=rate, map=name)

        yield report


if __name__ == "__main__":
    tyro.cli(RecordConfig).run()
