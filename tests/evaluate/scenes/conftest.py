"""A yard: walks through it, a scene of it, a model of toy size, and its evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.helpers.yard_scene import save_yard_scene
from tests.helpers.yard_walks import KEYS, RESOLUTION, SIZE, record_walks

from reverie.cli import main
from reverie.data.dataset import Dataset
from reverie.engine.engine import Engine, load
from reverie.evaluate import run
from reverie.evaluate.action_mapping import match_actions
from reverie.evaluate.scenes.walks import Place, pick_place
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.presets import tiny_memory
from reverie.sampling import Schedule


@pytest.fixture(scope="session")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_walks(tmp_path_factory.mktemp("data") / "walks", heldout=(3, 8))


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "yard"
    save_yard_scene(folder, RESOLUTION, KEYS)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model whose network changes what the memory shows a little."""
    torch.manual_seed(0)
    preset = tiny_memory()
    world = dataclasses.replace(preset.world, latent=(16, 8, 14))
    bundle = ModelBundle.new(
        ModelConfig(
            name="toy",
            resolution=RESOLUTION,
            schedule=Schedule((1.0,), context_sigma=0.05),
            world=world,
            tokenizer=preset.tokenizer,
            image_encoder=preset.image_encoder,
            memory=preset.memory,
        )
    )
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    folder = tmp_path_factory.mktemp("model") / "toy"
    save_model(folder, bundle)
    return folder


@pytest.fixture(scope="session")
def engine(model: Path) -> Engine:
    return load(model, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def place(engine: Engine, walks: Path, scene: Path) -> Place:
    dataset = Dataset(walks)
    mapping = match_actions(engine.action_space, dataset.action_space)
    return pick_place("yard", dataset, engine.load_scene(scene), engine, mapping, None, SIZE, seed=0)


@pytest.fixture(scope="session")
def finished(model: Path, walks: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.SceneSize, "of", lambda quick, starts, long_s: SIZE)
        folder = tmp_path_factory.mktemp("report") / "toy"
        options = ["--data", str(walks), "--scene", str(scene), "-o", str(folder), "--dtype", "float32"]
        assert main(["evaluate", str(model), *options, "--device", "cpu"]) == 0
    return folder
