"""Warps frames of a real game by its own depth and poses: shared by the tests of all games."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from reverie.data.geometry_check import Pair, clip_pairs, fit_geometry, warped_db
from reverie.errors import WorldError
from reverie.types import GEOMETRY_SHAPE, Action, Clip, ClipDepth, ExplorableWorld, RecordableWorld

DEPTH_EVERY = 4
PAIRS = 9


def play(world: RecordableWorld, seed: int, act: Callable[[int], Action], num_frames: int, skip: int = 0) -> Clip:
    """A clip with depth of `num_frames` frames, after `skip` others; `act(i)` follows frame i."""
    frame = world.reset(seed)[0]
    for i in range(skip):
        frame = world.step(act(i))[0]
    frames, poses, geometries = [], [], []
    for i in range(num_frames):
        frames.append(frame)
        poses.append(world.pose)
        if i % DEPTH_EVERY == 0:
            geometries.append(world.geometry())
        frame = world.step(act(skip + i))[0]
        assert not world.finished
    depth = ClipDepth(
        np.arange(0, num_frames, DEPTH_EVERY),
        np.stack([one.depth for one in geometries]),
        np.stack([one.body for one in geometries]),
    )
    return Clip(np.stack(frames), np.zeros((num_frames, 1), np.float32), 25, np.stack(poses), depth)


def pairs_of(clip: Clip) -> list[Pair]:
    return list(clip_pairs(clip, np.random.default_rng(0), PAIRS))


def with_poses(clip: Clip, **changes: float) -> Clip:
    """The clip as another convention would have it: yaw_deg added, or signs of pitch and roll changed, or late rows."""
    assert clip.poses is not None
    poses = np.roll(clip.poses, int(changes.get("late", 0)), axis=0)
    poses[:, 3] = (poses[:, 3] + changes.get("yaw_deg", 0.0)) % 360.0
    poses[:, 4] *= changes.get("pitch", 1.0)
    poses[:, 5] *= changes.get("roll", 1.0)
    return replace(clip, poses=poses)


def check(world: RecordableWorld, clip: Clip, *, gain_db: float, timing: bool = False, pitch: bool = True) -> None:
    """The clip's warps beat the still frame by `gain_db`, and those by wrong settings.

    timing: the camera moves unevenly enough that a pose of another frame shows.  pitch: it is not always level.
    """
    assert isinstance(world, RecordableWorld)
    assert clip.poses is not None
    assert clip.poses.shape == (len(clip.frames), 6)
    assert clip.poses.dtype == np.float32
    assert clip.depth is not None
    assert clip.depth.depth.dtype == np.float32
    assert clip.depth.body.dtype == np.bool_
    assert clip.depth.depth.shape[1:] == GEOMETRY_SHAPE
    assert (clip.depth.depth > 0).all()
    right = fit_geometry(pairs_of(clip), world.fov_deg, world.pixel_aspect)
    assert right is not None, "the clip must show some motion"
    assert right.fits, right
    assert right.warped_db > right.still_db + gain_db, right
    wrong = {"yaw from another direction": (with_poses(clip, yaw_deg=-90.0), 2.0)}
    if pitch:
        wrong["pitch downwards"] = with_poses(clip, pitch=-1.0), 2.0
    if timing:
        wrong["poses a frame late"] = with_poses(clip, late=1.0), 0.5
        wrong["poses a frame early"] = with_poses(clip, late=-1.0), 0.5
    for name, (other, loss_db) in wrong.items():
        found = warped_db(pairs_of(other), world.fov_deg, world.pixel_aspect)
        assert found < right.warped_db - loss_db, (name, found, right)


def look_about(*keys: str, seed: int = 0, turn_deg: float = 4.0, pitch_deg: float = 1.5) -> Callable[[int], Action]:
    """Actions of somebody who holds `keys` and turns the camera unevenly, never far from straight ahead."""
    rng = np.random.default_rng(seed)
    goals = rng.uniform(-1, 1, (1000, 2)) * (2 * pitch_deg, turn_deg * 2)
    turns = np.diff(goals, axis=0)
    return lambda i: Action(frozenset(keys), (float(turns[i, 0]), float(turns[i, 1])))


def look_check(world: RecordableWorld, seed: int, gain_db: float) -> None:
    """`look_from` shows what play shows, from wherever it is asked to; and the next episode is as it always was."""
    assert isinstance(world, ExplorableWorld)
    first = world.reset(seed)
    pose, geometry = world.pose, world.geometry()
    frame, seen = world.look_from(pose)
    np.testing.assert_array_equal(world.pose, pose)
    assert frame.shape == first.shape
    assert not seen.body.any()
    depths = [np.minimum(one.depth, 200.0)[~geometry.body] for one in (seen, geometry)]
    assert np.median(np.abs(np.log(depths[0] / depths[1]))) < 0.01
    away = np.radians(pose[3])
    pairs = []
    for step_m, turn_deg in ((1.5, 8.0), (1.2, -8.0), (0.8, 4.0), (-1.0, -5.0), (-1.5, 6.0), (1.0, -3.0)):
        other = pose + np.array([step_m * np.sin(away), step_m * np.cos(away), 0.2, turn_deg, -3.0, 4.0], np.float32)
        image, depth = world.look_from(other)
        np.testing.assert_allclose(world.pose, other, atol=1e-3)
        poses = (np.repeat(one[None], 3, axis=0) for one in (other, pose))
        pairs.append(Pair(image[0], frame[0], depth.depth, depth.body, seen.body, *poses))
    found = fit_geometry(pairs, world.fov_deg, world.pixel_aspect)
    assert found is not None
    assert found.warped_db > found.still_db + gain_db, found
    with pytest.raises(WorldError, match="call reset"):
        world.step(Action())
    np.testing.assert_array_equal(world.reset(seed), first)
    with pytest.raises(WorldError, match="a pose is six finite numbers"):
        world.look_from(np.zeros(5, np.float32))
    with pytest.raises(WorldError, match="standpoints need a positive step and a reach, got 0 and 5 m"):
        world.standpoints(0.0, 5.0)
