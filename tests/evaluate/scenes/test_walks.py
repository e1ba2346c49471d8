"""Walks that a scene is measured on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.yard_walks import SIZE, poses_of, record_walks

from reverie.data.dataset import Dataset
from reverie.engine.engine import Engine
from reverie.errors import DataError
from reverie.evaluate.action_mapping import match_actions
from reverie.evaluate.scenes.batch import shrink
from reverie.evaluate.scenes.walks import Place, pick_place
from reverie.scenes.scene import Scene


def test_walks_start_at_the_first_frame_of_held_out_episodes(place: Place, walks: Path) -> None:
    assert [walk.label for walk in place.walks] == ["episode 3", "episode 8"]
    dataset = Dataset(walks)
    assert np.array_equal(place.walks[1].poses, poses_of(dataset, 8)[:101])
    assert len(place.real) == 11, "the other episodes say what the game looks like"


def test_the_nearest_recorded_views_are_of_the_half_that_was_asked(place: Place) -> None:
    library = place.library
    pose = library.poses[(library.episode == 5) & (library.frame == 40)]
    exact = shrink(library.dataset.clip(5, 40, 1, depth=False).frames)
    assert np.array_equal(library.nearest(pose, 1), exact)
    assert not np.array_equal(library.nearest(pose, 0), exact)
    alone = library.episode == 5
    one = dataclasses.replace(
        library, poses=library.poses[alone], episode=library.episode[alone], frame=library.frame[alone]
    )
    assert np.array_equal(one.nearest(pose, 0), exact), "of one episode the halves follow each other"
    assert not np.array_equal(one.nearest(pose, 1), exact)


def pick(engine: Engine, dataset: Path, scene: Path) -> Place:
    opened = Dataset(dataset)
    mapping = match_actions(engine.action_space, opened.action_space)
    return pick_place("yard", opened, engine.load_scene(scene), engine, mapping, None, SIZE, 0)


def test_recordings_without_poses_are_refused(engine: Engine, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no camera poses"):
        pick(engine, record_walks(tmp_path / "blind", (0,), poses=False, episodes=1), scene)


def test_a_scene_of_another_place_or_camera_is_refused(
    engine: Engine, walks: Path, scene: Path, tmp_path: Path
) -> None:
    yard = Scene.load(scene)
    away = yard.pose + np.array([500, 0, 0, 0, 0, 0], np.float32)
    depth = np.full_like(yard.depth, 2.0)
    dataclasses.replace(yard, pose=away, depth=depth).save(tmp_path / "away")
    with pytest.raises(DataError, match=r"covers \d+% of the best held-out start .*, expected 50% or more"):
        pick(engine, walks, tmp_path / "away")
    dataclasses.replace(yard, fov_deg=60.0).save(tmp_path / "narrow")
    with pytest.raises(DataError, match=r"its camera sees 80 degrees .*, that of the scene narrow 60"):
        pick(engine, walks, tmp_path / "narrow")


def test_a_scene_made_of_the_held_out_walks_is_refused(
    engine: Engine, walks: Path, scene: Path, tmp_path: Path
) -> None:
    yard, dataset = Scene.load(scene), Dataset(walks)
    pose = yard.pose.copy()
    pose[0] = poses_of(dataset, 3)[50]
    dataclasses.replace(yard, pose=pose).save(tmp_path / "one")
    found = pick(engine, walks, tmp_path / "one")
    assert [walk.label for walk in found.walks] == ["episode 8"]
    assert "1 held-out episodes have frames in the scene" in " ".join(found.notes)
    pose[1] = poses_of(dataset, 8)[10]
    dataclasses.replace(yard, pose=pose).save(tmp_path / "both")
    with pytest.raises(DataError, match="was built from every held-out episode"):
        pick(engine, walks, tmp_path / "both")
