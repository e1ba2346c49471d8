"""A step, and the figures, of every training task on a device that is not the CPU: nothing is left behind.

The task with a spatial memory: `spatial/test_task_devices.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.pretend_gpu import is_there, pretended_gpu
from tests.helpers.training_tasks import TASKS

from reverie.train.batches import move
from reverie.train.world import WorldTask


@pytest.mark.parametrize("name", TASKS)
def test_a_step_and_the_figures_stay_on_the_device(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TASKS[name](tmp_path)
    with pretended_gpu(monkeypatch) as gpu:
        made.device = gpu
        made.model.to(gpu)
        if isinstance(made, WorldTask):
            made.bundle.tokenizer.to(gpu)  # as `train_world` does
        loss, scalars = made.loss(move(made.batch(np.random.default_rng(0)), gpu), torch.Generator(gpu).manual_seed(0))
        loss.backward()
        assert is_there(loss)
        assert all(is_there(value) for value in scalars.values() if isinstance(value, torch.Tensor))
        made.model.eval()
        with torch.no_grad():
            assert np.isfinite(list(made.validate().values())).all()
            (tmp_path / "samples").mkdir(exist_ok=True)
            made.sample(tmp_path / "samples", 1)
