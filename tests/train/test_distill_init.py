"""A few-step student's start: one step comes near to what the teacher makes in many."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.helpers.distillation import common
from tests.helpers.latent_clips import PRESET, clips, trainer

from reverie import sampling
from reverie.models.checkpoint import ModelBundle, load_model
from reverie.train.distill_init import DistillInitConfig, InitTask
from reverie.train.forcing import Guided, Past, follow
from reverie.train.trainer import Trainer


@pytest.mark.parametrize("method", ["ode", "consistency"])
def test_a_start_makes_few_steps_better(method: str, teacher: ModelBundle, tmp_path: Path) -> None:
    """One step comes near to what the teacher makes in many."""
    config = DistillInitConfig(**common(tmp_path), method=method, teacher_steps=6)  # type: ignore[arg-type]
    torch.manual_seed(0)
    init = InitTask(config, teacher, clips(), clips(seed=1))
    before = init.validate()
    assert before["one_step_mse"] == pytest.approx(before["teacher_one_step_mse"])
    frozen = {name: p.clone() for name, p in teacher.model.named_parameters()}
    after = Trainer(init, dataclasses.replace(trainer(tmp_path, 50), lr=1e-3)).run()
    assert after["one_step_mse"] < 0.75 * before["one_step_mse"]  # the teacher predicts clean latents: near already
    assert after["teacher_one_step_mse"] == pytest.approx(before["teacher_one_step_mse"])
    assert all(torch.equal(p, frozen[name]) for name, p in teacher.model.named_parameters())
    made = load_model(tmp_path / "model")
    assert made.config.schedule == sampling.Schedule((1.0, 0.5), renoise=True, context_sigma=0.06)
    assert made.config.summary["distilled"]["steps"] == 50


def test_the_path_ends_where_one_level_ends(teacher: ModelBundle) -> None:
    """With a single level the path is the clean estimate; what stands at a kept level is returned before the end."""
    z, rows, picture, _ = clips().spread(2, 5)
    image = teacher.image_encoder(picture.float() / 127.5 - 1)
    noise, guided = torch.randn(2, 4, *PRESET.world.latent), Guided(teacher.model)
    past = Past(z, z, torch.zeros(2, 5))
    (end,) = follow(guided, noise, [1.0], (), past, rows, image)
    wanted = guided(past, noise, torch.ones(2, 4), rows, image)
    torch.testing.assert_close(end, wanted)
    first, half, _ = follow(guided, noise, [1.0, 0.5], (1.0, 0.5), past, rows, image)
    assert torch.equal(first, noise)
    torch.testing.assert_close(half, 0.5 * noise + 0.5 * wanted, atol=1e-5, rtol=1e-5)
