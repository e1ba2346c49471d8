"""Recorded walks through the yard, of training and of held-out episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.helpers.yard_scene import YardWorld

from reverie.data.dataset import Dataset
from reverie.data.depth import DepthRecord
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.evaluate.scenes.walks import SceneSize
from reverie.types import POSE_NAMES, Action, ActionSpace
from reverie.worlds.yard import FOV_DEG

RESOLUTION = (64, 112)

KEYS = ("forward", "back", "left", "right")

WALKS = 105
"""Frames of a walk: a little more than the shortest that is taken."""


def record_walks(root: Path, heldout: tuple[int, ...], poses: bool = True, episodes: int = 13) -> Path:
    """Walks through the yard that turn now and then."""
    world, space = YardWorld(), ActionSpace(KEYS)
    notes = {"world": "yard", "fov_deg": FOV_DEG, "pixel_aspect": 1.0}
    options = {"pose_names": POSE_NAMES if poses else (), "notes": notes, "depth_every": 4}
    with DatasetWriter(root, space, RESOLUTION, 25, **options) as writer:
        for seed in range(episodes):
            rng = np.random.default_rng(seed)
            shown, actions, cameras, depth = [world.reset(seed)[0]], [], [], []
            for i in range(WALKS):
                yaw = 4.0 * ((i // 20 + seed) % 3 - 1)
                actions.append(Action(frozenset({KEYS[int(rng.integers(2))]}), mouse=(0.0, yaw)))
                cameras.append(world.pose)
                if i % 4 == 0:
                    depth.append(DepthRecord.of(i, world.geometry()))
                shown.append(world.step(actions[-1])[0])
            frames = np.stack(shown[:-1])
            video = writer.partial / f"{seed}.mp4"
            write_video(video, frames, 25)
            meta = {"seed": seed, "map": "yard", "heldout": seed in heldout}
            rows = np.stack(cameras) if poses else None
            writer.add(video, space.encode(actions), rows, picture_statistics(frames), meta, depth)
    return root


def poses_of(dataset: Dataset, episode: int) -> np.ndarray:
    poses = dataset.poses(episode)
    assert poses is not None
    return poses


SIZE = SceneSize(walks=2, turns=3, returns=1, out_s=1, plays=2, play_s=6, real=12, speed_s=0)
