from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from tests.hub.fake_hub import WRITER, FakeHub

from reverie.hub import client


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
