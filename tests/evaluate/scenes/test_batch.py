"""Sessions of an evaluation that are played as one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.helpers.yard_walks import RESOLUTION, SIZE

from reverie.engine.engine import Engine
from reverie.evaluate.display import Silent
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.model_under_test import ModelUnderTest
from reverie.evaluate.scenes import tables, units
from reverie.evaluate.scenes.batch import Batch, shrink
from reverie.evaluate.scenes.walks import Place, Walk
from reverie.evaluate.store import Store
from reverie.scenes.scene import Scene
from reverie.types import Action


@pytest.mark.parametrize("in_scene", [True, False])
def test_a_batch_of_one_is_a_session_to_a_rounding(engine: Engine, place: Place, scene: Path, in_scene: bool) -> None:
    loaded = Scene.load(scene)
    start = loaded.start(1)
    session = engine.open(scene=loaded, start=1, seed=5) if in_scene else engine.open(start.image, seed=5)
    there = {"scene": place.scene, "poses": start.pose[None]} if in_scene else {}
    batch = Batch(engine, start.image[None], 5, **there)
    actions = [Action(frozenset({"forward"}), (0.0, 2.0))] * 8 + [Action(frozenset({"left"}))] * 4
    played = batch.play([actions])
    assert np.array_equal(played.frames[0, :1], session.first_frame)
    own = np.concatenate([session.step(actions[i : i + 4]) for i in range(0, 12, 4)])
    assert np.abs(played.frames[0, 1:].astype(int) - own).max() <= 1
    assert session.camera is not None
    assert np.array_equal(played.poses[0, -1], session.camera)


def open_batch(engine: Engine, place: Place, walks: list[Walk], row: str) -> Batch:
    model = ModelUnderTest(engine.name, engine.fingerprint, engine)
    store, folder, display = Store.__new__(Store), Path(), Silent()
    experiment = Experiment(name="yard", model=model, store=store, folder=folder, display=display)
    return units.SceneExperiment(experiment, place, SIZE).open(walks, row)


def test_a_led_camera_goes_where_it_is_led(engine: Engine, place: Place) -> None:
    walk = place.walks[0]
    batch = open_batch(engine, place, [walk], units.LED)
    played = batch.play([place.mapping.map_rows(walk.clip.actions[:10])], walk.poses[None, 1:11])
    assert played.frames.shape == (1, 11, *RESOLUTION, 3)
    assert np.array_equal(played.poses[0], walk.poses[:11])


def test_the_memory_alone_shows_the_scene_and_nothing_else(engine: Engine, place: Place) -> None:
    """Where a keyframe was taken the view is that keyframe, however long one has walked before."""
    scene = place.scene.scene
    batch = open_batch(engine, place, place.walks[:1], units.MEMORY)
    path = np.repeat(scene.pose[None, [3, 7]], 4, 1)
    frames = batch.play([[Action()] * 8], path, first=False).frames[0]
    for shown, keyframe in ((frames[3], scene.colour[3]), (frames[7], scene.colour[7])):
        error = np.square(shown.astype(np.float32) - shrink(keyframe[None])[0]).mean()
        assert tables.decibel(error) > 30
