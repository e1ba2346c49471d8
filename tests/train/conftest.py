"""A world that has learnt for a moment, and packs of a made-up room."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.helpers.latent_clips import task, trainer
from tests.helpers.made_up_packs import SPACE, Given, write_pack
from tests.helpers.small_model import save_untrained_model

from reverie.models.checkpoint import ModelBundle, load_model
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.spatial import depth
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.trainer import Trainer


@pytest.fixture(scope="session", autouse=True)
def without_amx() -> Iterator[None]:
    """`auto` is float32, on every processor; tests that train in bfloat16 say so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        yield


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that has learnt for a moment: it follows the actions, in many steps better than in one."""
    folder = tmp_path_factory.mktemp("teacher")
    Trainer(task(folder, action_dropout=0.2), trainer(folder, 150)).run()
    return folder / "model"


@pytest.fixture
def teacher(teacher_folder: Path) -> ModelBundle:
    return load_model(teacher_folder)


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("packs")
    save_untrained_model(folder / "tokenizer", SPACE)
    packs, held_out = write_pack(folder / "room", 4), write_pack(folder / "held" / "room", 1, seed=1)
    return Given(packs, held_out, folder / "tokenizer")


@pytest.fixture(scope="module")
def store(given: Given) -> Store:
    tokenizer = load_model(given.tokenizer).tokenizer
    assert isinstance(tokenizer, VideoTokenizer)
    return Store([given.packs], tokenizer, SPACE, torch.device("cpu"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Geometry's clock goes on by a second an update: as many updates on every machine."""
    seconds = itertools.count()
    monkeypatch.setattr(depth, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
