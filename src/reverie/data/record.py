"""`reverie record`: an exploring policy plays a game in lock-step and every complete episode is added to a dataset.

    reverie record vizdoom --hours 2 -o recordings/vizdoom --processes 2
    reverie record vizdoom --hours 1 -o recordings/monsters --set monsters=true
    reverie record minetest --hours 100 -o recordings/minetest --cluster ray://head:10001

Running it again on the same folder continues to the hours asked for.  An episode depends only on its own seed; episodes
are added as they are finished, so that nobody waits for a slow one.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from reverie.argument_markers import alias, positional, repeated
from reverie.data.episode import DiskFull, Draft, Job, Outcome, Recorder, Rejected, play_episode
from reverie.data.facts import WorldFacts
from reverie.data.game_options import options_of, parse_options
from reverie.data.workers import TaskFailure, WorkerPool
from reverie.data.writer import DatasetWriter
from reverie.errors import DataError, WorldError
from reverie.types import FPS, POSE_NAMES, HasGeometry, World
from reverie.worlds import WORLDS, world_info

__all__ = ["RecordConfig", "play_episode", "record"]

MAX_BARREN_EPISODES = 50
"""Recording gives up when so many episodes in a row had to be thrown away."""
MAX_FAILURES = 8
"""Recording gives up when the game failed in so many episodes in a row."""
MAX_LOST = 2
"""An episode whose worker died or hung is given to another one once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordConfig:
    """Record a game with an exploring player, as a LeRobot v3 dataset.  Run it again to continue.

    Example: reverie record vizdoom --hours 2 -o recordings/vizdoom --processes 2
    """

    world: Annotated[str, positional()]
    """The game, such as vizdoom."""
    out: Annotated[Path, alias("-o")]
    """The dataset's folder; made, or continued."""
    hours: float = 1.0
    """Length of the whole dataset."""
    processes: int = 1
    """Games that play at once; 0 plays in this process."""
    cluster: str | None = None
    """Record on a Ray cluster: its address, or `local` for one on this machine with `processes` workers."""
    seed: int = 0
    """Episodes have the seeds seed * 1000000, and on."""
    heldout: bool = False
    """Play the held-out levels, and only those."""
    maps: tuple[str, ...] = ()
    """Levels to play, such as freedoom2/MAP01; all of the split if none are named."""
    set: Annotated[tuple[str, ...], repeated()] = ()
    """An option of the game, KEY=VALUE, such as monsters=true; can be given several times."""
    episode_seconds: float = 40.0
    """Length of an episode; one that goes wrong is cut shorter."""
    min_episode_seconds: float = 8.0
    """A shorter one is thrown away."""
    depth_every: int = 4
    """Record the depth of every so many frames, from the first on, where the game has it; 0 records none."""
    hang_seconds: float = 600.0
    """A game that takes longer over one episode is ended."""

    def __post_init__(self) -> None:
        for name in ("hours", "episode_seconds", "min_episode_seconds", "hang_seconds"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("processes", "seed", "depth_every"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} must not be negative, got {getattr(self, name)}")


Watch = Callable[[DatasetWriter, Outcome | None], None]
"""Called with the dataset when a recording begins, and after each episode with it too."""


def record(config: RecordConfig, watch: Watch = lambda writer, outcome: None) -> int:
    """Record until the dataset at `config.out` has the hours asked for; returns its number of frames.

    Raises WorldError for an unknown game, map or option and for a game that fails again and again, DataError for a
    folder in use or holding something else, and for a full disk.
    """
    job = make_job(config)
    if config.cluster is not None:
        from reverie.data.cluster import check_cluster  # Ray: only when it is asked for

        check_cluster(config.cluster)
    world = job.open()
    try:
        writer = DatasetWriter(
            config.out,
            world.action_space,
            world.resolution,
            FPS,
            pose_names=POSE_NAMES if WorldFacts(world).has_pose else (),
            task=f"explore {config.world}",
            notes=_notes(config, world),
            depth_every=config.depth_every if isinstance(world, HasGeometry) else 0,
        )
        with writer:
            watch(writer, None)
            _check_split(config, writer)
            with contextlib.closing(_outcomes(config, job, world, writer)) as outcomes:
                _fill(writer, config, outcomes, watch)
            return writer.num_frames
    finally:
        world.close()


def make_job(config: RecordConfig) -> Job:
    """Builds the task for the workers.  Raises WorldError for an unknown game or option."""
    info = world_info(config.world)
    options = parse_options(info, config.set) if config.set else {}
    if config.maps:
        options["maps"] = config.maps
    if config.heldout:
        if "heldout" not in options_of(info):
            raise WorldError(f"{config.world} has no held-out levels; leave --heldout out")
        options["heldout"] = True
    frames, least = round(config.episode_seconds * FPS), round(config.min_episode_seconds * FPS)
    return Job(
        info, options, frames, min(least, frames), config.heldout or bool(options.get("heldout")), config.depth_every
    )


def _outcomes(config: RecordConfig, job: Job, world: World, writer: DatasetWriter) -> Generator[Outcome]:
    """Episodes, played on the configured machines; in any order."""
    taken = {row["seed"] for row in (*writer.rows, *writer.rejected)}
    seeds = (seed for seed in itertools.count(config.seed * 1_000_000) if seed not in taken)
    if config.cluster is None and config.processes == 0:
        return _here(Recorder(job, world), seeds, writer.partial)
    world.close()
    if config.cluster is None:
        return _elsewhere(config, job, seeds, writer.partial)
    from reverie.data.cluster import on_cluster

    return on_cluster(config.cluster, job, seeds, max(config.processes, 1))


def _here(recorder: Recorder, seeds: Iterable[int], partial: Path) -> Generator[Outcome]:
    try:
        for seed in seeds:
            yield recorder.episode(seed, partial)
    finally:
        recorder.close()


def _elsewhere(config: RecordConfig, job: Job, seeds: Iterator[int], partial: Path) -> Generator[Outcome]:
    """Outcomes of worker processes; an episode that was lost with its worker is given to another, once."""
    again: list[int] = []
    lost: dict[int, int] = {}
    tasks = (again.pop() if again else next(seeds) for _ in itertools.count())
    with WorkerPool(config.processes, _make_worker, (job, partial), config.hang_seconds) as pool:
        for result in pool.results(tasks):
            if not isinstance(result, TaskFailure):
                yield result
                continue
            seed = result.task
            lost[seed] = lost.get(seed, 0) + 1
            if lost[seed] < MAX_LOST:
                again.append(seed)
            else:
                yield Rejected(seed, f"lost {lost[seed]} times: {result.reason}", is_failure=True)


def _make_worker(job: Job, partial: Path) -> tuple[Callable[[int], Outcome], Callable[[], None]]:
    recorder = Recorder(job)
    return lambda seed: recorder.episode(seed, partial), recorder.close


def _notes(config: RecordConfig, world: World) -> dict[str, Any]:
    described = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    facts = WorldFacts(world)
    about = {"summary": WORLDS[config.world].summary, "fov_deg": None, **facts.camera}
    return {"recorder": described, "world": about, "maps": facts.maps}


def _check_split(config: RecordConfig, writer: DatasetWriter) -> None:
    if any(row.get("heldout", False) != config.heldout for row in writer.rows):
        kinds = ("training", "held-out")
        raise DataError(
            f"{config.out}: holds {kinds[not config.heldout]} episodes, asked for {kinds[config.heldout]} ones;"
            " choose another folder"
        )


def _fill(writer: DatasetWriter, config: RecordConfig, outcomes: Iterator[Outcome], watch: Watch) -> None:
    """Add episodes until there are enough.  Raises WorldError if none is any good, DataError if the disk is full."""
    goal, barren, failures = config.hours * 3600 * FPS, 0, 0
    while writer.num_frames < goal:
        outcome = next(outcomes)
        if isinstance(outcome, DiskFull):
            raise writer.full(outcome.reason)
        if isinstance(outcome, Draft):
            barren = failures = 0
            _add(writer, outcome)
            watch(writer, outcome)
            continue
        barren += 1
        failures = failures + 1 if outcome.is_failure else 0
        writer.reject(seed=outcome.seed, reason=outcome.reason, map=outcome.map, failed=outcome.is_failure)
        watch(writer, outcome)
        _check_hope(config.world, barren, failures, outcome.reason)


def _check_hope(world: str, barren: int, failures: int, reason: str) -> None:
    """Raises WorldError after too many episodes in a row that were no good.  failures: of them, those that failed."""
    if failures >= MAX_FAILURES:
        raise WorldError(f"{world} failed in {failures} episodes in a row; the last: {reason}")
    if barren >= MAX_BARREN_EPISODES:
        raise WorldError(
            f"{barren} episodes of {world} in a row were thrown away, most were stuck; the last: {reason}; choose other"
            " maps"
        )


def _add(writer: DatasetWriter, draft: Draft) -> None:
    video = draft.video
    if isinstance(video, bytes):
        content, video = video, writer.partial / f"{draft.seed}.mp4"
        try:
            video.write_bytes(content)
        except OSError as error:
            raise writer.full(error) from error
    writer.add(video, draft.actions, draft.poses, draft.picture_stats, draft.meta, draft.depth)
