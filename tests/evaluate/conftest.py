"""A tiny model folder and a small recording made by a fake world, for the evaluation's end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.helpers.small_model import save_small_model
from tests.helpers.synthetic_recordings import SPACE, write_recording

from reverie.models.checkpoint import save_trained
from reverie.models.idm import IDMConfig, InverseDynamics
from reverie.models.presets import tiny
from reverie.sampling import Schedule


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return save_small_model(folder, schedule=Schedule((1.0,)), noise=0.0)


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("data") / "heldout", tiny().resolution)


@pytest.fixture(scope="session")
def tiny_idm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained judge of the fake world's actions."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("idm") / "judge"
    folder.mkdir()
    model = InverseDynamics(IDMConfig(action_space=SPACE, width=16, layers=1))
    save_trained(folder, "idm", model, {"metrics": {"key.forward": 0.875}})
    return folder
