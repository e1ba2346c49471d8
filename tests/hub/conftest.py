from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from PIL import Image
from tests.helpers.fake_hub import WRITER, FakeHub
from tests.helpers.small_model import save_small_model

from reverie.hub import client
from reverie.sampling import Schedule


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder in shards, with a start image, a card, and a file that is none of its own.

    It has been shaken, so that actions reach its frames.
    """
    folder = tmp_path_factory.mktemp("models") / "tiny"
    card = "---\ntags: [mine]\n---\n# Tiny\n"
    save_small_model(folder, schedule=Schedule((1.0,)), card=card, shard_bytes=100_000)
    (folder / "starts").mkdir()
    Image.new("RGB", (64, 32), (90, 60, 40)).save(folder / "starts/room.png")
    (folder / "notes.txt").write_text("private")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub on this machine, with a writer's token, an empty cache and no proxy."""
    with FakeHub() as fake:
        for name in (*client.PROXIES, *map(str.lower, client.PROXIES)):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        template = fake.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "ENDPOINT": fake.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        huggingface_hub.close_session()
        yield fake
        huggingface_hub.close_session()
