"""Distribution matching distillation: what moves the student, what moves the critic, and rollouts with gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.distillation import common, folder_of, seeded, students_turn
from tests.helpers.latent_clips import PRESET, clips, trainer

from reverie.models.checkpoint import ModelBundle, load_model
from reverie.train.distill_dmd import DistillDmdConfig, DmdTask
from reverie.train.trainer import Trainer


@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_matching_distributions_pulls_a_student_back(shift: float, teacher: ModelBundle, tmp_path: Path) -> None:
    """A student all of whose pictures are too light, and a critic that knows it: the gradient makes them darker."""
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=4, critic_updates=2, critic_first=0.0, still=0.0)  # type: ignore[arg-type]
    student = load_model(folder_of(teacher, tmp_path)).model
    with torch.no_grad():
        student.head.bias.add_(shift)
    dmd = DmdTask(config, teacher, clips(), clips(seed=1), student)
    dmd.critic.load_state_dict(student.state_dict())
    students_turn(dmd)
    slopes = []
    for seed in range(6):
        dmd.model.zero_grad()
        loss, scalars = dmd.loss(dmd.batch(np.random.default_rng(seed)), seeded(seed))
        loss.backward()
        assert "score_gap" in scalars
        assert all(p.grad is None for p in dmd.critic.parameters())
        slopes.append(dmd.student.head.bias.grad.mean().item())  # type: ignore[union-attr]
    assert np.mean(slopes) * shift > 0
    assert sum(slope * shift > 0 for slope in slopes) >= 5


def test_a_student_is_mended(teacher: ModelBundle, tmp_path: Path) -> None:
    """Its pictures are too light; under its own rollouts it finds back to what the teacher makes."""
    given = {**common(tmp_path), "rollout_blocks": 4, "critic_first": 0.2, "still": 0.0}
    student = load_model(folder_of(teacher, tmp_path)).model
    with torch.no_grad():
        student.head.bias.add_(0.3)
    torch.manual_seed(0)
    dmd = DmdTask(DistillDmdConfig(**given), teacher, clips(), clips(seed=1), student)  # type: ignore[arg-type]
    before = dmd.validate()
    after = Trainer(dmd, dataclasses.replace(trainer(tmp_path, 150), lr=3e-4, ema=0.95)).run()
    assert after["rollout_mse"] < 0.6 * before["rollout_mse"]


def test_a_critic_that_knows_no_difference_moves_nothing(teacher: ModelBundle, tmp_path: Path) -> None:
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=4, critic_first=0.0)  # type: ignore[arg-type]
    dmd = DmdTask(config, teacher, clips(), clips(seed=1))
    students_turn(dmd)
    loss, scalars = dmd.loss(dmd.batch(np.random.default_rng(0)), seeded(0))
    loss.backward()
    assert float(scalars["score_gap"]) == pytest.approx(0, abs=1e-6)
    assert max(p.grad.abs().max().item() for p in dmd.student.parameters() if p.grad is not None) < 1e-6


def test_in_the_critics_turns_the_student_stays_and_in_its_own_the_critic(teacher: ModelBundle, tmp_path: Path) -> None:
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=4, critic_updates=1000, still=0.0)  # type: ignore[arg-type]
    student = load_model(folder_of(teacher, tmp_path)).model
    dmd = DmdTask(config, teacher, clips(), clips(seed=1), student)
    kept = [{name: p.clone() for name, p in part.named_parameters()} for part in (dmd.student, dmd.critic)]
    Trainer(dmd, dataclasses.replace(trainer(tmp_path, 4), lr=1e-3)).run()
    assert all(torch.equal(p, kept[0][name]) for name, p in dmd.student.named_parameters())
    assert not torch.equal(dmd.critic.head.weight, kept[1]["head.weight"])
    made = load_model(tmp_path / "model").config
    assert made.schedule.renoise


def test_gradients_reach_one_pass_of_each_block_and_never_the_ring(teacher: ModelBundle, tmp_path: Path) -> None:
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=5)  # type: ignore[arg-type]
    dmd = DmdTask(config, teacher, clips(), clips(seed=1))
    z0, rows, picture, _ = dmd.batch(np.random.default_rng(0))
    assert rows.shape == (4, 20, 6)
    made = dmd.rollout(z0, dmd.image(picture), rows, torch.Generator().manual_seed(0))
    assert made.shape == (4, 6, *PRESET.world.latent)
    assert not made[:, 0].requires_grad or made.grad_fn is not None
    (made[:, -1] ** 2).sum().backward()
    gradients = [p.grad for p in dmd.student.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)
    assert all(p.grad is None for p in dmd.critic.parameters())


def test_a_rollout_with_gradients_equals_one_without(teacher: ModelBundle, tmp_path: Path) -> None:
    """The ring is read by copies where gradients are wanted: the same numbers, once the window is full too."""
    config = DistillDmdConfig(**{**common(tmp_path), "sigmas": (1.0,)}, rollout_blocks=9)  # type: ignore[arg-type]
    dmd = DmdTask(config, teacher, clips(), clips(seed=1))
    z0, rows, picture, _ = dmd.batch(np.random.default_rng(0))
    image = dmd.image(picture)
    wanted = dmd.rollout(z0, image, rows, torch.Generator().manual_seed(3))
    with torch.no_grad():
        plain = dmd.rollout(z0, image, rows, torch.Generator().manual_seed(3))
    torch.testing.assert_close(wanted, plain, atol=1e-4, rtol=0)
