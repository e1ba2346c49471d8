"""A game with a model: dreams open at the game's camera, in the scene that its frame lies in or on the frame alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.helpers.server_client import OPEN, Client, connected
from tests.helpers.small_model import save_fresh_model
from tests.helpers.yard_scene import KEYS, YardWorld, save_yard_scene

from reverie import worlds
from reverie.engine.engine import Engine, load
from reverie.engine.loading import scenes
from reverie.engine.localise import compare_view
from reverie.engine.sessions.session_file import SessionFile
from reverie.errors import ImageError, WorldError
from reverie.models.presets import tiny_memory
from reverie.serve.app import create_app
from reverie.serve.protocol import VIEWS, FrameMessage
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import GameSource, ModelSource
from reverie.serve.swap import Moment, SwapWorld
from reverie.serve.swap_source import SwapSource
from reverie.types import Action, ActionSpace, Camera, Pose


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(
        save_fresh_model(tmp_path_factory.mktemp("models") / "tiny-memory", tiny_memory()),
        device="cpu",
        dtype="float32",
    )


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

    def stand(self, pose: Pose) -> np.ndarray:
        return self._sized(self.look_from(pose)[0])

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
    assert dream.session.scene.startswith("alley/")
    assert dream.camera is not None
    np.testing.assert_allclose(dream.camera, here(-2.0), atol=1e-5)
    assert dream.step(Action()).shape[0] == engine.block_frames
    dream.close()
    far = Moment(at(here(-2.0), engine).frame, here(500.0))
    dream, _ = source.open_dream(far, 0)
    assert dream.session.scene == ""
    assert dream.camera is not None
    np.testing.assert_allclose(dream.camera, far.pose, atol=1e-4)
    dream.close()
    elsewhere = np.random.default_rng(0).integers(0, 255, (*engine.resolution, 3)).astype(np.uint8)
    dream, _ = source.open_dream(Moment(elsewhere, here(-2.0)), 0)
    assert dream.session.scene == "", "another place with the same coordinates"
    dream.close()
    world.close()


def played(client: Client, num_frames: int) -> FrameMessage:
    """The last of so many frames, walked and turned; then it is paused."""
    client.input(["KeyW", "ArrowRight"])
    frames = [client.frame() for _ in range(num_frames)]
    client.say("pause", paused=True)
    client.expect("paused")
    return frames[-1]


@pytest.mark.parametrize("view", ["dream", "both", "game"])
def test_a_saved_session_of_both_opens_as_it_was(source: SwapSource, engine: Engine, tmp_path: Path, view: str) -> None:
    saves = SaveFolder(tmp_path / "saves", is_listed=True)
    with TestClient(create_app(source, access=OPEN, saves=saves)) as http, connected(http) as client:
        assert client.hello()["rewind_s"] > 0
        client.play()
        if view != "game":
            client.say("view", view=view)
            assert client.expect("view")["frame"] == 1
        played(client, 9)
        client.say("save", name="by the door")
        card = client.expect("saved")
        file = saves.read(card["id"])
        assert file.game is not None
        assert (file.game.name, file.game.view) == ("yard", view)
        assert file.camera is not None
        assert (file.num_frames > 1) == (view != "game")

        answer = http.post("/saves", content=saves.read_bytes(card["id"])).json()
        world = http.app.state.host.sessions.played[0].world  # type: ignore[attr-defined]
        shown = []
        for save in (card["id"], answer["id"]):  # from its state, and generated again
            client.say("load", save=save)
            epoch = client.expect("started")["epoch"]
            told: list[dict] = []
            while isinstance(message := client.next(), dict):
                told.append(message)
            views = [(one["epoch"], one["view"], one["frame"], one["last"]) for one in told if one["type"] == "view"]
            assert views == ([] if view == "game" else [(epoch, view, file.num_frames, file.num_frames)])
            assert "notice" not in [one["type"] for one in told]
            assert message.width == engine.resolution[1] * (1 + (view == "both"))
            shown.append(message)
        assert shown[0].payload == shown[1].payload
        assert http.app.state.host.sessions.played[0].world is world, "its game goes on"  # type: ignore[attr-defined]
        if view == "dream":
            client.say("pause", paused=False)
            played(client, 8)
            client.say("seek", frame=file.num_frames)
            assert client.expect("position")["frame"] == file.num_frames
            assert client.frame().payload == shown[1].payload


def test_the_dream_of_a_saved_game_opens_without_it(source: SwapSource, engine: Engine, tmp_path: Path) -> None:
    source.load(lambda share, text: None)
    world = source.open(None, 5)
    world.reset(5)
    file = SessionFile.from_bytes(world.describe("the game").to_bytes())
    world.close()
    saves = SaveFolder(tmp_path / "saves")
    card = saves.add(file)
    with (
        TestClient(create_app(ModelSource(engine), access=OPEN, saves=saves)) as http,
        connected(http) as client,
    ):
        client.hello()
        client.play()
        client.say("load", save=card.id)
        assert client.expect("notice")["message"] == "yard is not played here; the dream of it goes on"
        client.frame()


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
