from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reverie import cli
from reverie.engine.loading import hub, models
from reverie.engine.loading.source import open_source
from reverie.errors import CheckpointError
from reverie.models.checkpoint import load_model, save_model


@pytest.fixture
def bundled(model_folder, tmp_path, monkeypatch) -> None:
    shutil.copytree(model_folder, tmp_path / "weights" / "small")
    monkeypatch.setattr(models, "WEIGHTS", tmp_path / "weights")


def test_bundled_models_are_found_by_name(bundled, tmp_path) -> None:
    assert [model.name for model in models.bundled_models()] == ["small"]
    assert models.find_model("small") == tmp_path / "weights" / "small"
    assert models.find_model(tmp_path) == tmp_path


def test_they_are_listed_with_their_figures(bundled, capsys) -> None:
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert "small" in out
    assert "32 x 64" in out
    assert "forward, back, left, right, mouse" in out
    assert "steps" in out


@pytest.mark.parametrize("option", [[], ["--card"]])
def test_cards_are_shown(bundled, capsys, option) -> None:
    assert cli.main(["models", *option, "small"]) == 0
    assert "# tiny" in capsys.readouterr().out
    assert cli.main(["models", *option, "big"]) == 2
    assert "bundled model (small)" in capsys.readouterr().err


def test_no_models(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    assert cli.main(["models"]) == 0
    assert "train world" in capsys.readouterr().out


def test_sharded_folders_are_whole_models(model_folder, tmp_path, monkeypatch) -> None:
    """Played, hashed and fetched with all of their files."""
    bundle = load_model(model_folder)
    save_model(tmp_path / "m", bundle, shard_bytes=100_000)
    source = open_source(tmp_path / "m")
    assert all(file.is_file() for file in source.files)
    there = {file.name for file in source.files}
    assert there == {file.name for file in (tmp_path / "m").iterdir()}
    assert len([name for name in there if name.startswith("dit-")]) > 1

    def get(self: hub._Hub, name: str, *, optional: bool = False) -> Path | None:
        if name in there:
            got.add(name)
            return tmp_path / "m" / name
        if optional:
            return None
        raise CheckpointError(f"{self.repository} has no {name}")

    got: set[str] = set()
    monkeypatch.setattr(hub._Hub, "get", get)
    monkeypatch.setattr(hub, "find_obstacle", lambda: None)
    assert hub.fetch("someone/nano", None) == tmp_path / "m"
    assert got == there
    there = {name for name in there if "index" not in name}
    with pytest.raises(CheckpointError, match="has no dit"):
        hub.fetch("someone/nano", None)
