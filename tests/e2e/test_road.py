"""The whole road at tiny size: record a game, train a tokenizer, train a world, open it, play it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reverie
from reverie.data.dataset import Dataset
from reverie.data.record import RecordConfig, record
from reverie.errors import CheckpointError, DataError
from reverie.train.tokenizer import TrainTokenizerConfig, train_tokenizer
from reverie.train.world import TrainWorldConfig, train_world
from reverie.types import Action, ActionSpace, Frames
from reverie.worlds import WORLDS, WorldInfo


class Lighthouse:
    """A bright column on a dark shore; turning moves it, walking widens it."""

    action_space = ActionSpace(("forward", "back", "left", "right"))
    resolution = (32, 64)
    block_frames = 1
    finished = False

    def __init__(self, **options: Any) -> None:
        self.reset(0)

    def reset(self, seed: int) -> Frames:
        self._yaw, self._size = float(seed % 20 - 10), 6.0
        return self._draw()

    def step(self, action: Action) -> Frames:
        self._yaw += action.mouse[1]
        self._size = float(np.clip(self._size + ("forward" in action.keys) - ("back" in action.keys), 3, 20))
        return self._draw()

    def close(self) -> None:
        pass

    def _draw(self) -> Frames:
        x = np.arange(64) - 31.5 + 0.7 * (self._yaw % 90 - 45)
        light = 40 + 180 * (np.abs(x) < self._size)
        return np.broadcast_to(light[None, None, :, None], (1, 32, 64, 3)).astype(np.uint8)


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(
        WORLDS, "lighthouse", WorldInfo("lighthouse", "a test", lambda **options: Lighthouse(**options))
    )
    config = RecordConfig(
        world="lighthouse",
        out=tmp_path / "rec",
        hours=400 / 90000,
        processes=0,
        episode_seconds=4,
        min_episode_seconds=2,
    )
    record(config)
    return config.out


def test_from_a_game_to_a_dream_that_plays(recording: Path, tmp_path: Path) -> None:
    dataset = Dataset(recording)
    assert dataset.num_frames >= 400
    tokenizer = TrainTokenizerConfig(
        data=(recording,), output=tmp_path / "tok", preset="tiny", steps=20, batch=2, crop=(32, 64), pool_clips=8
    )
    figures = train_tokenizer(tokenizer)
    assert figures["psnr"] > 15
    world = TrainWorldConfig(
        data=(recording,),
        tokenizer=tokenizer.output,
        output=tmp_path / "world",
        preset="tiny",
        name="lighthouse",
        steps=20,
        batch=2,
        clip_steps=5,
        lr=3e-3,
        device="cpu",
    )
    figures = train_world(world)
    assert figures["next_mse"] < figures["repeat_mse"] + 1
    engine = reverie.load(tmp_path / "world" / "model", device="cpu", dtype="float32")
    assert engine.action_space == dataset.action_space
    session = engine.open(dataset.clip(0, 0, 1).frames[0], seed=1)
    left = session.step(Action(mouse=(0.0, -4.0)))
    session.reset(1)
    right = session.step(Action(mouse=(0.0, 4.0)))
    assert left.shape == right.shape == (4, 32, 64, 3)
    assert not np.array_equal(left, right)
    again = TrainWorldConfig(
        data=(recording,),
        tokenizer=tmp_path / "world" / "model",
        output=tmp_path / "again",
        preset="tiny",
        steps=1,
        batch=1,
    )
    train_world(again)  # a model folder's tokenizer serves as well


def test_what_is_missing_is_named(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train a tokenizer first"):
        train_world(TrainWorldConfig(data=(recording,), tokenizer=tmp_path / "no", output=tmp_path / "w", steps=1))
    with pytest.raises(DataError, match="no dataset at"):
        train_tokenizer(TrainTokenizerConfig(data=(tmp_path / "no",), output=tmp_path / "t", preset="tiny", steps=1))
