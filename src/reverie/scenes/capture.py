"""Scenes from games that can be looked at from anywhere: a grid of standpoints, until nothing new is visible; or what
recordings of the game do not show, looked at from where they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from reverie.errors import DataError
from reverie.scenes.assemble import (
    Facts,
    Report,
    Stack,
    check_counts,
    make_keyframes,
    make_scene,
    name_starts,
    place_starts,
    too_near,
)
from reverie.scenes.keyframes import Keyframes
from reverie.scenes.scene import Scene, Start
from reverie.scenes.scene_keyframes import Coverage, measure_coverage, render_from
from reverie.scenes.view_sources import DISTANCE_SCALE
from reverie.types import Action, ExplorableWorld, Frames, Geometry, RecordableWorld

YAW_STEP_DEG = 60.0
VIEWS = tuple((YAW_STEP_DEG * (i + 0.5 * k), pitch) for k, pitch in enumerate((0.0, 35.0)) for i in range(6))
"""Yaw and pitch of the views from a standpoint: six level, six looking up."""
LOOK_UP_DEG = 20.0
"""Recordings whose players looked up by more than this are looked round at upwards as well."""
LOOK_BELOW = 0.85
"""A view of which recordings show at least this share is not looked at again."""
ROUND = 12
"""Standpoints between two measurements of coverage."""
PROBES = 32
"""Views that a capture is measured by; they are not keyframes."""
MIN_GROWTH = 0.004
"""A capture ends when coverage grew by less in each of the last `PATIENCE` rounds."""
PATIENCE = 2
NEAR_M, NEAR_SHARE = 0.35, 0.3
"""A view is inside something if more than this share of it is nearer than this."""
PLAYED_FRAMES, TURNING_FRAMES = 30, 20
"""Frames of play between two starts in games that show the player, and how many of them may be spent on a turn."""
TRIES_PER_START = 4
MIN_START_COVER = 0.75
"""The share of its view that the scene covers at a start."""


class CapturableWorld(RecordableWorld, ExplorableWorld, Protocol):
    """A game with a camera that can be carried anywhere."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A captured scene, what it covers of views between its standpoints, and coverage after each round.

    standpoints: that were visited, of how many.
    """

    scene: Scene
    coverage: Coverage
    growth: tuple[float, ...]
    standpoints: tuple[int, int]


def require_explorable(world: object, name: str) -> CapturableWorld:
    """The world as one that can be captured.  Raises DataError for one that cannot."""
    if not (isinstance(world, ExplorableWorld) and isinstance(world, RecordableWorld)):
        raise DataError(
            f"{name} cannot be looked at from anywhere, so it is not captured; record it and use `reverie scene build`"
        )
    return cast(CapturableWorld, world)


def capture_scene(
    world: CapturableWorld,
    facts: Facts,
    *,
    step_m: float,
    reach_m: float,
    keyframes: int,
    starts: int,
    seed: int,
    report: Report | None = None,
) -> Captured:
    """Captures the place of the episode `seed`.

    step_m: between standpoints; reach_m: how far they go from the player in both directions; keyframes: the most that
    are kept.  Raises DataError where there is nowhere to stand.
    """
    check_counts(keyframes, starts)
    tell = report or (lambda share, text: None)
    world.reset(seed)
    body = bool(world.geometry().body.any())
    places = _coarse_to_fine(world.standpoints(step_m, reach_m))
    if not len(places):
        raise DataError(
            f"{facts.game} has no standpoints {step_m:g} m apart within {reach_m:g} m of seed {seed}; "
            "take another seed or a longer --reach"
        )
    rng = np.random.default_rng(seed)
    probes = make_keyframes(*_look_between(world, places, step_m, rng), facts.focal)
    shown, growth, visited = _visit(world, facts, places, max(1, keyframes // len(VIEWS)), probes, tell)
    if shown is None:
        raise DataError(f"{facts.game}: every standpoint is inside something; take another seed or --step")
    tell(1.0, "placing starts")
    level = shown.select(torch.nonzero(shown.pose[:, 4].abs() < 10)[:, 0])
    begins = _play_starts(world, facts, shown, seed, starts) if body else place_starts(facts, shown, level, starts)
    shares = tuple(coverage.cover for coverage in growth)
    return Captured(make_scene(facts, shown, begins), growth[-1], shares, (visited, len(places)))


def _visit(
    world: CapturableWorld, facts: Facts, places: np.ndarray, most: int, probes: Keyframes, tell: Report
) -> tuple[Keyframes | None, list[Coverage], int]:
    """Looks round at one place after another, `most` of them, until the coverage of `probes` has settled.

    Returns the keyframes, None where every place is inside something; the coverage after each round; and the number of
    places visited.
    """
    shown: Keyframes | None = None
    growth: list[Coverage] = []
    visited, end = 0, min(len(places), most)
    while visited < end and not _has_settled([coverage.cover for coverage in growth]):
        covered = growth[-1].cover if growth else 0.0
        tell(visited / end, f"{visited} of {len(places)} standpoints, {covered:.0%} covered")
        batch = places[visited : min(visited + ROUND, end)]
        visited += len(batch)
        views = _stack([look for place in batch if (look := _look_round(world, place)) is not None])
        if views is None:
            continue
        found = make_keyframes(*views, facts.focal)
        shown = found if shown is None else Keyframes.join([shown, found])
        growth.append(measure_coverage(shown, probes, facts.focal))
    return shown, growth, visited


def look_round(
    world: CapturableWorld,
    facts: Facts,
    recorded: Keyframes,
    shown: Keyframes,
    most: int,
    report: Report | None = None,
) -> Keyframes:
    """Keyframes looked at again without what moves, and views in directions that recordings do not show.

    recorded: frames whose places are visited, the episode's place being theirs; shown: keyframes chosen among them;
    most: keyframes to add.  A view is taken if all keyframes so far cover less than `LOOK_BELOW` of it.  Views are at
    the usual pitch, and up where players looked up.  Returns `shown` without players and traffic, and those added.
    """
    tell = report or (lambda share, text: None)
    shown = _look_again(world, facts, shown)
    level, high = recorded.pose[:, 4].quantile(torch.tensor([0.5, 0.98])).tolist()
    pitches = [level, high] if high - level > LOOK_UP_DEG else [level]
    views = [(YAW_STEP_DEG * (i + 0.5 * k), pitch) for k, pitch in enumerate(pitches) for i in range(6)]
    spacing = DISTANCE_SCALE * float(recorded.reach.nanmedian().nan_to_num(1.0))
    places = _coarse_to_fine(recorded.pose[:, :3].numpy(), spacing)
    known, before = shown, len(shown)
    for number, place in enumerate(places):
        tell(number / len(places), f"{number} of {len(places)} places looked round at")
        looks = _look_round(world, place, views)
        if looks is None:
            continue
        seen = make_keyframes(*looks, facts.focal)
        cover = torch.stack([render_from(known, one[None], facts.focal).cover.mean() for one in seen.pose])
        fresh = torch.nonzero(cover < LOOK_BELOW)[: most - (len(known) - before), 0]
        known = Keyframes.join([known, seen.select(fresh)])
        if len(known) - before == most:
            break
    return known


def _look_again(world: CapturableWorld, facts: Facts, recorded: Keyframes) -> Keyframes:
    """The same keyframes without players and traffic; as recorded where the camera is inside something now."""
    looks = [_look(world, pose) for pose in recorded.pose.numpy()]
    seen = _stack_looks(looks)
    if seen is None:
        return recorded
    again = make_keyframes(*seen, facts.focal)
    inside = torch.tensor([_is_inside(look[1]) for look in looks])
    return Keyframes.join([again.select(~inside), recorded.select(inside)])


def _has_settled(growth: list[float]) -> bool:
    """Returns whether the last rounds added nothing."""
    recent = growth[-PATIENCE - 1 :]
    return len(recent) > PATIENCE and all(b - a < MIN_GROWTH for a, b in pairwise(recent))


def _coarse_to_fine(places: npt.NDArray[np.float32], spacing: float = 0.0) -> npt.NDArray[np.float32]:
    """Places in an order in which each is far from all before it, at least `spacing`, from the middle on."""
    if not len(places):
        return places
    order = [int(np.linalg.norm(places - places.mean(0), axis=1).argmin())]
    distance = np.linalg.norm(places - places[order[0]], axis=1)
    while len(order) < len(places):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(places - places[order[-1]], axis=1))
        distance[order] = -1
        if distance.max() < spacing:
            break
    return places[order]


def _look(world: CapturableWorld, pose: npt.NDArray[np.float32]) -> tuple[Frames, Geometry, npt.NDArray[np.float32]]:
    """The frame (H, W, 3), its geometry, and the pose that it was taken from."""
    frames, geometry = world.look_from(pose)
    return frames[0], geometry, np.array(world.pose, np.float32)


def _is_inside(geometry: Geometry) -> bool:
    return float((geometry.depth < NEAR_M).mean()) > NEAR_SHARE


def _look_round(
    world: CapturableWorld, place: npt.NDArray[np.float32], views: Sequence[tuple[float, float]] = VIEWS
) -> Stack | None:
    """The views from a standpoint; None where the camera is inside something."""
    looks = [_look(world, np.array([*place, yaw, pitch, 0.0], np.float32)) for yaw, pitch in views]
    return _stack_looks([look for look in looks if not _is_inside(look[1])])


def _look_between(
    world: CapturableWorld, places: npt.NDArray[np.float32], step_m: float, rng: np.random.Generator
) -> Stack:
    """Views from random places between the standpoints, in random directions."""
    looks: list[Any] = []
    for _ in range(4 * PROBES):
        place = places[rng.integers(len(places))] + [*rng.uniform(-0.45, 0.45, 2) * step_m, 0.0]
        look = _look(world, np.array([*place, rng.uniform(0, 360), rng.uniform(-8, 12), 0.0], np.float32))
        if not _is_inside(look[1]):
            looks.append(look)
        if len(looks) == PROBES:
            break
    found = _stack_looks(looks)
    if found is None:
        raise DataError("every view between the standpoints is inside something; take another seed or --step")
    return found


def _stack_looks(looks: list[Any]) -> Stack | None:
    if not looks:
        return None
    frames, geometries, poses = zip(*looks, strict=True)
    return (
        np.stack(frames),
        np.stack([one.depth for one in geometries]),
        np.stack([one.body for one in geometries]),
        np.stack(poses),
    )


def _stack(parts: list[Stack]) -> Stack | None:
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True)) if parts else None  # type: ignore[return-value]


def _play_starts(world: CapturableWorld, facts: Facts, scene: Keyframes, seed: int, count: int) -> tuple[Start, ...]:
    """Starts with the player in the frame: the episode's first frame, and frames of going on from there.

    The player goes straight on, and turns where it comes to stand or leaves what the scene covers.
    """
    frame = world.reset(seed)[-1]
    found = [(frame, np.array(world.pose, np.float32))]
    ahead = frozenset({"forward"} & set(world.action_space.keys))
    turn_deg = 0.0
    for _ in range(TRIES_PER_START * count):
        if len(found) == count:
            break
        for i in range(PLAYED_FRAMES):
            turning = turn_deg if i < TURNING_FRAMES else 0.0
            frame = world.step(Action(ahead, mouse=(0.0, turning)))[-1]
            if world.finished:
                return name_starts(found, facts.title)
        pose = np.array(world.pose, np.float32)
        if min(np.linalg.norm(pose[:3] - other[:3]) for _, other in found) >= 1.0 and _is_start(world, facts, scene):
            found.append((frame, pose))
            turn_deg = 0.0
        elif not world.action_space.mouse:
            continue  # it cannot turn; perhaps it is stopped for a moment only
        else:
            turn_deg = 130.0 / TURNING_FRAMES
    return name_starts(found, facts.title)


def _is_start(world: CapturableWorld, facts: Facts, scene: Keyframes) -> bool:
    """Returns whether the world's frame can be a start: the player is in it, and the scene covers the view."""
    geometry = world.geometry()
    usual = float(scene.reach.nanmedian().nan_to_num(1.0))
    if not geometry.body.any() or too_near(torch.from_numpy(geometry.depth)[None], usual)[0] > NEAR_SHARE:
        return False
    pose = torch.from_numpy(np.array(world.pose, np.float32))[None]
    return float(render_from(scene, pose, facts.focal).cover.mean()) >= MIN_START_COVER
