"""The rival learns, dreams frame by frame as it was trained to, and starts from any picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bench.rivals import oasis

from reverie.errors import CheckpointError, DataError
from reverie.models.tokenizer import VideoTokenizer, tiny
from reverie.train.config import TrainerConfig
from reverie.train.trainer import Trainer
from reverie.types import Action, ActionSpace

SPACE = ActionSpace(("forward", "back"))
SIZE = (32, 64)


def small() -> oasis.OasisModel:
    torch.manual_seed(0)
    return oasis.OasisModel(oasis.OasisConfig(action_space=SPACE, resolution=SIZE, dim=48, layers=2, heads=2, window=4))


def made_up(frames: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forward makes the latent bright, back dark."""
    rng = np.random.default_rng(0)
    rows = np.zeros((frames, SPACE.size), np.float32)
    held = rng.integers(0, 2, frames)
    rows[np.arange(frames), held] = 1
    z = np.broadcast_to((1.0 - 2 * held)[:, None, None, None], (frames, 16, 4, 8)).astype(np.float16)
    return z, rows, np.repeat(np.arange(frames // 40), 40).astype(np.int32)


def trained(folder: Path, steps: int = 80) -> tuple[oasis.OasisTask, dict[str, float]]:
    config = oasis.TrainConfig(data=folder, tokenizer=folder, output=folder, batch=8, window=4)
    task = oasis.OasisTask(small(), config, VideoTokenizer(tiny()), *made_up())
    trainer = TrainerConfig(folder=folder, steps=steps, lr=5e-3, muon=True, ema=0.8, warmup_steps=3, track="none")
    return task, Trainer(task, trainer).run()


def test_streamed_is_whole() -> None:
    model = small()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, level, rows = torch.randn(1, 7, 16, 4, 8), torch.full((1, 7), 15), torch.randn(1, 7, SPACE.size)
    whole = model(x, level, rows)
    memory = oasis.Memory()
    streamed = [model(x[:, i : i + 1], level[:, i : i + 1], rows[:, i : i + 1], memory, keep=True) for i in range(7)]
    torch.testing.assert_close(torch.cat(streamed, 1), whole, atol=2e-5, rtol=1e-4)
    assert memory.layers[0][0].shape[2] == 3, "the window's frames but the one to come"


def test_the_schedule_goes_from_signal_to_noise() -> None:
    shares = oasis.signal_shares()
    assert shares[0] > 0.99
    assert shares[-1] < 0.01
    assert (shares.diff() < 0).all()


def test_it_learns_to_obey_and_dreams_from_its_folder(tmp_path: Path) -> None:
    trained(tmp_path)
    engine = oasis.load(tmp_path)
    assert (engine.action_space, engine.resolution, engine.block_frames) == (SPACE, SIZE, 1)
    dream = engine.open(np.full((*SIZE, 3), 90, np.uint8), seed=3)
    seen: list[float] = []
    decode = engine.tokenizer.decode
    engine.tokenizer.decode = lambda z: (seen.append(float(z.mean())), decode(z))[1]  # type: ignore[method-assign]
    frames = dream.step([Action(frozenset({"forward"}))] * 3 + [Action(frozenset({"back"}))] * 3)
    assert frames.shape == (6, *SIZE, 3)
    assert min(seen[1:3]) > 0.3 > -0.3 > max(seen[4:])
    again = oasis.load(tmp_path).open(np.full((*SIZE, 3), 90, np.uint8), seed=3)
    np.testing.assert_array_equal(again.step([Action(frozenset({"forward"}))])[0], frames[0])


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train it first"):
        oasis.load(tmp_path)
    config = oasis.TrainConfig(data=tmp_path, tokenizer=tmp_path, output=tmp_path, window=64)
    with pytest.raises(DataError, match="64 frames"):
        oasis.OasisTask(small(), config, VideoTokenizer(tiny()), *made_up())
