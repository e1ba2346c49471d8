"""Complete plans for a budget of compute: sizes, batch, learning rate, and the time of every stage.

    recipe_named("cpu-12h")     recipe_named("gpu-10min")     cpu_hours(12)     gpu_minutes(10, memory_gib=80)

Measured for nano on one H200, batch 64 clips of 13 steps, two noisy copies, bfloat16, compiled: 9.4 updates a second
(405k tokens a second, 75 TFLOP/s, 9 % of the device), with the discriminator 6.7; 44,761 steps decoded and encoded in
30 s by 14 threads; depth 2,644 updates in 37 s, ego-motion 4,544 in 22 s; three sets of views of these steps in 20 s;
compiling 43 s, with a warm cache 10 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from reverie.errors import TrainError
from reverie.train.spatial.task import SpatialPlan
from reverie.types import FPS

GAMES = ("vizdoom", "city", "temple")
"""Games that are recorded where no data is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPlan:
    """Recording on this machine.

    seconds: after which no further place is begun (one of each game is always recorded); episodes: of a place, every
    eighth of which is held out; episode_seconds: of play; places: of a game, at most.
    """

    seconds: float
    episodes: int = 9
    episode_seconds: float = 30.0
    places: int = 24

    @property
    def place_frames(self) -> int:
        """Frames of a place."""
        return round(self.episodes * self.episode_seconds * FPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A plan for all stages.

    preset: sizes; seconds: of all stages; steps: of training, instead of what the other stages leave of the seconds;
    lr: the highest learning rate; ema: of the averaged weights; depth_seconds, ego_seconds: of the geometry networks;
    recording: where no data is given; tail_seconds: kept for sheets and export; keyframes: of a place's scene while
    training; limit, held_limit: episodes of each pack, to train on and held out; max_frames: of an episode; threads:
    that decode; sheet_steps: length of the contact sheets' rollouts, 0 for none; decode: whether sessions' own frames
    are taken through the decoder; half_known: whether half-known scenes are trained; keep_latents: whether what is
    encoded is kept on disk for a resume; export_minutes: between exports of the averaged weights; cores, memory_gib,
    gpu_memory_gib: that the machine must have at least, beside the memory for the data.
    """

    preset: str
    seconds: float
    depth_seconds: float
    ego_seconds: float
    tail_seconds: float
    keyframes: int
    plan: SpatialPlan
    recording: RecordingPlan
    steps: int | None = None
    lr: float = 1.5e-3
    ema: float = 0.998
    limit: int | None = None
    max_frames: int | None = None
    threads: int = 2
    sheet_steps: int = 100
    decode: bool = True
    half_known: bool = True
    held_limit: int | None = None
    keep_latents: bool = False
    export_minutes: float = 2.0
    cores: int = 1
    memory_gib: float = 1.0
    gpu_memory_gib: float = 0.0


def gpu_minutes(minutes: float, memory_gib: float = 80.0, cores: int = 16) -> Recipe:
    """One short visit to a GPU: an eighth for geometry, most for training, the rest for sheets and export.

    memory_gib: of the GPU; the batch fits it (64 clips were run on 80 GiB and more, the smaller batches on none yet).
    cores: two of which are left alone while recordings are decoded.
    """
    seconds = 60 * minutes
    batch = 64 if memory_gib >= 40 else 32 if memory_gib >= 20 else 16
    return Recipe(
        preset="nano",
        seconds=seconds,
        depth_seconds=min(45.0, 0.09 * seconds),
        ego_seconds=min(20.0, 0.05 * seconds),
        tail_seconds=min(60.0, 0.125 * seconds),
        keyframes=450,
        plan=SpatialPlan(batch=batch, own_sessions=2 * batch),
        recording=RecordingPlan(seconds=0.3 * seconds, episodes=16, episode_seconds=12.0),
        threads=max(2, cores - 2),
        cores=4,
        memory_gib=4.0,
        gpu_memory_gib=10.0,
    )


def gpu_refining_minutes(minutes: float, memory_gib: float = 80.0, cores: int = 16) -> Recipe:
    """A shorter visit that goes on from a model: own rollouts and the discriminator from the beginning."""
    recipe = gpu_minutes(minutes, memory_gib, cores)
    plan = replace(
        recipe.plan,
        own_from=0.02,
        own_share=0.55,
        own_sessions=96,
        own_steps=40,
        own_times=5,
        adversarial_from=0.0,
        adversarial_full=0.2,
    )
    return replace(recipe, plan=plan, depth_seconds=0, ego_seconds=0, lr=8e-4, ema=0.996)


def cpu_hours(hours: float, cores: int = 2) -> Recipe:
    """For one pass on some cores: small batches, one noisy copy, mostly pure noise, from 4 hours on more episodes."""
    seconds = 3600 * hours
    limit = 9 if hours < 4 else 27
    return Recipe(
        preset="nano",
        seconds=seconds,
        depth_seconds=min(1200.0, 0.1 * seconds, 300 + 0.02 * seconds),
        ego_seconds=min(480.0, 0.04 * seconds, 120 + 0.008 * seconds),
        tail_seconds=20.0,
        keyframes=450,
        plan=SpatialPlan(
            batch=3, copies=1, pure_noise=0.9, clip_steps=9, own_share=0.0, own_from=2.0, adversarial_from=2.0
        ),
        recording=RecordingPlan(seconds=0.1 * seconds, places=1 + limit // 8),
        lr=1.0e-3,
        threads=cores,
        limit=limit,
        held_limit=1,
        sheet_steps=0,
        decode=False,
        half_known=False,
        keep_latents=True,
        export_minutes=4.0,
        memory_gib=2.0,
    )


def cpu_refining_hours(hours: float, cores: int = 2) -> Recipe:
    """Some hours more on some cores, from a model: `gpu_refining_minutes` in small batches, with a small rate."""
    recipe = gpu_refining_minutes(60 * hours, cores=cores)
    plan = replace(
        recipe.plan, batch=4, own_sessions=8, own_times=max(6, round(10 * hours)), own_kept=6, judged_steps=6
    )
    return replace(
        cpu_hours(hours, cores),
        plan=plan,
        depth_seconds=0,
        ego_seconds=0,
        lr=2e-4,
        ema=0.998,
        decode=True,
        half_known=True,
        held_limit=2,
    )


def rehearsal(minutes: float) -> Recipe:
    """`gpu_minutes` at toy size on a CPU: every line of it runs."""
    return replace(
        gpu_minutes(minutes, cores=4),
        depth_seconds=5,
        ego_seconds=3,
        tail_seconds=20,
        keyframes=40,
        plan=_small_plan(clip_steps=5, own_steps=6),
        limit=2,
        max_frames=61,
        sheet_steps=6,
        cores=1,
        memory_gib=1.0,
        gpu_memory_gib=0.0,
    )


def tiny() -> Recipe:
    """Every stage at the size of tests, with a budget of steps, so that a slow machine does as much as a fast one."""
    return replace(
        rehearsal(60),
        preset="tiny-memory",
        steps=60,
        depth_seconds=1.0,
        ego_seconds=1.0,
        keyframes=12,
        plan=_small_plan(clip_steps=4, own_steps=6),
        recording=RecordingPlan(seconds=1.0, episodes=8, episode_seconds=2.0, places=1),
        limit=None,
        sheet_steps=5,
        keep_latents=True,
        export_minutes=0.02,
    )


def _small_plan(clip_steps: int, own_steps: int) -> SpatialPlan:
    return SpatialPlan(
        batch=2,
        clip_steps=clip_steps,
        own_sessions=2,
        own_steps=own_steps,
        own_times=2,
        own_from=0.1,
        own_share=0.9,
        shortcut_from=0.05,
        adversarial_from=0.5,
        adversarial_full=0.6,
    )


def recipe_named(name: str, memory_gib: float = 80.0, cores: int = 2, refine: bool = False) -> Recipe:
    """The recipe of a name such as `cpu-12h` or `gpu-10min`; `tiny` is for tests.

    memory_gib: of the GPU; cores: of the machine; refine: to go on from a model.
    Raises TrainError for another name.
    """
    if name == "tiny":
        return tiny()
    found = re.fullmatch(r"(cpu|gpu)-(\d+(?:\.\d+)?)(h|min)", name)
    if found is None or not float(found[2]):
        raise TrainError(f"unknown recipe {name!r}; expected cpu-12h, gpu-10min, or the same with another time")
    minutes = float(found[2]) * (60 if found[3] == "h" else 1)
    if found[1] == "gpu":
        return (gpu_refining_minutes if refine else gpu_minutes)(minutes, memory_gib, cores)
    return (cpu_refining_hours if refine else cpu_hours)(minutes / 60, cores)


def changed_plan(plan: SpatialPlan, settings: list[str]) -> SpatialPlan:
    """The plan with some of its numbers changed, as `batch=32`.  Raises TrainError for what it does not have."""
    numbers: dict[str, Callable[[str], Any]] = {
        f.name: type(getattr(plan, f.name)) for f in fields(plan) if f.name != "schedule"
    }
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            changes[name] = numbers[name](text)
        except (KeyError, ValueError):
            known = ", ".join(numbers)
            raise TrainError(f"--plan takes NAME=NUMBER, got {setting!r}; the plan has {known}") from None
        if not equals:
            raise TrainError(f"--plan takes NAME=NUMBER, got {setting!r}")
    return replace(plan, **changes)
