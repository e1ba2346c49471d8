"""The inverse-dynamics model learns what a small made-up game shows, keeps what it learnt, and refuses wrong data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers import toy_world
from tests.helpers.made_up_looks import SPACE, made_up

from reverie.errors import CheckpointError, DataError, TrainError
from reverie.models.checkpoint import save_trained
from reverie.models.idm import WEIGHTS, IDMConfig, InverseDynamics, Views, load_idm
from reverie.train.config import TrainerConfig
from reverie.train.idm import IdmTask, TrainIdmConfig, mirror, small_turns, train_idm, turn_field, turned
from reverie.train.trainer import Trainer
from reverie.vision.optical_flow import Flow, camera_turn_deg


@pytest.fixture
def toy_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small recording: 3 episodes of 40 frames."""
    toy_world.register(monkeypatch.setitem)
    return toy_world.record_toy(tmp_path / "recording", frames=120)


def test_it_learns_keys_and_turns(tmp_path: Path) -> None:
    config = TrainIdmConfig(data=tmp_path, output=tmp_path, batch=4, clip_frames=25)
    model = InverseDynamics(IDMConfig(action_space=SPACE, width=32, layers=2))
    task = IdmTask(model, config, made_up(64, 0), made_up(16, 1))
    before = task.validate()
    trainer = TrainerConfig(folder=tmp_path / "run", steps=80, lr=5e-3, ema=0.8, warmup_steps=5, track="none")
    figures = Trainer(task, trainer).run()
    assert figures["mouse.direction"] > max(0.8, before["mouse.direction"])
    assert figures["mouse.error_deg"] < 0.8
    assert min(figures["key.left"], figures["key.right"], figures["key.jump"]) > 0.75
    again, kept = load_idm(tmp_path / "run")
    assert kept["mouse.direction"] == pytest.approx(figures["mouse.direction"], abs=1e-3)
    held = made_up(1, 5)
    rows = again.label(np.zeros((25, 64, 64, 3), np.uint8), Views(held.flow[0], held.pictures[0]))
    assert rows.shape == (24, SPACE.size)
    assert set(np.unique(rows[:, :3])) <= {0.0, 1.0}
    assert (np.sign(rows[8:16, 4]) == np.sign(held.rows[0, 8:16, 4])).mean() > 0.8


def test_a_mirror_turns_left_into_right() -> None:
    looks = made_up(1, 3)
    flow, pictures, rows = mirror(looks.flow[0], looks.pictures[0], looks.rows[0], SPACE)
    np.testing.assert_array_equal(rows[:, 0], looks.rows[0, :, 1])
    np.testing.assert_array_equal(rows[:, 4], -looks.rows[0, :, 4])
    np.testing.assert_array_equal(rows[:, 2:4], looks.rows[0, :, 2:4])
    np.testing.assert_array_equal(flow[:, 0, :, 0], -looks.flow[0, :, 0, :, -1])
    np.testing.assert_array_equal(flow[:, 1, :, 0], looks.flow[0, :, 1, :, -1])
    back = mirror(flow, pictures, rows, SPACE)
    for twice, once in zip(back, (looks.flow[0], looks.pictures[0], looks.rows[0]), strict=True):
        np.testing.assert_array_equal(twice, once)


def test_a_run_on_a_recording(toy_dataset: Path, tmp_path: Path) -> None:
    config = TrainIdmConfig(
        data=toy_dataset, output=tmp_path / "idm", steps=2, clips=4, held_out_clips=2, clip_frames=33, batch=2, width=32
    )
    figures = train_idm(config)
    assert {"key.forward", "mouse.direction", "mouse.error_deg"} <= figures.keys()
    model, kept = load_idm(tmp_path / "idm")
    assert model.config.action_space.keys == ("forward", "back", "left", "right")
    assert kept.keys() == figures.keys()


def test_bad_input(toy_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="at least 24 frames"):
        TrainIdmConfig(data=toy_dataset, output=tmp_path, clip_frames=9)
    with pytest.raises(DataError, match="no dataset"):
        train_idm(TrainIdmConfig(data=tmp_path / "none", output=tmp_path, steps=1))
    with pytest.raises(CheckpointError, match="train one first"):
        load_idm(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "reverie.model"}')
    with pytest.raises(CheckpointError, match="kind"):
        load_idm(tmp_path)
    save_trained(tmp_path, "idm", InverseDynamics(IDMConfig(action_space=SPACE, width=32)), {})
    (tmp_path / WEIGHTS).write_bytes(b"cut short")
    with pytest.raises(CheckpointError):
        load_idm(tmp_path)


def test_the_field_of_a_turn_is_what_the_camera_is_measured_by() -> None:
    field = torch.from_numpy(turn_field(fov_deg=90.0))
    turns = torch.tensor([[0.3, 0.0], [0.0, -0.4], [0.2, 0.25]])
    uv = torch.einsum("tk,kchw->tchw", turns, field)
    measured = camera_turn_deg(Flow(uv, torch.ones(3, 16, 28), (128, 224)), fov_deg=90.0)
    np.testing.assert_allclose(measured, turns, atol=0.02)


def test_small_turns_are_held_and_some_are_none() -> None:
    turns = small_turns(64, 64, torch.Generator().manual_seed(0))
    assert 0.8 < (turns[:, 1:] == turns[:, :-1]).float().mean() < 0.95
    assert 0.3 < (turns == 0).float().mean() < 0.5
    assert 0.3 < turns[turns != 0].std() < 0.5


@pytest.mark.parametrize("is_half", [False, True])
def test_added_turns_change_flow_and_labels_alike(is_half: bool) -> None:
    flow, rows = torch.zeros(16, 24, 3, 16, 28, dtype=torch.float16), torch.zeros(16, 24, SPACE.size)
    field = torch.from_numpy(turn_field(90.0))
    with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
        moved, said = turned(flow, rows, field, torch.Generator().manual_seed(0))
    is_turned = said[..., -1].abs().amax(1) > 0
    assert 3 < is_turned.sum() < 13
    middle = moved[:, :, 0, :, 13:15].float().mean((2, 3))
    torch.testing.assert_close(middle, -said[..., -1] * 112 * np.pi / 180, atol=0.02, rtol=0.02)
    assert said[..., :3].abs().max() == moved[:, :, 2].abs().max() == 0
    assert flow.abs().max() == rows.abs().max() == 0
