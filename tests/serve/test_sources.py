"""Sources: a tiny dream and the real game are described alike and play through the same server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.helpers.server_client import OPEN, Client, connected
from tests.helpers.small_model import TWO_PASSES, save_fresh_model

from reverie.data import live
from reverie.data.dataset import Dataset
from reverie.engine.sessions.session import Session
from reverie.errors import CheckpointError, ServeError, WorldError
from reverie.models.presets import tiny
from reverie.serve.app import create_app
from reverie.serve.choose import source_of
from reverie.serve.sources import GameSource, ModelSource, PlaysTogether, Source
from reverie.types import Action, ActionSpace, Frames, World
from reverie.worlds import WORLDS, WorldInfo


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model with one start picture."""
    return save_fresh_model(tmp_path_factory.mktemp("models") / "tiny", tiny(), TWO_PASSES)


def play_through_the_server(source: Source) -> list[int]:
    """Start, walk, restart; returns the indices of the frames after the restart."""
    with TestClient(create_app(source, access=OPEN)) as http, connected(http) as client:
        assert isinstance(client, Client)
        welcome = client.hello()
        first = client.play(seed=1)
        assert len(first.payload) == welcome["width"] * welcome["height"] * 3
        client.input(["KeyW"], mouse=(8, 2))
        while client.frame().action < 1:
            pass
        client.say("restart", seed=2)
        client.expect("started")
        return [client.frame().index for _ in range(6)]


def test_a_dream(model_folder: Path):
    told: list[float] = []
    source = ModelSource(str(model_folder), device="cpu")
    spec = source.load(lambda share, text: told.append(share))
    assert (spec.name, spec.kind, spec.uploads) == ("tiny", "dream", True)
    assert [start.name for start in spec.starts] == ["dusk"]
    assert spec.starts[0].picture.shape == (*spec.resolution, 3)
    assert told == sorted(told)
    assert told[-1] == 1.0
    world = source.open(spec.starts[0].picture, seed=0)
    assert isinstance(world, World)
    assert world.step(Action()).shape == (spec.block_frames, *spec.resolution, 3)
    with pytest.raises(WorldError, match="choose one or upload"):
        source.open(None, 0)


class KeepsActions:
    """A world around a session, as one that can go back is."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.actions: list[Action] = []
        self.frames: list[Frames] = []

    def played(self, action: Action, frames: Frames) -> None:
        self.actions.append(action)
        self.frames.append(frames)


class Alone:
    """A world that is stepped by itself, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def step(self, action: Action) -> Frames:
        if self.error is not None:
            raise self.error
        return np.zeros((4, 32, 64, 3), np.uint8)


def test_dreams_are_stepped_together(model_folder: Path):
    """Sessions, worlds around them, and worlds that cannot share: each has the block that it would have alone."""
    source = ModelSource(str(model_folder), device="cpu")
    source.load(lambda share, text: None)
    assert isinstance(source, PlaysTogether)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
    actions = [Action(frozenset({"forward"})), Action(frozenset({"back"})), Action(), Action()]
    sessions = [source.open(picture, 3) for picture in pictures]
    alone = [source.open(picture, 3).step(action) for picture, action in zip(pictures, actions, strict=False)]
    wrapped = KeepsActions(sessions[1].session)  # type: ignore[attr-defined]
    worlds: list[Any] = [sessions[0], wrapped, Alone(), Alone(WorldError("broke off"))]
    first, second, third, fourth = source.step_together(worlds, actions)
    for ours, expected in ((first, alone[0]), (second, alone[1])):
        assert isinstance(ours, np.ndarray)
        assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 2  # as in sessions/test_batch.py
    assert wrapped.actions == [actions[1]]
    assert np.array_equal(wrapped.frames[0], second)  # type: ignore[arg-type]
    assert isinstance(third, np.ndarray)
    assert isinstance(fourth, WorldError)


def test_a_dream_through_the_server(model_folder: Path):
    assert play_through_the_server(ModelSource(str(model_folder), device="cpu")) == list(range(6))


def test_a_model_that_is_not_there():
    with pytest.raises(CheckpointError):
        ModelSource("no-such-model").load(lambda share, text: None)
    with pytest.raises(WorldError, match="load first"):
        ModelSource("no-such-model").open(np.zeros((32, 64, 3), np.uint8), 0)


def test_a_game_through_the_server():
    source = GameSource("yard")
    assert play_through_the_server(source) == list(range(6))


def test_an_unknown_game():
    with pytest.raises(WorldError, match="unknown game"):
        GameSource("quake").load(lambda share, text: None)


def test_a_persons_play_is_recorded_through_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORLDS, "pan", WorldInfo("pan", "a picture that slides", _Panorama))
    monkeypatch.setattr(live, "MIN_EPISODE_FRAMES", 1)
    play_through_the_server(GameSource("pan", record=tmp_path / "play"))
    dataset = Dataset(tmp_path / "play")
    assert [(episode.meta["seed"], episode.meta["player"]) for episode in dataset.episodes][:1] == [(1, "person")]
    clip = dataset.clip(0)
    assert clip.actions[:, 0].max() == 1.0, "the key that was held"
    before, after = clip.frames[:-1].astype(int).mean(axis=(1, 2, 3)), clip.frames[1:].astype(int).mean(axis=(1, 2, 3))
    held = clip.actions[:-1, 0] > 0.5
    assert (after - before)[held & (before < 240)].min() > 4, "what row i holds shows in frame i + 1"
    assert abs((after - before)[~held]).max(initial=0) < 3


def test_a_dream_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"recorded.*--world"):
        source_of("nano", None, "cpu", tmp_path)
    with pytest.raises(ServeError, match="set up with --set"):
        source_of("nano", None, "cpu", settings=["monsters=true"])
    with pytest.raises(ServeError, match="leave --model out"):
        source_of("nano", "yard", "cpu", tmp_path)


def test_a_game_takes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORLDS, "lit", WorldInfo("lit", "a picture that slides", _Lit))
    with pytest.raises(WorldError, match="unknown game 'doom'"):
        source_of("nano", "doom", "cpu")
    with pytest.raises(WorldError, match="no option 'gravity'"):
        source_of("nano", "lit", "cpu", settings=["gravity=0"])
    assert source_of(None, "lit", "cpu", settings=["monsters=true"]).name == "lit"


class _Panorama:
    """Each frame under `forward` is brighter, until it is white."""

    action_space = ActionSpace(("forward",))
    resolution = (32, 48)
    block_frames = 1

    def reset(self, seed: int) -> Frames:
        self._light = 30
        return self._draw()

    def step(self, action: Action) -> Frames:
        self._light = min(self._light + 8 * ("forward" in action.keys), 255)
        return self._draw()

    def close(self) -> None:
        pass

    def _draw(self) -> Frames:
        return np.full((1, 32, 48, 3), self._light, np.uint8)


class _Lit(_Panorama):
    def __init__(self, monsters: bool = False) -> None:
        self.monsters = monsters


def test_a_game_has_no_preset() -> None:
    with pytest.raises(ServeError, match="--preset is for models, and yard is a game"):
        source_of(None, "yard", "cpu", preset="8gb")
