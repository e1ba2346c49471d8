"""The road from a teacher to a few-step student, on latents that the actions decide."""

import dataclasses
from pathlib import Path

import pytest
from tests.helpers.distillation import common
from tests.helpers.latent_clips import recording

from reverie.errors import ShapeError, TrainError
from reverie.models.checkpoint import ModelBundle
from reverie.train.distill import check_fits
from reverie.train.distill_dmd import DistillDmdConfig
from reverie.train.distill_init import DistillInitConfig
from reverie.train.latents import Clips


def test_what_does_not_fit(teacher: ModelBundle, tmp_path: Path) -> None:
    small = Clips([dataclasses.replace(recording(), z=recording().z[:, :, :2])])
    with pytest.raises(TrainError, match=r"have latents \(16, 2, 8\) \(c, h, w\), the teacher"):
        check_fits(teacher, small)
    with pytest.raises(TrainError, match="rollout_blocks and critic_updates of at least 1"):
        DistillDmdConfig(**common(tmp_path), rollout_blocks=0)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="noise levels descend"):
        DistillInitConfig(**{**common(tmp_path), "sigmas": (0.5, 1.0)})  # type: ignore[arg-type]
