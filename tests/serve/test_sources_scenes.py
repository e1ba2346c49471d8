"""Scenes in the page: their starts come first, open sessions in the scene, and show the keys of its game alone."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.helpers.server_client import OPEN, connected
from tests.helpers.small_model import save_fresh_model
from tests.helpers.yard_scene import KEYS, save_yard_scene

from reverie import cli
from reverie.engine.engine import Engine, load
from reverie.engine.loading import scenes
from reverie.engine.sessions.session import Session
from reverie.errors import CheckpointError, DataError, ServeError
from reverie.models.presets import tiny, tiny_memory
from reverie.serve.app import create_app
from reverie.serve.choose import source_of
from reverie.serve.sources import ModelSource


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fresh_model(tmp_path_factory.mktemp("models") / "tiny-memory", tiny_memory())


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> Engine:
    return load(model_folder, device="cpu", dtype="float32")


@pytest.fixture
def bundled(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled scenes with two: an alley that fits the model, and one of another size that does not."""
    monkeypatch.setattr(scenes, "BUNDLED", tmp_path / "bundled")
    save_yard_scene(tmp_path / "bundled/alley", engine.resolution, KEYS, "An alley")
    save_yard_scene(tmp_path / "bundled/foreign", (48, 80), KEYS, "Another size")
    return tmp_path / "bundled"


def source_for(engine: Engine, **options: object) -> ModelSource:
    return ModelSource(engine, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("bundled")
def test_starts_in_scenes_come_before_the_model_s_images(engine: Engine) -> None:
    spec = source_for(engine).load(lambda share, text: None)
    assert [(start.scene, start.name) for start in spec.starts] == [
        ("An alley", "An alley, start 0"),
        ("An alley", "An alley, start 1"),
        (None, "dusk"),
    ]
    assert (spec.starts[0].keys, spec.starts[0].mouse) == (KEYS, True)
    assert len({start.id for start in spec.starts}) == 3


def test_a_scene_of_one_s_own_comes_first_at_the_start_that_was_named(
    engine: Engine, bundled: Path, tmp_path: Path
) -> None:
    save_yard_scene(tmp_path / "mine/alley", engine.resolution, KEYS, "My alley")
    spec = source_for(engine, scene=tmp_path / "mine/alley", start=1).load(lambda share, text: None)
    assert [start.name for start in spec.starts] == [
        "My alley, start 1", "My alley, start 0", "An alley, start 0", "An alley, start 1", "dusk",
    ]  # fmt: skip
    assert len({start.id for start in spec.starts}) == 5, "folders of one name are told apart"
    again = source_for(engine, scene="alley").load(lambda share, text: None)
    assert [start.name for start in again.starts] == ["An alley, start 0", "An alley, start 1", "dusk"]


@pytest.mark.usefixtures("bundled")
def test_a_tile_of_a_scene_opens_a_session_in_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Session] = []
    open_session = Engine.open

    def watched(*args: object, **options: object) -> Session:
        opened.append(open_session(*args, **options))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(Engine, "open", watched)
    with TestClient(create_app(source_for(engine), access=OPEN)) as http, connected(http) as client:
        welcome = client.hello()
        first, second, image = welcome["starts"]
        assert [start["scene"] for start in welcome["starts"]] == ["An alley", "An alley", None]
        assert (first["keys"], first["mouse"]) == (list(KEYS), True)
        client.play(start=second["id"], seed=3)
        client.input(["KeyW"])
        while client.frame().action < 1:
            pass
        client.say("start", start=image["id"], seed=3)
        client.expect("started")
        client.say("start", seed=3)
        assert client.expect("started")["start"] is None
        thumbnail = http.get(f"/{second['thumbnail']}")
        assert thumbnail.headers["content-type"] == "image/jpeg"
    assert [session.scene.split("/")[0] for session in opened] == ["alley", "", "alley"]
    begun = scenes.SceneCard.read("alley")
    assert (opened[0].picture[0] == begun.starts[1].image).all()
    assert (opened[2].picture[0] == begun.starts[0].image).all()


@pytest.mark.usefixtures("bundled")
def test_a_model_without_memory_shows_no_scenes(tmp_path: Path) -> None:
    engine = load(save_fresh_model(tmp_path / "tiny", tiny()), device="cpu", dtype="float32")
    spec = source_for(engine).load(lambda share, text: None)
    assert [start.name for start in spec.starts] == ["dusk"]
    with pytest.raises(CheckpointError, match="tiny has no spatial memory, so it opens no scenes"):
        source_for(engine, scene="alley").load(lambda share, text: None)


def test_a_damaged_bundled_scene_is_left_out_and_a_named_one_told(engine: Engine, bundled: Path) -> None:
    (bundled / "alley/start-01.webp").write_bytes(b"RIFF")
    spec = source_for(engine).load(lambda share, text: None)
    assert [start.name for start in spec.starts] == ["dusk"]
    with pytest.raises(DataError, match=r"start-01.webp: not a readable start image"):
        source_for(engine, scene="alley").load(lambda share, text: None)
    with pytest.raises(DataError, match="has keyframes of 48x80 pixels"):
        source_for(engine, scene="foreign").load(lambda share, text: None)


@pytest.mark.usefixtures("bundled")
def test_what_cannot_be_opened_is_told_before_the_model_is_read(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(model_folder)
    with pytest.raises(DataError, match=r"there is no scene 'cellar'; expected a bundled one \(alley, foreign\)"):
        source_of(model, None, "cpu", scene="cellar")
    with pytest.raises(DataError, match="scene alley has starts 0 to 1, got 7"):
        source_of(model, None, "cpu", scene="alley", start=7)
    with pytest.raises(ServeError, match="--scene is for models, and yard is a game"):
        source_of(model, "yard", "cpu", scene="alley")
    with pytest.raises(ServeError, match="--start 2 is a start of a scene, and none is named"):
        source_of(model, None, "cpu", start=2)
    generate = ["generate", "--model", model, "--actions", "idle 4f"]
    for options, complaint in (
        (["--scene", "alley", "--start", "2"], "scene alley has starts 0 to 1, got 2"),
        (["--scene", "alley", "--image", "dusk"], "leave --image or --scene out"),
        (["--start", "1"], "add --scene"),
    ):
        assert cli.main([*generate, *options]) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.usefixtures("bundled")
def test_a_video_in_a_scene(model_folder: Path, tmp_path: Path, engine: Engine) -> None:
    args = ["generate", "--model", str(model_folder), "--actions", "forward 8f", "--device", "cpu"]
    assert cli.main([*args, "--scene", "alley", "--start", "1", "-o", str(tmp_path / "walk.mp4")]) == 0
    with av.open(str(tmp_path / "walk.mp4")) as video:
        log = json.loads(video.metadata["comment"])
        first = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    own, other = (engine.open(scene="alley", start=start) for start in (1, 0))
    assert (log["scene"], log["start"], log["image"]) == (own.scene, 1, None)
    assert np.abs(first - own.first_frame[0]).mean() < np.abs(first - other.first_frame[0]).mean()
