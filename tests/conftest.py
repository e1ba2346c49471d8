"""Settings that every test shares: few threads (the cores are few), no network; and one tiny model for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# before torch is imported: threads that wait must not spin on cores that they share
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# a training command that finds it set does not start itself again, which here would be the tests, ended with 0
os.environ.setdefault("MALLOC_TOP_PAD_", "131072")

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from reverie.engine.engine import Engine


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Each test starts from the same torch seed, so that a failure comes back when it is run alone."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose frames depend on actions, noise and the past, saved as a model folder."""
    from tests.helpers.small_model import save_small_model

    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def engine(model_folder: Path) -> Engine:
    """The tiny model, loaded once for all tests that need one."""
    from reverie.engine.engine import load

    return load(model_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Matrix-Game 2.0 was published, at toy size."""
    from tests.helpers.published_folders import make_published

    return make_published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def fresh(request: pytest.FixtureRequest, model_folder: Path, published: Path) -> Engine:
    """An engine of this test's own: our model, or Matrix-Game 2's shape with the full or the tiny decoder."""
    from tests.helpers.published_folders import RESOLUTION

    from reverie.engine.engine import load

    if request.param == "own":
        return load(model_folder, device="cpu", dtype="float32")
    decoder = "tiny" if request.param.endswith("tiny") else "full"
    options = {"variant": "universal", "resolution": RESOLUTION, "decoder": decoder}
    return load(published, device="cpu", dtype="float32", **options)
