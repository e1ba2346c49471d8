"""Makes the toy world known to these tests."""

from pathlib import Path

import pytest
from tests.helpers import toy_world


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_world.register(monkeypatch.setitem)


@pytest.fixture(scope="session")
def toy_dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small recording of the toy world: 3 episodes or so of 40 frames.  Read it, do not change it."""
    toy_world.register(lambda table, name, info: table.__setitem__(name, info))
    return toy_world.record_toy(tmp_path_factory.mktemp("toy") / "set", frames=120)
