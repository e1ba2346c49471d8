"""A game with a model: dreams open at the game's camera, in the scene that its frame lies in or on the frame alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.scenes.yard import YardWorld, save_yard_scene
from tests.serve.test_scenes import KEYS, save

from reverie import worlds
from reverie.engine.engine import Engine, load
from reverie.engine.loading import scenes
from reverie.engine.loading.scenes import Camera
from reverie.engine.localise import compare_view
from reverie.engine.sessions.session_file import describe_session
from reverie.errors import DataError, ImageError, WorldError
from reverie.models.presets import tiny_memory
from reverie.serve.protocol import VIEWS
from reverie.serve.sources import GameSource, ModelSource
from reverie.serve.swap import Moment, SwapWorld
from reverie.serve.swap_source import SwapSource
from reverie.types import Action, ActionSpace, Pose


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(save(tmp_path_factory.mktemp("models") / "tiny-memory", tiny_memory()), device="cpu", dtype="float32")


@pytest.fixture
def source(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> SwapSource:
    """The yard as a game, with a bundled scene of it."""
    monkeypatch.setattr(scenes, "BUNDLED", tmp_path / "bundled")
    save_yard_scene(tmp_path / "bundled/alley", engine.resolution, KEYS, "An alley")
    save_yard_scene(tmp_path / "bundled/foreign", (48, 80), KEYS, "Another size")
    monkeypatch.setattr(Yard, "resolution", engine.resolution)
    monkeypatch.setattr(Yard, "action_space", ActionSpace(KEYS))
    monkeypatch.setitem(worlds.WORLDS, "yard", worlds.WorldInfo("yard", "a yard", Yard))
    return SwapSource(GameSource("yard"), ModelSource(engine))


class Yard(YardWorld):
    """The yard at the model's size."""

    def reset(self, seed: int) -> np.ndarray:
        return self._sized(super().reset(seed))

    def step(self, action: Action) -> np.ndarray:
        return self._sized(super().step(Action(mouse=action.mouse)))

    def _sized(self, frames: np.ndarray) -> np.ndarray:
        return scenes_image(frames[0], self.resolution)[None]


def scenes_image(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from reverie.engine.media.images import load_image

    return load_image(frame, size)


def at(pose: Pose, engine: Engine) -> Moment:
    world = YardWorld()
    world.reset(0)
    return Moment(scenes_image(world.look_from(pose)[0][0], engine.resolution), pose)


def here(x: float, yaw: float = 0.0) -> Pose:
    return np.array([x, -3, 1.6, yaw, 0, 0], np.float32)


def test_the_dream_opens_in_the_scene_that_the_game_s_frame_lies_in(source: SwapSource, engine: Engine) -> None:
    spec = source.load(lambda share, text: None)
    assert (spec.kind, spec.views, spec.block_frames) == ("game", VIEWS, engine.block_frames)
    world = source.open(None, 5)
    assert isinstance(world, SwapWorld)
    world.reset(5)
    dream, first = source.open_dream(at(here(-2.0), engine), 0)
    assert first.shape == (1, *engine.resolution, 3)
    assert dream.scene.startswith("alley/")  # type: ignore[attr-defined]
    assert dream.camera is not None
    np.testing.assert_allclose(dream.camera, here(-2.0), atol=1e-5)
    with pytest.raises(DataError, match="camera of its own has no file"):
        describe_session(dream, None, first)  # type: ignore[arg-type]
    assert dream.step(Action()).shape[0] == engine.block_frames
    dream.close()
    far = Moment(at(here(-2.0), engine).frame, here(500.0))
    dream, _ = source.open_dream(far, 0)
    assert dream.scene == ""  # type: ignore[attr-defined]
    assert dream.camera is not None
    np.testing.assert_allclose(dream.camera, far.pose, atol=1e-4)
    dream.close()
    elsewhere = np.random.default_rng(0).integers(0, 255, (*engine.resolution, 3)).astype(np.uint8)
    dream, _ = source.open_dream(Moment(elsewhere, here(-2.0)), 0)
    assert dream.scene == "", "another place with the same coordinates"  # type: ignore[attr-defined]
    dream.close()
    world.close()


def test_a_scene_is_compared_where_it_shows_something(source: SwapSource, engine: Engine) -> None:
    source.load(lambda share, text: None)
    loaded, moment = engine.load_scene("alley"), at(here(2.0, 90.0), engine)
    assert moment.pose is not None
    camera = Camera(moment.pose, loaded.scene.fov_deg)
    cover, fits_db = compare_view(engine, loaded, moment.frame, camera)
    assert cover > 0.8
    assert fits_db > 16
    assert compare_view(engine, loaded, 255 - moment.frame, camera)[1] < fits_db - 6
    assert compare_view(engine, loaded, moment.frame, Camera(here(500.0), camera.fov_deg))[0] < 0.05


def test_a_camera_needs_an_image_and_an_image_in_a_scene_needs_a_camera(source: SwapSource, engine: Engine) -> None:
    source.load(lambda share, text: None)
    image = at(here(0.0), engine).frame
    with pytest.raises(ImageError, match="give one of the two, or both with a camera"):
        engine.open(image, scene="alley")
    with pytest.raises(ImageError, match="a camera says where an image was taken"):
        engine.open(scene="alley", camera=Camera(here(0.0), 90.0))


def test_a_game_of_another_size_is_refused(source: SwapSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Yard, "resolution", (32, 48))
    with pytest.raises(WorldError, match=r"yard shows 48x32 pixels, tiny-memory .*; play one of them"):
        source.load(lambda share, text: None)


def test_a_game_with_a_key_that_the_model_does_not_know_is_refused(
    source: SwapSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Yard, "action_space", ActionSpace((*KEYS, "juggle")))
    with pytest.raises(WorldError, match="tiny-memory does not know the key 'juggle' of yard"):
        source.load(lambda share, text: None)
